"""Turns that were deleted before they were read: what LibreChat billed for them is sent, without content."""

from collections.abc import Mapping, Sequence

from tailer.core.identity import DocumentKey, TraceId, title_trace_id
from tailer.core.stream.entries import Entry
from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.trace.export import export_spending, possible_turn_traces
from tailer.core.trace.spending import Spending
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.readback import DeletedRow
from tailer.flow.destinations import Destination
from tailer.flow.lanes.round import Round
from tailer.flow.ports import DocumentReader


class VanishedTurns:
    """Settles entries of which no row was found. `sends_spending`: their ledger is looked for."""

    def __init__(self, reader: DocumentReader, *, sends_spending: bool) -> None:
        self._reader = reader
        self._sends_spending = sends_spending

    async def settle(self, work: Round, entries: Sequence[Entry]) -> None:
        """Settle entries whose rows were deleted meanwhile, or lack a field that every message has."""
        if not entries:
            return
        existing = await self._reader.find_existing([entry.key.document_key for entry in entries])
        deleted = {}
        for entry in entries:
            if entry.key.document_key in existing:
                work.close(entry, EntryOutcome.UNREADABLE)
            else:
                deleted[entry.key.document_key] = entry
        await self._follow_sent(work, deleted)
        await self._send_spending(work, deleted)

    async def _follow_sent(self, work: Round, entries: Mapping[DocumentKey, Entry]) -> None:
        """Leave to the follow-ups what was billed for turns that were sent before their rows were deleted."""
        billed = [entry for entry in entries.values() if LEDGER in entry.changed]
        for destination in work.destinations if billed else ():
            traces = {
                entry.key: possible_turn_traces(entry.message_id or "")
                for entry in billed
                if work.is_open(entry, destination)
            }
            sent = await destination.state.find_exported([each for ids in traces.values() for each in ids])
            for entry in billed:
                if not sent.isdisjoint(traces.get(entry.key, ())):
                    work.follow_up(entry, at=destination)

    async def _send_spending(self, work: Round, entries: Mapping[DocumentKey, Entry]) -> None:
        """Handle turns that were deleted before they were read: the ledger's part is sent, without content."""
        rows = {key: row for key, entry in entries.items() if (row := _deleted_row(entry)) is not None}
        spent = await self._reader.read_deleted(rows) if rows and self._sends_spending else {}
        for key, entry in entries.items():
            if key in spent:
                work.name(entry, _possible_traces(spent[key].reference)[0], spent[key].reference)
            else:
                work.close(entry, EntryOutcome.DELETED)
        for destination in work.destinations if spent else ():
            own = {key: spent[key] for key, entry in entries.items() if work.is_open(entry, destination)}
            await self._send_spending_to(work, entries, own, destination)

    async def _send_spending_to(
        self,
        work: Round,
        entries: Mapping[DocumentKey, Entry],
        spent: Mapping[DocumentKey, Spending],
        destination: Destination,
    ) -> None:
        claimed: dict[DocumentKey, Spending] = {}
        for key, spending in spent.items():
            if work.claim(
                entries[key], destination, dict.fromkeys(_possible_traces(spending.reference), key)
            ):
                claimed[key] = spending
            else:
                work.postpone(entries[key], at=destination)
        ids = [trace_id for spending in claimed.values() for trace_id in _possible_traces(spending.reference)]
        sent = await destination.state.find_exported(ids) if ids else frozenset()
        outgoing = []
        for key, spending in claimed.items():
            turn, copy, _ = _possible_traces(spending.reference)
            if turn in sent or copy in sent:
                work.close(entries[key], EntryOutcome.DELETED, at=destination)
                continue
            made = export_spending(spending, destination.options)
            if isinstance(made, EntryOutcome):
                work.close(entries[key], made, at=destination)
                continue
            unsent = [trace for trace in made if trace.id not in sent]
            if unsent:
                packed = destination.packing.pack(entries[key].key, EntryOutcome.DELETED, unsent)
                outgoing.append(packed)
            else:
                work.close(entries[key], EntryOutcome.DELETED, at=destination)
        await work.hand_over(outgoing, at=destination)


def _possible_traces(message_id: str) -> tuple[TraceId, TraceId, TraceId]:
    """The traces that a turn may have had: its own, the one beside LibreChat's own, and its title's."""
    return (*possible_turn_traces(message_id), title_trace_id(message_id))


def _deleted_row(entry: Entry) -> DeletedRow | None:
    """The ids of a deleted response; only the event that stored it has them."""
    if (
        entry.key.interest is not Interest.RESPONSE
        or entry.message_id is None
        or entry.conversation_id is None
    ):
        return None
    return DeletedRow(entry.message_id, entry.conversation_id, entry.may_be_temporary)
