"""What a state database in memory holds; it outlives the states of one epoch, as a server does."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tailer.core.backfill import Job
from tailer.core.identity import DocumentKey, TraceId
from tailer.core.lease import LeaseRecord
from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Stream
from tailer.core.trace.followup import SentTurn
from tailer.errors import LeaseLost
from tailer.flow.records import Batch, Checkpoint, DeadLetter, Gap, OwedShare, ParkedTurn
from tailer.settings.destinations import DEFAULT_NAME


@dataclass(slots=True)
class ExportRecord:
    """That a trace, or a later piece of one, was sent."""

    trace_id: TraceId
    document_key: DocumentKey
    sent: SentTurn | None
    deleted: bool = False
    sent_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(slots=True)
class StoredLetter:
    """A dead letter with how often it failed, and what was asked of it."""

    letter: DeadLetter
    tries: int
    replay: str | None = None


@dataclass(slots=True)
class StoredGap:
    """A gap, and whether a backfill has filled it."""

    gap: Gap
    filled: bool = False


@dataclass(slots=True)
class Holdings:
    """What is kept for one destination."""

    exports: dict[str, ExportRecord] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    letters: dict[str, StoredLetter] = field(default_factory=dict)
    owed: dict[EntryKey, OwedShare] = field(default_factory=dict)


@dataclass(slots=True)
class MemoryDatabase:
    """Everything that is kept. `epoch` is the fence: the writes of an earlier one are refused.

    Every call takes `latency_seconds`, and lets other tasks go first even where that is nothing. `writes` names the
    writes in their order. `elsewhere` is what other shards have on its way.
    """

    latency_seconds: float = 0.0
    epoch: int = 0
    lease: LeaseRecord | None = None
    checkpoints: dict[Stream, Checkpoint] = field(default_factory=dict)
    parked: dict[DocumentKey, ParkedTurn] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    gaps: dict[str, StoredGap] = field(default_factory=dict)
    largest_batch_bytes: int = 16_000_000
    writes: list[str] = field(default_factory=list)
    elsewhere: dict[str, DocumentKey] = field(default_factory=dict)
    destinations: dict[str, Holdings] = field(default_factory=lambda: {DEFAULT_NAME: Holdings()})

    def at(self, destination: str) -> Holdings:
        """What is kept for a destination."""
        return self.destinations.setdefault(destination, Holdings())

    @property
    def exports(self) -> dict[str, ExportRecord]:
        """The records of the destination `default`."""
        return self.at(DEFAULT_NAME).exports

    @property
    def batches(self) -> dict[str, Batch]:
        """The batches of the destination `default`."""
        return self.at(DEFAULT_NAME).batches

    @property
    def letters(self) -> dict[str, StoredLetter]:
        """The dead letters of the destination `default`."""
        return self.at(DEFAULT_NAME).letters

    async def read(self) -> None:
        """The time that a read takes."""
        await asyncio.sleep(self.latency_seconds)

    async def write(self, what: str, *, epoch: int) -> None:
        """The time that a write takes; raises LeaseLost for one of an earlier epoch. What follows must not await."""
        await asyncio.sleep(self.latency_seconds)
        if epoch != self.epoch:
            raise LeaseLost(subject="memory", epoch=epoch)
        self.writes.append(what)

    def ask_for_replay(self, record_id: str) -> None:
        """What `tailer dead-letters replay` writes."""
        self.letters[record_id].replay = ASKED


ASKED = "asked"
