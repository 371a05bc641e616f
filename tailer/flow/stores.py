"""What the flow asks of the state database, by subject; `StateStore` is all of it for one destination.

Every write is acknowledged by a majority and fenced: a write of an instance that lost the lease raises LeaseLost.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from tailer.core.backfill import Counts, Job
from tailer.core.identity import DocumentKey, TraceId
from tailer.core.lease import LeaseRecord
from tailer.core.stream.hints import Stream
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.trace.followup import SentTurn
from tailer.flow.records import (
    Batch,
    BatchItem,
    Checkpoint,
    DeadLetter,
    Gap,
    Leftovers,
    OwedShare,
    ParkedTurn,
)


class LeaseStore(Protocol):
    """The lease document; no call waits for another one."""

    @property
    def holder(self) -> str:
        """The random id of this process."""
        ...

    async def read(self) -> LeaseRecord | None:
        """The lease as it is, None before the first start."""
        ...

    async def take(self, seen: LeaseRecord | None) -> int | None:
        """Take the lease over if it is still as it was seen. Returns the new epoch, None if another instance was
        faster."""
        ...

    async def renew(self, epoch: int) -> None:
        """Move the beat on; raises LeaseLost if a later epoch exists."""
        ...

    async def release(self, epoch: int) -> None:
        """Let the next instance begin at once; nothing happens if a later epoch exists."""
        ...


class CheckpointStore(Protocol):
    """How far each stream is done."""

    async def load_checkpoint(self, stream: Stream) -> Checkpoint | None:
        """The newest stored position of a stream, None before the first start."""
        ...

    async def save_checkpoint(self, stream: Stream, checkpoint: Checkpoint) -> None:
        """Store a position by itself."""
        ...


class ExportStore(Protocol):
    """What was sent and acknowledged."""

    async def find_exported(self, record_ids: Sequence[str]) -> frozenset[str]:
        """Those that were sent and acknowledged before."""
        ...

    async def find_exported_rows(self, record_ids: Sequence[str]) -> Mapping[str, DocumentKey]:
        """Those that were sent and acknowledged before, each with its row."""
        ...

    async def load_sent(self, trace_ids: Sequence[TraceId]) -> Mapping[TraceId, SentTurn]:
        """What is remembered of turns that were sent; those whose traces were deleted are left out."""
        ...

    async def load_sent_by_document(self, keys: Sequence[DocumentKey]) -> Sequence[SentTurn]:
        """What is remembered of the turns of rows."""
        ...

    async def load_sent_between(
        self,
        since: datetime,
        until: datetime,
        *,
        ended_milliseconds: int,
        shard: Shard = WHOLE,
        limit: int | None = None,
    ) -> Sequence[SentTurn] | None:
        """What is remembered of a shard's turns that were recorded as sent from `since` on and before `until`, and that
        ended at `ended_milliseconds` or later; those whose traces were deleted are left out. None if there are more
        than `limit`."""
        ...

    async def find_traces_by_document(self, keys: Sequence[DocumentKey]) -> Sequence[TraceId]:
        """The traces that were sent for rows, including those of titles."""
        ...

    async def record_feedback(self, trace_id: TraceId, digest: str | None) -> None:
        """Remember which feedback was sent last."""
        ...

    async def record_deleted(self, trace_ids: Sequence[TraceId]) -> None:
        """Remember that traces were deleted: they are never sent again."""
        ...


class BatchStore(Protocol):
    """What is on its way."""

    async def begin_batch(self, batch: Batch) -> bool:
        """Record that a batch is about to be sent. False if it is too large to be stored: then nothing is."""
        ...

    async def finish_batch(
        self,
        batch: Batch,
        delivered: Sequence[BatchItem],
        *,
        letters: Sequence[DeadLetter] = (),
        positions: Mapping[Stream, Checkpoint] | None = None,
    ) -> None:
        """Record what of a batch was acknowledged and what was refused, store the positions that it carries, and forget
        the batch, all at once."""
        ...

    async def pending_batches(self) -> Sequence[Batch]:
        """Batches that an earlier run began and did not finish."""
        ...

    async def pending_elsewhere(self) -> Mapping[str, DocumentKey]:
        """What is on its way in batches of other shards: record ids, with the row of each."""
        ...


class ParkedStore(Protocol):
    """Turns that wait long."""

    async def park(self, turns: Sequence[ParkedTurn]) -> None:
        """Store turns that wait; one that already waits for the same thing is left as it is."""
        ...

    async def unpark(self, keys: Sequence[DocumentKey]) -> None:
        """Forget parked turns."""
        ...

    async def load_parked(self, limit: int) -> Sequence[ParkedTurn]:
        """Parked turns, earliest deadline first."""
        ...


class GapStore(Protocol):
    """Stretches that were never read."""

    async def add_gap(self, gap: Gap) -> None:
        """Store a gap until it is filled."""
        ...


class BackfillStore(Protocol):
    """Backfill jobs, and the gaps that some of them fill."""

    async def add_job(self, job: Job) -> None:
        """Store a job, unless one with this id exists."""
        ...

    async def next_job(self, destinations: Sequence[str], *, except_for: Collection[str] = ()) -> Job | None:
        """The oldest unfinished job for all destinations, or for one of these. A job for another one waits for an
        instance that knows it: the settings may have changed since this one started. `except_for` are ids of jobs."""
        ...

    async def size_job(self, job_id: str, total_rows: int | None) -> None:
        """Store how many rows a job has to walk."""
        ...

    async def advance_job(self, job_id: str, position: DocumentKey, counts: Counts) -> None:
        """Store the progress of a job."""
        ...

    async def finish_job(self, job_id: str, gap_id: str | None) -> None:
        """Store that a job is done, and with it that its gap is filled."""
        ...

    async def unfilled_gaps(self) -> Mapping[str, Gap]:
        """The gaps that no backfill has filled yet, by id."""
        ...


class DeadLetterStore(Protocol):
    """Turns that cannot be sent."""

    async def find_refused(self, record_ids: Sequence[str]) -> frozenset[str]:
        """Dead letters with a chunk that the destination refused."""
        ...

    async def load_replays(self, limit: int, *, except_for: Collection[str] = ()) -> Sequence[DeadLetter]:
        """Dead letters whose replay was requested, those that failed first at the front; without those of some record
        ids."""
        ...

    async def end_replay(self, record_id: str, outcome: str) -> bool:
        """Keep a dead letter whose replay gave nothing, with a word for the reason; False if its replay is no longer
        requested."""
        ...

    async def drop_dead_letters(self, record_ids: Sequence[str]) -> None:
        """Forget dead letters."""
        ...

    async def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Store turns that cannot be sent; a repeated one counts its tries."""
        ...


