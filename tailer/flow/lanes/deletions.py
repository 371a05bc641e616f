"""Rows that were deleted: their traces stay or are deleted too, as the policy says.

A deletion comes last, whatever else is still to be done for the row.
"""

from collections.abc import Sequence
from typing import ClassVar

from tailer.core.identity import DocumentKey
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.stream.hints import Interest
from tailer.core.stream.open_turns import Entry
from tailer.core.trace.followup import FollowupOperation, SentTurn
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.flow.lanes.asking import Asking
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.ports import FollowupSink


class Deletions(Lane):
    """Handles rows that are gone."""

    name: ClassVar[str] = "deletions"
    works: ClassVar[tuple[Interest, ...]] = (Interest.DELETION,)

    def __init__(self, bench: Workbench, sink: FollowupSink, asking: Asking, policy: DeletionPolicy) -> None:
        super().__init__(bench)
        self._sink = sink
        self._asking = asking
        self._policy = policy

    async def _work(self, work: Round) -> None:
        if self._policy is DeletionPolicy.KEEP:
            for entry in work.entries:
                # Whose row it was is not looked up: one shard counts it.
                if work.keeps(entry, entry.key.document_key):
                    work.close(entry, EntryOutcome.DELETION_KEPT)
            return
        ready = [entry for entry in work.entries if self._claim(work, entry)]
        if ready:
            await self._delete(work, ready)

    def _claim(self, work: Round, entry: Entry) -> bool:
        """Whether nothing of the row is on its way: that must be recorded before it can be deleted."""
        key = entry.key.document_key
        if not self._bench.backlog.is_open(Interest.RESPONSE, key) and work.claim_row(entry):
            return True
        work.postpone(entry)
        return False

    async def _delete(self, work: Round, ready: Sequence[Entry]) -> None:
        keys = [entry.key.document_key for entry in ready]
        sent = await self._bench.state.load_sent_by_document(keys)
        ready = _choose_own(work, ready, sent)
        if not ready:
            return
        keys = [entry.key.document_key for entry in ready]
        sent = [turn for turn in sent if turn.document_key in set(keys)]
        traces = await self._bench.state.find_traces_by_document(keys)
        trace_ids = sorted({turn.trace_id for turn in sent} | set(traces))
        if trace_ids:
            wait_seconds = await self._asking.ask(
                ready[0].key,
                FollowupOperation.DELETE_TRACES,
                lambda: self._sink.delete_traces(trace_ids),
            )
            if wait_seconds is not None:
                for entry in ready:
                    work.postpone(entry, wait_seconds)
                await self._asking.pause()
                return
            await self._bench.state.record_deleted(trace_ids)
        expiries = {turn.document_key: turn.expires_milliseconds for turn in sent}
        for entry in ready:
            work.close(entry, _outcome_of(entry, expiries))


def _choose_own(work: Round, entries: Sequence[Entry], sent: Sequence[SentTurn]) -> Sequence[Entry]:
    """The entries of this shard. The row is gone, so the record of its turn says whose it was. Where there is none, the
    row's `_id` decides, so that one shard looks for what else was sent."""
    conversations = {turn.document_key: turn.session_id for turn in sent}
    return [
        entry
        for entry in entries
        if work.keeps(entry, conversations.get(entry.key.document_key, entry.key.document_key))
    ]


def _outcome_of(entry: Entry, expiries: dict[DocumentKey, int | None]) -> EntryOutcome:
    """Distinguishes what LibreChat let expire, what a user deleted, and what was never sent."""
    key = entry.key.document_key
    if key not in expiries:
        return EntryOutcome.DELETION_UNKNOWN
    expires = expiries[key]
    has_expired = expires is not None and expires <= entry.cluster_seconds * 1000
    return EntryOutcome.EXPIRY_FOLLOWED if has_expired else EntryOutcome.DELETION_FOLLOWED
