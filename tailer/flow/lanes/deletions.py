"""Rows that were deleted: their traces stay or are deleted too, as the policy says.

A deletion comes last, whatever else is still to be done for the row.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from tailer.core.identity import DocumentKey
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.stream.entries import Entry
from tailer.core.stream.hints import Interest
from tailer.core.trace.followup import FollowupOperation, SentTurn
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.flow.destinations import Destination
from tailer.flow.lanes.asking import Asking, Settled, pause
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.lanes.setbacks import Waiting


class Deletions(Lane):
    """Handles rows that are gone. `asking` is the way to each destination, by name."""

    name: ClassVar[str] = "deletions"
    works: ClassVar[tuple[Interest, ...]] = (Interest.DELETION,)

    def __init__(self, bench: Workbench, asking: Mapping[str, Asking], policy: DeletionPolicy) -> None:
        super().__init__(bench)
        self._asking = asking
        self._policy = policy

    async def _work(self, work: Round) -> None:
        if self._policy is DeletionPolicy.KEEP:
            for entry in work.entries:
                # Whose row it was is not looked up: one shard counts it.
                if work.keeps(entry, entry.key.document_key):
                    work.close(entry, EntryOutcome.DELETION_KEPT)
            return
        destinations = work.destinations
        claimed = {destination.name: await self._claim(work, destination) for destination in destinations}
        sent = {
            destination.name: await destination.state.load_sent_by_document(
                [entry.key.document_key for entry in claimed[destination.name]]
            )
            for destination in destinations
        }
        _leave_others(work, [turn for turns in sent.values() for turn in turns])
        turned_away = []
        for destination in destinations:
            ready = [entry for entry in claimed[destination.name] if work.is_open(entry, destination)]
            if ready and not await self._delete(work, ready, sent[destination.name], destination):
                turned_away.append(self._asking[destination.name])
        if len(turned_away) == len(self._bench.destinations):
            await pause(turned_away)

    async def _claim(self, work: Round, destination: Destination) -> Sequence[Entry]:
        """The entries of whose rows nothing is on its way: that must be recorded before it can be deleted."""
        claimed, busy = [], []
        for entry in work.by_row(at=destination).values():
            row = entry.key.document_key
            if self._bench.backlog.is_open(Interest.RESPONSE, row):
                work.postpone(entry, at=destination)
            elif work.claim_row(entry, destination):
                claimed.append(entry)
            elif work.knows_owner(entry, destination.in_flight.conversation_of(row)):
                busy.append((entry, None))
            else:
                # Owed without saying whose it is, it would be brought back by a shard that knows of nothing to delete.
                work.postpone(entry, at=destination)
        await work.wait_or_owe(busy, at=destination)
        return claimed

    async def _delete(
        self, work: Round, ready: Sequence[Entry], known: Sequence[SentTurn], destination: Destination
    ) -> bool:
        """Delete what a destination has of rows. False if it accepts nothing at the moment."""
        keys = {entry.key.document_key for entry in ready}
        sent = [turn for turn in known if turn.document_key in keys]
        traces = await destination.state.find_traces_by_document(list(keys))
        trace_ids = sorted({turn.trace_id for turn in sent} | set(traces))
        was_refused = False
        if trace_ids:
            if self._asking[destination.name].is_closed:
                await work.owe(ready, at=destination)
                return True
            answer = await self._asking[destination.name].ask(
                ready[0].key,
                FollowupOperation.DELETE_TRACES,
                lambda: destination.followups.delete_traces(trace_ids),
            )
            if isinstance(answer, Waiting):
                await work.wait_or_owe([(entry, answer) for entry in ready], at=destination)
                return False
            was_refused = answer is Settled.REFUSED
            if not was_refused:
                await destination.state.record_deleted(trace_ids)
        expiries = {turn.document_key: turn.expires_milliseconds for turn in sent}
        for entry in ready:
            work.close(entry, _outcome_of(entry, expiries, was_refused=was_refused), at=destination)
        return True


def _leave_others(work: Round, sent: Sequence[SentTurn]) -> None:
    """Leave entries to other shards. The row is gone, so the record of its turn says whose it was. Where there is none,
    the row's `_id` decides, so that one shard looks for what else was sent."""
    conversations = {turn.document_key: turn.session_id for turn in sent}
    for entry in work.entries:
        row = entry.key.document_key
        work.keeps(entry, conversations.get(row, entry.belongs_to or row))


def _outcome_of(entry: Entry, expiries: dict[DocumentKey, int | None], *, was_refused: bool) -> EntryOutcome:
    """Distinguishes what LibreChat let expire, what a user deleted, what the destination keeps, and what was never
    sent."""
    key = entry.key.document_key
    if key not in expiries:
        return EntryOutcome.DELETION_UNKNOWN
    if was_refused:
        return EntryOutcome.DELETION_REFUSED
    expires = expiries[key]
    has_expired = expires is not None and expires <= entry.cluster_seconds * 1000
    return EntryOutcome.EXPIRY_FOLLOWED if has_expired else EntryOutcome.DELETION_FOLLOWED