class OwedStore(Protocol):
    """What a destination that was away still has to get."""

    async def owe(self, shares: Sequence[OwedShare]) -> int:
        """Store what is owed. A share that is owed already is owed once, with the changes of both; how many are new."""
        ...

    async def load_owed(self, limit: int, *, shard: Shard = WHOLE) -> Sequence[OwedShare]:
        """What is owed of a shard's conversations, the oldest first."""
        ...

    async def count_owed(self, *, shard: Shard = WHOLE) -> int:
        """How much is owed of a shard's conversations."""
        ...

    async def settle_owed(self, shares: Sequence[OwedShare], *, since_seconds: int) -> int:
        """Forget shares that were loaded and worked on; returns how many. One that was owed once more meanwhile is
        kept, and counts as owed since then."""
        ...


class DestinationStore(ExportStore, BatchStore, DeadLetterStore, OwedStore, Protocol):
    """What is kept for one destination."""


class SharedStore(CheckpointStore, ParkedStore, GapStore, BackfillStore, Protocol):
    """What all destinations have in common."""

    async def let_go_all_but(self, names: Collection[str]) -> Mapping[str, Leftovers]:
        """Forget what is on its way, or owed, to any destination that is not named; says how much that was, by name."""
        ...


class StateStore(SharedStore, DestinationStore, Protocol):
    """The tailer's own database, without its lease. Its own view is that of the destination `default`."""

    def of(self, destination: str) -> DestinationStore:
        """The view of a destination."""
        ...
