"""Spending without a message: one trace for each call of LibreChat's agents API."""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from tailer.core.identity import DocumentKey, TraceId, spending_trace_id
from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.trace.export import export_spending, possible_turn_traces
from tailer.core.trace.followup import SentTurn
from tailer.core.trace.late import is_late
from tailer.core.trace.observations import Trace
from tailer.core.trace.spending import Spending
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.flow.destinations import Destination
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench


class Spendings(Lane):
    """Handles transactions, if they are streamed; all transactions of a call lead to the same trace."""

    name: ClassVar[str] = "spending"
    works: ClassVar[tuple[Interest, ...]] = (Interest.SPENDING,)

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._left_to_followups: set[DocumentKey] = set()

    async def _work(self, work: Round) -> None:
        entries = work.by_row()
        found = await self._bench.reader.read_spending(list(entries))
        sent = await self._find_sent([spending for spending in found.values() if spending is not None])
        in_chats: list[Entry] = []
        calls: list[tuple[Entry, Spending]] = []
        for key, entry in entries.items():
            spending = found.get(key)
            if spending is None or spending.reference in sent:
                in_chats.append(entry)
                continue
            if not work.keeps(entry, spending.conversation_id):
                continue
            work.name(entry, spending_trace_id(spending.reference), spending.reference)
            calls.append((entry, spending))
        await self._follow_chats(work, in_chats)
        for destination in work.destinations:
            own = [call for call in calls if work.is_open(call[0], destination)]
            await self._send(work, own, destination)

    async def _send(
        self, work: Round, calls: Sequence[tuple[Entry, Spending]], destination: Destination
    ) -> None:
        groups: dict[TraceId, list[Entry]] = {}
        traces: dict[TraceId, Sequence[Trace]] = {}
        for entry, spending in calls:
            made = export_spending(spending, destination.options)
            if isinstance(made, EntryOutcome):
                work.close(entry, made, at=destination)
                continue
            groups.setdefault(made[0].id, []).append(entry)
            traces.setdefault(made[0].id, made)
        claimed, busy = [], []
        for own, (first, *others) in groups.items():
            if work.claim(first, destination, {trace.id: first.key.document_key for trace in traces[own]}):
                claimed.append(own)
            else:
                busy += [(entry, None) for entry in (first, *others)]
        await work.wait_or_owe(busy, at=destination)
        wanted = [trace.id for own in claimed for trace in traces[own]]
        sent = await destination.state.find_exported(wanted) if wanted else frozenset()
        outgoing = []
        for own in claimed:
            first, *others = groups[own]
            unsent = [trace for trace in traces[own] if trace.id not in sent]
            if unsent:
                # The first is the oldest in the stream. It holds the position until the trace is acknowledged.
                outgoing.append(destination.packing.pack(first.key, EntryOutcome.API_USAGE, unsent))
            else:
                work.close(first, EntryOutcome.SENT_BEFORE, at=destination)
            for entry in others:
                work.close(entry, EntryOutcome.SENT_BEFORE, at=destination)
        await work.hand_over(outgoing, at=destination)

    async def _find_sent(self, spent: Sequence[Spending]) -> Collection[str]:
        """The message ids of turns that were sent before all their rows were deleted, whatever form their ids have."""
        references = {spending.reference for spending in spent}
        return await self._load_turns(
            [each for reference in references for each in possible_turn_traces(reference)]
        )

    async def _follow_chats(self, work: Round, entries: Sequence[Entry]) -> None:
        """A chat's turn counts its own ledger. A row that came after the turn was sent is left to the follow-ups, and
        holds the position until they are done with it."""
        if not entries:
            return
        found = await self._bench.reader.read_transactions([entry.key.document_key for entry in entries])
        message_ids = {entry.message_id for entry in found.values() if entry.message_id is not None}
        trace_ids = [trace_id for each in message_ids for trace_id in possible_turn_traces(each)]
        turns = await self._load_turns(trace_ids)
        for entry in entries:
            row = found.get(entry.key.document_key)
            if row is not None and not work.keeps(entry, row.conversation_id):
                continue
            late = (
                []
                if row is None
                else [turn for turn in turns.get(row.message_id or "", ()) if is_late(turn, row)]
            )
            if not late or not self._wait_for(late[0], entry):
                self._left_to_followups.discard(entry.key.document_key)
                work.close(entry, EntryOutcome.SPENT_IN_CHAT)
            else:
                work.postpone(entry)

    async def _load_turns(self, trace_ids: Sequence[TraceId]) -> Mapping[str, Sequence[SentTurn]]:
        """What is remembered of these turns, by message id, for each destination that has one."""
        turns: dict[str, list[SentTurn]] = {}
        for destination in self._bench.destinations.values() if trace_ids else ():
            for turn in (await destination.state.load_sent(trace_ids)).values():
                turns.setdefault(turn.message_id, []).append(turn)
        return turns

    def _wait_for(self, turn: SentTurn, entry: Entry) -> bool:
        """Whether the follow-ups are at work on a late row; they are asked once, and may find nothing to do."""
        own = entry.key.document_key
        if own in self._left_to_followups:
            return self._bench.backlog.is_open(Interest.RESPONSE, turn.document_key)
        self._left_to_followups.add(own)
        key = EntryKey(Interest.RESPONSE, turn.document_key)
        self._bench.backlog.reopen(key, turn.message_id, changed={LEDGER}, belongs_to=turn.session_id)
        return True
