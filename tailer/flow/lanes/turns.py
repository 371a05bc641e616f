"""Turns: read back, judged, built and handed over; or parked; or closed because they give no trace.

A turn brings along the title that was billed on it. A row whose turn was sent before is left to the follow-ups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from tailer.core.identity import (
    DocumentKey,
    TraceId,
    native_copy_trace_id,
    title_trace_id,
    turn_trace_id,
)
from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.stream.open_turns import Entry, EntryKey
from tailer.core.trace.export import (
    Exported,
    ExportOptions,
    export_spending,
    export_turn,
    is_chosen,
    trace_id_of,
)
from tailer.core.trace.spending import Spending
from tailer.core.turn.as_it_was import restore
from tailer.core.turn.entry_outcomes import EntryOutcome, outcome_of
from tailer.core.turn.readback import DeletedRow, Row
from tailer.core.turn.turns import TurnRecord, Wait, unknown_parts
from tailer.events import PartsUnknown
from tailer.flow.lanes.attachments import Attachments
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.lanes.setbacks import Waiting
from tailer.flow.sending.outgoing import Outgoing

_TEXT_FIELDS = frozenset({"text", "content", "attachments"})


@dataclass(frozen=True, slots=True)
class FollowedChanges:
    """The changes of a sent turn that are followed. `deletions`: a deletion takes the trace away."""

    feedback: bool
    edits: bool
    deletions: bool

    def concern(self, entry: Entry) -> bool:
        """Whether an entry asks for more than its trace."""
        edited = self.edits and not _TEXT_FIELDS.isdisjoint(entry.changed)
        return edited or LEDGER in entry.changed or (self.feedback and "feedback" in entry.changed)


class Turns(Lane):
    """Handles responses, and questions that were never answered."""

    name: ClassVar[str] = "turns"
    works: ClassVar[tuple[Interest, ...]] = (Interest.RESPONSE, Interest.QUESTION)

    def __init__(
        self,
        bench: Workbench,
        options: ExportOptions,
        followed: FollowedChanges,
        attachments: Attachments | None,
    ) -> None:
        super().__init__(bench)
        self._options = options
        self._followed = followed
        self._attachments = attachments

    async def _work(self, work: Round) -> None:
        patient = [(entry, Wait.RESPONSE) for entry in work.entries if _is_patient_question(entry)]
        await work.park(patient)
        entries = work.by_row()
        if not entries:
            return
        found = await self._bench.reader.locate(list(entries))
        gone = [entries[key] for key in entries.keys() - {row.key for row in found}]
        await self._close_missing(work, [entry for entry in gone if work.keeps(entry, entry.conversation_id)])
        located = work.leave_others(found)
        for row in located:
            work.name(entries[row.key], trace_id_of(row), row.message_id)
        claimed = [row for row in located if self._claim(work, entries[row.key], row)]
        sent = await self._bench.state.find_exported([trace_id_of(row) for row in claimed])
        wanted = [
            row
            for row in claimed
            if self._is_to_be_built(work, entries[row.key], row, was_sent=trace_id_of(row) in sent)
        ]
        async for group in self._bench.reader.read_turns(wanted):
            await self._deliver(work, entries, group)

    def _claim(self, work: Round, entry: Entry, row: Row) -> bool:
        if work.claim(entry, {trace_id_of(row): row.key}):
            return True
        work.postpone(entry)
        return False

    def _is_to_be_built(self, work: Round, entry: Entry, row: Row, *, was_sent: bool) -> bool:
        """Whether a row that still exists gives a trace; if not, its entry is settled."""
        is_question = row.created_by_user and entry.key.interest is Interest.RESPONSE
        if (was_sent or is_question) and self._followed.concern(entry):
            work.pass_on(entry, Interest.FOLLOWUP)
        elif was_sent:
            work.close(entry, EntryOutcome.SENT_BEFORE)
        elif is_question:
            work.close(entry, EntryOutcome.NOT_A_RESPONSE)
        elif not is_chosen(row.conversation_id, self._options):
            work.close(entry, EntryOutcome.NOT_SAMPLED)
        else:
            return True
        return False

    async def _deliver(
        self,
        work: Round,
        entries: dict[DocumentKey, Entry],
        group: Sequence[tuple[Row, TurnRecord | None]],
    ) -> None:
        records = {
            row.key: (row, self._complete(record, entries[row.key]))
            for row, record in group
            if record is not None
        }
        media = {} if self._attachments is None else await self._attachments.publish(records.values())
        outgoing: list[Outgoing] = []
        waiting: list[tuple[Entry, Wait]] = []
        missing: list[Entry] = []
        for row, _ in group:
            entry, published = entries[row.key], media.get(row.key, ())
            if row.key not in records:
                missing.append(entry)
                continue
            if isinstance(published, Waiting):
                work.postpone(entry, published.wait_seconds)
                continue
            record = records[row.key][1]
            made = self._make(entry, row, replace(record, media=published) if published else record)
            if isinstance(made, Outgoing):
                outgoing.append(made)
            elif isinstance(made, Wait):
                waiting.append((entry, made))
            else:
                work.close(entry, made)
        await self._close_missing(work, missing)
        await work.park(waiting)
        await work.hand_over(await self._without_sent_titles(work, outgoing))

    async def _close_missing(self, work: Round, entries: Sequence[Entry]) -> None:
        """Settle entries whose rows were deleted meanwhile, or lack a field that every message has."""
        if not entries:
            return
        existing = await self._bench.reader.find_existing([entry.key.document_key for entry in entries])
        deleted = {}
        for entry in entries:
            if entry.key.document_key in existing:
                work.close(entry, EntryOutcome.UNREADABLE)
            else:
                deleted[entry.key.document_key] = entry
        await self._send_spending(work, deleted)

    async def _send_spending(self, work: Round, entries: dict[DocumentKey, Entry]) -> None:
        """Handle turns that were deleted before they were read: the ledger's part is sent, without content."""
        rows = {key: row for key, entry in entries.items() if (row := _deleted_row(entry)) is not None}
        if self._followed.deletions:
            # The operator wants no trace of what LibreChat deleted.
            rows = {}
        spent = await self._bench.reader.read_deleted(rows) if rows else {}
        claimed: dict[DocumentKey, Spending] = {}
        for key, entry in entries.items():
            if key not in spent:
                work.close(entry, EntryOutcome.DELETED)
                continue
            traces = _possible_traces(spent[key].reference)
            work.name(entry, traces[0], spent[key].reference)
            if work.claim(entry, dict.fromkeys(traces, key)):
                claimed[key] = spent[key]
            else:
                work.postpone(entry)
        ids = [trace_id for spending in claimed.values() for trace_id in _possible_traces(spending.reference)]
        sent = await self._bench.state.find_exported(ids) if ids else frozenset()
        outgoing = []
        for key, spending in claimed.items():
            turn, copy, title = _possible_traces(spending.reference)
            if turn in sent or copy in sent:
                work.close(entries[key], EntryOutcome.DELETED)
                continue
            trace = export_spending(spending.without_title() if title in sent else spending, self._options)
            if isinstance(trace, EntryOutcome):
                work.close(entries[key], trace)
            else:
                packed = self._bench.packing.pack(entries[key].key, EntryOutcome.DELETED, [trace])
                outgoing.append(packed)
        await work.hand_over(outgoing)

    async def _without_sent_titles(self, work: Round, outgoing: Sequence[Outgoing]) -> Sequence[Outgoing]:
        """Leave out the titles that were sent, or are being sent, before their turn."""
        entries = {entry.key: entry for entry in work.entries}
        free: set[str] = set()
        for piece in outgoing:
            titles = {item.probe.trace_id: item.document_key for item in piece.items[1:]}
            if titles:
                free |= work.claim_free(entries[piece.key], titles)
        unsent = free - await self._bench.state.find_exported(list(free)) if free else free
        return [
            piece if all(item.record_id in unsent for item in piece.items[1:]) else piece.without_title()
            for piece in outgoing
        ]

    def _make(self, entry: Entry, row: Row, record: TurnRecord) -> Outgoing | Wait | EntryOutcome:
        made = export_turn(row, record, self._options, deadline_passed=entry.deadline_passed)
        if not isinstance(made, Exported):
            return made
        unknown = unknown_parts(record)
        if unknown:
            self._bench.emit(PartsUnknown(len(unknown)))
        packed = self._bench.packing.pack(entry.key, outcome_of(made.outcome), made.traces, sent=made.sent)
        return replace(packed, has_feedback=made.has_feedback, also=self._titles_of(made, record))

    def _titles_of(self, made: Exported, record: TurnRecord) -> tuple[EntryKey, ...]:
        """The open entry of the title that goes with a turn, if there is one."""
        conversation = record.conversation
        if len(made.traces) == 1 or conversation is None:
            return ()
        if not self._bench.backlog.is_open(Interest.TITLE, conversation.key):
            return ()
        return (EntryKey(Interest.TITLE, conversation.key),)

    def _complete(self, record: TurnRecord, entry: Entry) -> TurnRecord:
        """Add what only the stream knows: when a partial row was finished, when a question was saved again, and how the
        turn was before an edit."""
        question, backlog = record.question, self._bench.backlog
        timed = replace(
            record,
            finished_milliseconds=entry.finished_milliseconds,
            question_touches=backlog.touches_of(question.key) if question is not None else (),
        )
        return restore(timed, backlog.told_of(entry, record))


def _possible_traces(message_id: str) -> tuple[TraceId, TraceId, TraceId]:
    """The traces that a turn may have had: its own, the one beside LibreChat's own, and its title's."""
    return turn_trace_id(message_id), native_copy_trace_id(message_id), title_trace_id(message_id)


def _deleted_row(entry: Entry) -> DeletedRow | None:
    """The ids of a deleted response; only the event that stored it has them."""
    if (
        entry.key.interest is not Interest.RESPONSE
        or entry.message_id is None
        or entry.conversation_id is None
    ):
        return None
    return DeletedRow(entry.message_id, entry.conversation_id)


def _is_patient_question(entry: Entry) -> bool:
    return entry.key.interest is Interest.QUESTION and not entry.deadline_passed
