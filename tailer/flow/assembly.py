"""Turns entries that are due into parcels: read back, judge, build, encode; and closes what gives no trace.

Holds the per-item boundary of the daemon: whatever one row does to the code becomes a dead letter of that row alone.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import StrEnum

from tailer.core.identity import DocumentKey, TraceId, observation_id, title_trace_id_beside
from tailer.core.stream.hints import Interest
from tailer.core.stream.open_turns import Entry, EntryKey
from tailer.core.trace.export import (
    Exported,
    ExportOptions,
    export_spending,
    export_title,
    export_turn,
    is_chosen,
    shows_media,
    trace_id_of,
)
from tailer.core.trace.files import files_of
from tailer.core.trace.observations import Trace
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import Exclusion, TurnRecord, Wait
from tailer.events import Emit, TurnDone, TurnFailed
from tailer.flow.aftercare import Aftercare
from tailer.flow.backlog import Backlog
from tailer.flow.parking import Parking
from tailer.flow.ports import DocumentReader, MediaLibrary, Sink
from tailer.flow.records import DeadLetter
from tailer.flow.sending.parcels import Parcel
from tailer.flow.stores import StateStore

_TURN_INTERESTS = (Interest.RESPONSE, Interest.QUESTION)


class _Route(StrEnum):
    """Where a row goes; the value is the outcome where it goes nowhere."""

    BUSY = "busy"
    BUILD = "build"
    FOLLOW = "follow"
    FOLLOW_QUESTION = "follow_question"
    SENT_BEFORE = "sent_before"
    NOT_A_RESPONSE = "not_a_response"
    NOT_SAMPLED = "not_sampled"


_CLOSED_ROUTES = (_Route.SENT_BEFORE, _Route.NOT_A_RESPONSE, _Route.NOT_SAMPLED)
_BUSY_SECONDS = 1.0
"""How long an entry waits whose trace is on its way already, in a batch of an earlier run or with its turn."""


class Assembly:
    """Works through the backlog, round by round."""

    def __init__(
        self,
        backlog: Backlog,
        parking: Parking,
        reader: DocumentReader,
        state: StateStore,
        sink: Sink,
        options: ExportOptions,
        aftercare: Aftercare,
        media: MediaLibrary | None,
        in_flight: set[str],
        emit: Emit,
        hand_over: Callable[[Sequence[Parcel]], Awaitable[None]],
    ) -> None:
        self._backlog = backlog
        self._parking = parking
        self._reader = reader
        self._state = state
        self._sink = sink
        self._options = options
        self._aftercare = aftercare
        self._media = media
        self._in_flight = in_flight
        self._emit = emit
        self._hand_over = hand_over

    async def assemble(self, entries: Sequence[Entry]) -> None:
        """One round: every entry is handed over, parked, postponed or closed."""
        waiting = [entry for entry in entries if _is_patient_question(entry)]
        await self._park([(entry, Wait.RESPONSE) for entry in waiting])
        titled = {entry.key.document_key: entry for entry in entries if entry.key.interest is Interest.TITLE}
        turns = {
            entry.key.document_key: entry
            for entry in entries
            if entry.key.interest in _TURN_INTERESTS and not _is_patient_question(entry)
        }
        deleted = [entry for entry in entries if entry.key.interest is Interest.DELETION]
        if turns:
            # A turn brings the title along that was made for it.
            for key in await self._assemble_turns(turns):
                titled.pop(key.document_key, None)
        if titled:
            await self._assemble_titles(titled)
        if deleted:
            await self._aftercare.follow_deletions(deleted)
        spent = {
            entry.key.document_key: entry for entry in entries if entry.key.interest is Interest.SPENDING
        }
        if spent:
            await self._assemble_spending(spent)

    async def _assemble_titles(self, entries: dict[DocumentKey, Entry]) -> None:
        located = await self._reader.locate_titled(list(entries))
        # Who is on the way is looked up first: a batch that lands while the records are read is in neither otherwise.
        busy = frozenset(self._in_flight)
        sent = await self._state.find_exported([_title_trace_id_of(row) for _, row in located])
        pending: dict[DocumentKey, Entry] = {}
        rows = []
        for key, row in located:
            entry = entries.pop(key, None)
            if entry is None:
                continue
            trace_id = _title_trace_id_of(row)
            if trace_id in busy or trace_id_of(row) in busy:
                self._backlog.postpone(entry.key, seconds=_BUSY_SECONDS)
            elif trace_id in sent:
                self._backlog.close(entry.key)
            elif is_chosen(row.conversation_id, self._options):
                pending[row.key] = entry
                rows.append(row)
            else:
                self._close(entry, Exclusion.NOT_SAMPLED.value)
        for entry in entries.values():
            # No title was billed, or its turn is not stored yet and will bring the title along.
            self._backlog.close(entry.key)
        async for group in self._reader.read_turns(rows):
            await self._deliver(group, pending, self._make_title_parcel)

    async def _assemble_spending(self, entries: dict[DocumentKey, Entry]) -> None:
        """One trace for each call of the remote API; all of a call's transactions lead to the same one."""
        found = await self._reader.read_spending(list(entries))
        by_trace: dict[TraceId, list[Entry]] = {}
        traces: dict[TraceId, Trace] = {}
        for key, entry in entries.items():
            spending = found.get(key)
            trace = export_spending(spending, self._options) if spending is not None else "spent_in_chat"
            if isinstance(trace, str):
                self._close(entry, trace)
            else:
                by_trace.setdefault(trace.id, []).append(entry)
                traces.setdefault(trace.id, trace)
        busy = frozenset(self._in_flight)
        sent = await self._state.find_exported(list(traces))
        parcels = []
        for trace_id, group in by_trace.items():
            if trace_id in busy:
                for entry in group:
                    self._backlog.postpone(entry.key, seconds=_BUSY_SECONDS)
                continue
            is_new = trace_id not in sent
            # The first is the oldest in the stream: it holds the position until the trace is acknowledged.
            for entry in group[1:] if is_new else group:
                self._close(entry, "sent_before")
            if is_new:
                self._in_flight.add(trace_id)
                parcels.append(self._encode(group[0], "api_usage", [traces[trace_id]]))
        await self._hand_over(parcels)

    async def _assemble_turns(self, entries: dict[DocumentKey, Entry]) -> Sequence[EntryKey]:
        """Returns the entries that are done with the turns handed over."""
        carried: list[EntryKey] = []
        located = await self._reader.locate(list(entries))
        busy = frozenset(self._in_flight)
        sent = await self._state.find_exported([trace_id_of(row) for row in located])
        for key in entries.keys() - {row.key for row in located}:
            self._close(entries[key], "deleted")
        routed: dict[_Route, list[Row]] = {route: [] for route in _Route}
        for row in located:
            trace_id = trace_id_of(row)
            route = self._route(entries[row.key], row, is_busy=trace_id in busy, was_sent=trace_id in sent)
            routed[route].append(row)
        for row in routed[_Route.BUSY]:
            self._backlog.postpone(entries[row.key].key, seconds=_BUSY_SECONDS)
        for route in _CLOSED_ROUTES:
            for row in routed[route]:
                self._close(entries[row.key], route.value)
        async for group in self._reader.read_turns(routed[_Route.BUILD]):
            carried += await self._deliver(group, entries, self._make_turn_parcel)
        await self._aftercare.follow_responses(entries, routed[_Route.FOLLOW])
        await self._aftercare.follow_questions(entries, routed[_Route.FOLLOW_QUESTION])
        return carried

    def _route(self, entry: Entry, row: Row, *, is_busy: bool, was_sent: bool) -> "_Route":
        """What is done with a row that still exists."""
        has_more = self._aftercare.concerns(entry)
        if is_busy:
            return _Route.BUSY
        if was_sent:
            return _Route.FOLLOW if has_more else _Route.SENT_BEFORE
        if row.created_by_user and entry.key.interest is Interest.RESPONSE:
            return _Route.FOLLOW_QUESTION if has_more else _Route.NOT_A_RESPONSE
        return _Route.BUILD if is_chosen(row.conversation_id, self._options) else _Route.NOT_SAMPLED

    async def _deliver(
        self,
        group: Sequence[tuple[Row, TurnRecord | None]],
        entries: dict[DocumentKey, Entry],
        make: Callable[[Entry, Row, TurnRecord], Parcel | Wait | str],
    ) -> Sequence[EntryKey]:
        parcels: list[Parcel] = []
        waiting: list[tuple[Entry, Wait]] = []
        for row, record in group:
            entry = entries[row.key]
            if record is None:
                self._close(entry, "deleted")
                continue
            try:
                complete = await self._with_media(row, self._complete(record, entry))
                made = make(entry, row, complete)
            except Exception as error:  # noqa: BLE001 - the per-item boundary: counted, kept and reported
                await self._bury(entry, row, type(error).__name__)
                continue
            if isinstance(made, Parcel):
                parcels.append(made)
            elif isinstance(made, Wait):
                waiting.append((entry, made))
            else:
                self._close(entry, made)
        await self._park(waiting)
        await self._hand_over(await self._without_sent(parcels))
        return [key for parcel in parcels for key in parcel.also]

    async def _without_sent(self, parcels: Sequence[Parcel]) -> Sequence[Parcel]:
        """The parcels without titles that were sent before their turn was; what leaves here is in flight."""
        titles = [trace.record_id for parcel in parcels for trace in parcel.traces[1:]]
        busy = frozenset(self._in_flight)
        sent = await self._state.find_exported(titles) if titles else frozenset()
        kept = []
        for parcel in parcels:
            own = parcel.traces[0].record_id
            if len(parcel.traces) == 1 and own not in busy:
                self._in_flight.add(own)
                kept.append(parcel)
                continue
            pairs = [
                (trace, chunk)
                for trace, chunk in zip(parcel.traces, parcel.chunks, strict=True)
                if trace.record_id not in sent and trace.record_id not in busy
            ]
            self._in_flight.update(trace.record_id for trace, _ in pairs)
            kept.append(
                replace(
                    parcel,
                    traces=tuple(trace for trace, _ in pairs),
                    chunks=tuple(chunk for _, chunk in pairs),
                )
            )
        return kept

    def _make_turn_parcel(self, entry: Entry, row: Row, record: TurnRecord) -> Parcel | Wait | str:
        made = export_turn(row, record, self._options, deadline_passed=entry.deadline_passed)
        if not isinstance(made, Exported):
            return made
        parcel = self._encode(entry, made.outcome.value, made.traces)
        also = self._titles_of(record) if len(made.traces) > 1 else ()
        return replace(parcel, sent=made.sent, has_feedback=made.has_feedback, also=also)

    def _titles_of(self, record: TurnRecord) -> tuple[EntryKey, ...]:
        """The open entry of the title of a turn's conversation, where there is one."""
        conversation = record.conversation
        if conversation is None or not self._backlog.is_open(Interest.TITLE, conversation.key):
            return ()
        return (EntryKey(Interest.TITLE, conversation.key),)

    def _make_title_parcel(self, entry: Entry, row: Row, record: TurnRecord) -> Parcel | Wait | str:
        del row
        title = export_title(record, self._options)
        return "no_title" if title is None else self._encode(entry, "title", [title])

    def _encode(self, entry: Entry, outcome: str, traces: Sequence[Trace]) -> Parcel:
        return Parcel(entry.key, outcome, tuple(traces), tuple(self._sink.encode(trace) for trace in traces))

    async def _with_media(self, row: Row, record: TurnRecord) -> TurnRecord:
        """The record with references to its files, uploaded now, where that is switched on and nothing is withheld."""
        if self._media is None or not shows_media(record, self._options):
            return record
        root_id = observation_id(row.message_id, "root")
        references = await self._media.publish(trace_id_of(row), root_id, list(files_of(record)))
        return replace(record, media=references)

    def _complete(self, record: TurnRecord, entry: Entry) -> TurnRecord:
        """Add what only the stream told: when a partial row was finished, when a question was saved again."""
        question = record.question
        return replace(
            record,
            finished_milliseconds=entry.finished_milliseconds,
            question_touches=self._backlog.touches_of(question.key) if question is not None else (),
        )

    async def _park(self, waiting: Sequence[tuple[Entry, Wait]]) -> None:
        if not waiting:
            return
        now = self._backlog.source_seconds
        await self._parking.keep(
            [
                (entry.key.document_key, entry.message_id, wait, entry.cluster_seconds or now)
                for entry, wait in waiting
            ]
        )
        for entry, wait in waiting:
            self._emit(TurnDone(f"parked_{wait.value}"))
            self._backlog.close(entry.key)

    def _close(self, entry: Entry, outcome: str) -> None:
        self._emit(TurnDone(outcome))
        self._parking.leave(entry.key.document_key)
        self._backlog.close(entry.key)

    async def _bury(self, entry: Entry, row: Row, reason: str) -> None:
        letter = DeadLetter(trace_id_of(row), row.message_id, row.key, f"build_failed: {reason}", None)
        await self._state.add_dead_letters([letter])
        self._emit(TurnFailed(row.message_id, reason))
        self._close(entry, "dead_letter")


def _title_trace_id_of(row: Row) -> TraceId:
    return title_trace_id_beside(trace_id_of(row), row.message_id)


def _is_patient_question(entry: Entry) -> bool:
    return entry.key.interest is Interest.QUESTION and not entry.deadline_passed
