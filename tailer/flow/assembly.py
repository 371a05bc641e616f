"""Turns entries that are due into parcels: read back, judge, build, encode; and closes what gives no trace.

Holds the per-item boundary of the daemon: whatever one row does to the code becomes a dead letter of that row alone.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from tailer.core.export import Exported, ExportOptions, export_title, export_turn, is_chosen, trace_id_of
from tailer.core.hints import Interest
from tailer.core.identity import DocumentKey, TraceId, title_trace_id
from tailer.core.observations import Trace
from tailer.core.open_turns import Entry, EntryKey
from tailer.core.rows import Row
from tailer.core.turns import Exclusion, TurnRecord, Wait
from tailer.events import Emit, TurnDone, TurnFailed
from tailer.flow.backlog import Backlog
from tailer.flow.parking import Parking
from tailer.flow.ports import DeadLetter, DocumentReader, Sink, StateStore

_BUSY_SECONDS = 1.0
"""How long an entry waits whose trace is on its way already, in a batch of an earlier run or with its turn."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one entry gives: its traces, encoded."""

    key: EntryKey
    outcome: str
    traces: tuple[Trace, ...]
    chunks: tuple[bytes, ...]


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
        in_flight: set[TraceId],
        emit: Emit,
        hand_over: Callable[[Sequence[Parcel]], Awaitable[None]],
    ) -> None:
        self._backlog = backlog
        self._parking = parking
        self._reader = reader
        self._state = state
        self._sink = sink
        self._options = options
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
            if entry.key.interest is not Interest.TITLE and not _is_patient_question(entry)
        }
        if titled:
            await self._assemble_titles(titled)
        if turns:
            await self._assemble_turns(turns)

    async def _assemble_titles(self, entries: dict[DocumentKey, Entry]) -> None:
        located = await self._reader.locate_titled(list(entries))
        # Who is on the way is looked up first: a batch that lands while the records are read is in neither otherwise.
        busy = frozenset(self._in_flight)
        sent = await self._state.find_exported([title_trace_id(row.message_id) for _, row in located])
        pending: dict[DocumentKey, Entry] = {}
        rows = []
        for key, row in located:
            entry = entries.pop(key, None)
            if entry is None:
                continue
            trace_id = title_trace_id(row.message_id)
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

    async def _assemble_turns(self, entries: dict[DocumentKey, Entry]) -> None:
        located = await self._reader.locate(list(entries))
        ids = {row.key: trace_id_of(row) for row in located}
        busy = frozenset(self._in_flight)
        sent = await self._state.find_exported(list(ids.values()))
        gone = entries.keys() - ids.keys()
        for key in gone:
            self._close(entries[key], "deleted")
        rows = []
        for row in located:
            entry, trace_id = entries[row.key], ids[row.key]
            if trace_id in busy:
                self._backlog.postpone(entry.key, seconds=_BUSY_SECONDS)
            elif trace_id in sent:
                self._close(entry, "sent_before")
            elif row.created_by_user and entry.key.interest is Interest.RESPONSE:
                self._close(entry, Exclusion.NOT_A_RESPONSE.value)
            elif not is_chosen(row.conversation_id, self._options):
                self._close(entry, Exclusion.NOT_SAMPLED.value)
            else:
                rows.append(row)
        async for group in self._reader.read_turns(rows):
            await self._deliver(group, entries, self._make_turn_parcel)

    async def _deliver(
        self,
        group: Sequence[tuple[Row, TurnRecord | None]],
        entries: dict[DocumentKey, Entry],
        make: Callable[[Entry, Row, TurnRecord], Parcel | Wait | str],
    ) -> None:
        parcels: list[Parcel] = []
        waiting: list[tuple[Entry, Wait]] = []
        for row, record in group:
            entry = entries[row.key]
            if record is None:
                self._close(entry, "deleted")
                continue
            try:
                made = make(entry, row, self._complete(record, entry))
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

    async def _without_sent(self, parcels: Sequence[Parcel]) -> Sequence[Parcel]:
        """The parcels without titles that were sent before their turn was; what leaves here is in flight."""
        titles = [trace.id for parcel in parcels for trace in parcel.traces[1:]]
        busy = frozenset(self._in_flight)
        sent = await self._state.find_exported(titles) if titles else frozenset()
        kept = []
        for parcel in parcels:
            pairs = [
                (trace, chunk)
                for trace, chunk in zip(parcel.traces, parcel.chunks, strict=True)
                if trace.id not in sent and trace.id not in busy
            ]
            self._in_flight.update(trace.id for trace, _ in pairs)
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
        return self._encode(entry, made.outcome.value, made.traces) if isinstance(made, Exported) else made

    def _make_title_parcel(self, entry: Entry, row: Row, record: TurnRecord) -> Parcel | Wait | str:
        del row
        title = export_title(record, self._options)
        return "no_title" if title is None else self._encode(entry, "title", [title])

    def _encode(self, entry: Entry, outcome: str, traces: Sequence[Trace]) -> Parcel:
        return Parcel(entry.key, outcome, tuple(traces), tuple(self._sink.encode(trace) for trace in traces))

    def _complete(self, record: TurnRecord, entry: Entry) -> TurnRecord:
        """Add what only the stream told: when a partial row was finished, when a question was asked again."""
        restarted = None
        if record.response is not None and record.question is not None:
            created = record.response.created_milliseconds
            if created is not None:
                restarted = self._backlog.started_milliseconds(
                    record.question.key, before_milliseconds=created
                )
        return replace(
            record, finished_milliseconds=entry.finished_milliseconds, restarted_milliseconds=restarted
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


def _is_patient_question(entry: Entry) -> bool:
    return entry.key.interest is Interest.QUESTION and not entry.deadline_passed
