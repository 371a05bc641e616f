"""Turns: read back, judged, built and handed over; or parked; or closed because they give no trace.

A turn brings along the title that was billed on it. A row whose turn was sent before is left to the follow-ups.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from tailer.core.identity import DocumentKey
from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.trace.export import Exported, TurnExport, is_chosen, trace_id_of
from tailer.core.turn.as_it_was import restore
from tailer.core.turn.entry_outcomes import EntryOutcome, outcome_of
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import TurnRecord, Wait, unknown_parts
from tailer.events import PartsUnknown
from tailer.flow.destinations import Destination
from tailer.flow.lanes.attachments import Attachments
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.namesakes import bury_namesakes
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.lanes.setbacks import Waiting
from tailer.flow.lanes.vanished import VanishedTurns
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
    """Handles responses, and questions that were never answered. `attachments` is the way of files to the destinations
    that take them, by name."""

    name: ClassVar[str] = "turns"
    works: ClassVar[tuple[Interest, ...]] = (Interest.RESPONSE, Interest.QUESTION)

    def __init__(
        self, bench: Workbench, followed: FollowedChanges, attachments: Mapping[str, Attachments]
    ) -> None:
        super().__init__(bench)
        self._followed = followed
        # Who deletes traces with their rows wants none of what LibreChat deleted.
        self._vanished = VanishedTurns(bench.reader, sends_spending=not followed.deletions)
        self._attachments = attachments

    async def _work(self, work: Round) -> None:
        patient = [(entry, Wait.RESPONSE) for entry in work.entries if _is_patient_question(entry)]
        await work.park(patient)
        entries = work.by_row()
        if not entries:
            return
        found = await self._bench.reader.locate(list(entries))
        gone = [entries[key] for key in entries.keys() - {row.key for row in found}]
        await self._vanished.settle(
            work, [entry for entry in gone if work.keeps(entry, entry.conversation_id or entry.belongs_to)]
        )
        located = work.leave_others(found)
        for row in located:
            work.name(entries[row.key], trace_id_of(row), row.message_id)
        wanted: dict[DocumentKey, list[Destination]] = {}
        for destination in work.destinations:
            for row in await self._choose(work, entries, located, destination):
                wanted.setdefault(row.key, []).append(destination)
        async for group in self._bench.reader.read_turns([row for row in located if row.key in wanted]):
            await self._deliver(work, entries, group, wanted)

    async def _choose(
        self,
        work: Round,
        entries: Mapping[DocumentKey, Entry],
        located: Sequence[Row],
        destination: Destination,
    ) -> Sequence[Row]:
        """The rows whose turns a destination still has to get, claimed."""
        claimed: list[Row] = []
        busy: list[tuple[Entry, Waiting | None]] = []
        for row in located:
            entry = entries[row.key]
            if not work.is_open(entry, destination):
                continue
            if work.claim(entry, destination, {trace_id_of(row): row.key}):
                claimed.append(row)
            else:
                busy.append((entry, None))
        await work.wait_or_owe(busy, at=destination)
        sent = await destination.state.find_exported_rows([trace_id_of(row) for row in claimed])
        own = await bury_namesakes(work, entries, claimed, sent, self._bench.reader, at=destination)
        return [
            row
            for row in own
            if self._is_to_be_built(
                work, entries[row.key], row, destination, was_sent=trace_id_of(row) in sent
            )
        ]

    def _is_to_be_built(
        self, work: Round, entry: Entry, row: Row, destination: Destination, *, was_sent: bool
    ) -> bool:
        """Whether a row that still exists gives a trace; if not, its share is settled."""
        is_question = row.created_by_user and entry.key.interest is Interest.RESPONSE
        if (was_sent or is_question) and self._followed.concern(entry):
            work.follow_up(entry, at=destination)
        elif was_sent:
            work.close(entry, EntryOutcome.SENT_BEFORE, at=destination)
        elif is_question:
            work.close(entry, EntryOutcome.NOT_A_RESPONSE, at=destination)
        elif not is_chosen(row.conversation_id, destination.options):
            work.close(entry, EntryOutcome.NOT_SAMPLED, at=destination)
        elif entry.may_be_forgotten(self._bench.records_last):
            work.close(entry, EntryOutcome.FORGOTTEN, at=destination)
        else:
            return True
        return False

    async def _deliver(
        self,
        work: Round,
        entries: Mapping[DocumentKey, Entry],
        group: Sequence[tuple[Row, TurnRecord | None]],
        wanted: Mapping[DocumentKey, Sequence[Destination]],
    ) -> None:
        records = [
            (row, self._complete(record, entries[row.key])) for row, record in group if record is not None
        ]
        await self._vanished.settle(work, [entries[row.key] for row, record in group if record is None])
        # Each is judged and built once for all destinations that show it alike.
        turns = [(row, record, TurnExport(row, record)) for row, record in records]
        # Uploads may take long, so those without any go first.
        for destination in sorted(work.destinations, key=self._uploads):
            own = [turn for turn in turns if destination in wanted[turn[0].key]]
            await self._deliver_to(work, entries, own, destination)

    def _uploads(self, destination: Destination) -> bool:
        return destination.name in self._attachments

    async def _deliver_to(
        self,
        work: Round,
        entries: Mapping[DocumentKey, Entry],
        turns: Sequence[tuple[Row, TurnRecord, TurnExport]],
        destination: Destination,
    ) -> None:
        attachments, is_away = self._attachments.get(destination.name), destination.presence.is_away
        media: Mapping[DocumentKey, tuple[str, ...] | Waiting] = {}
        if attachments is not None and not is_away:
            media = await attachments.publish([(row, record) for row, record, _ in turns])
        outgoing: list[Outgoing] = []
        waiting: list[tuple[Entry, Wait]] = []
        held_up: list[tuple[Entry, Waiting | None]] = []
        for row, record, export in turns:
            entry, published = entries[row.key], media.get(row.key, ())
            if isinstance(published, Waiting):
                held_up.append((entry, published))
                continue
            if published:
                shown = replace(record, media=published)
                made = self._make(entry, shown, TurnExport(row, shown), destination)
            else:
                made = self._make(entry, record, export, destination)
            if destination.options.policies.may_mask:
                # To mask a turn may take a second or two. Probes and the lease do not wait for the next one as well.
                await asyncio.sleep(0)
            if isinstance(made, Outgoing):
                outgoing.append(made)
            elif isinstance(made, Wait):
                waiting.append((entry, made))
            else:
                work.close(entry, made, at=destination)
        await work.park(waiting, at=destination)
        await work.wait_or_owe(held_up, at=destination)
        if is_away:
            # Without its files it is not to be sent, however soon the destination is back.
            await work.owe([entries[piece.key.document_key] for piece in outgoing], at=destination)
            return
        outgoing = await self._without_sent_titles(work, outgoing, destination)
        await work.hand_over(outgoing, at=destination)

    async def _without_sent_titles(
        self, work: Round, outgoing: Sequence[Outgoing], destination: Destination
    ) -> list[Outgoing]:
        """Leave out the titles that were sent, or are being sent, before their turn."""
        entries = {entry.key: entry for entry in work.by_row(at=destination).values()}
        free: set[str] = set()
        for piece in outgoing:
            titles = {item.probe.trace_id: item.document_key for item in piece.items[1:]}
            if titles:
                free |= work.claim_free(entries[piece.key], destination, titles)
        unsent = free - await destination.state.find_exported(list(free)) if free else free
        return [
            piece if all(item.record_id in unsent for item in piece.items[1:]) else piece.without_title()
            for piece in outgoing
        ]

    def _make(
        self, entry: Entry, record: TurnRecord, export: TurnExport, destination: Destination
    ) -> Outgoing | Wait | EntryOutcome:
        made = export.export(destination.options, deadline_passed=entry.deadline_passed)
        if not isinstance(made, Exported):
            return made
        unknown = unknown_parts(record)
        if unknown:
            self._bench.emit(PartsUnknown(len(unknown)))
        return destination.packing.pack(
            entry.key,
            outcome_of(made.outcome),
            made.traces,
            sent=made.sent,
            has_feedback=made.has_feedback,
            also=self._titles_of(made, record),
        )

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
        response, question, backlog = record.response, record.question, self._bench.backlog
        return restore(
            record,
            backlog.told_of(entry, record),
            finished_milliseconds=entry.ended_milliseconds(
                unfinished=response is not None and response.unfinished
            ),
            question_touches=backlog.touches_of(question.key) if question is not None else (),
        )


def _is_patient_question(entry: Entry) -> bool:
    return entry.key.interest is Interest.QUESTION and not entry.deadline_passed
