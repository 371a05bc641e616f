"""What the flow asks of the outside: a source of hints, a reader of documents, a sink. `stores` has the state's part.

The packages `tailer.mongo`, `tailer.langfuse` and `tailer.sinks` implement it; nothing here names them.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from tailer.core.backfill import Job
from tailer.core.identity import DocumentKey, ObservationId, TraceId
from tailer.core.librechat.attached_files import AttachedFile
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.trace.followup import Score, SentTurn
from tailer.core.trace.observations import Trace
from tailer.core.trace.spending import Spending
from tailer.core.turn.readback import DeletedRow, Row
from tailer.core.turn.turns import TurnRecord
from tailer.flow.records import Probe, StreamBatch, WalkedRows
from tailer.flow.sending.outcomes import DeliveryOutcome, LookupAnswer, Refused, Retry, StorageAway


class ChangeSource(Protocol):
    """One change stream. It heals itself; an error that it raises needs a human."""

    @property
    def stream(self) -> Stream:
        """The tailed collection."""
        ...

    def follow(self, start: StreamPosition | None) -> AsyncIterator[StreamBatch]:
        """Yield batches after `start`, or from now on, for ever; an empty batch still moves the position.

        The first batch comes as soon as the stream is open. Raises HistoryLost when `start` is no longer in the oplog,
        or lies ahead of the server's time.
        """
        ...


class HistoryLost(Exception):
    """The oplog no longer holds the changes after a position: they will never arrive."""

    def __init__(self, stream: Stream, position: StreamPosition, reason: str) -> None:
        super().__init__(
            f"{stream.value}: history after cluster time {position.cluster_seconds} is lost ({reason})"
        )
        self.stream = stream
        self.position = position
        self.reason = reason


class DocumentReader(Protocol):
    """Reads rows back in batches, with indexed queries only."""

    async def locate(self, keys: Sequence[DocumentKey]) -> Sequence[Row]:
        """The rows that still exist, in any order; a row without ids is left out."""
        ...

    async def find_existing(self, keys: Sequence[DocumentKey]) -> frozenset[DocumentKey]:
        """Those with a stored row, even an unreadable one."""
        ...

    async def locate_titled(self, keys: Sequence[DocumentKey]) -> Sequence[tuple[DocumentKey, Row]]:
        """For conversations by `_id`: the response row on which each title was billed, if there is one."""
        ...

    async def locate_answers(self, questions: Sequence[Row]) -> Sequence[tuple[Row, Row]]:
        """The response rows of questions, each with its question."""
        ...

    async def read_messages(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Message]:
        """Whole rows by `_id`, temporary where their conversations say so, without those that vanished or are
        unreadable."""
        ...

    async def read_ledgers(
        self, turns: Sequence[SentTurn], *, only_news: bool = False
    ) -> Mapping[str, Sequence[Transaction]]:
        """The transactions that name the responses of turns, by message id, in the order written; `only_news`: neither
        those that the records of the turns count, nor those of titles."""
        ...

    async def read_unnamed(
        self, conversation_id: str, user_id: str | None, since_seconds: int
    ) -> Sequence[Transaction]:
        """The transactions of a conversation that name no message and were written since then, in the order
        written."""
        ...

    async def read_transactions(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Transaction]:
        """Transactions by `_id`, those left out that vanished or state no tokens."""
        ...

    async def read_spending(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Spending | None]:
        """For transactions by `_id`: the whole spending each belongs to, None where a chat has it."""
        ...

    async def read_deleted(self, rows: Mapping[DocumentKey, DeletedRow]) -> Mapping[DocumentKey, Spending]:
        """What was spent on responses that were deleted before they were read, if the ledger names them."""
        ...

    def read_turns(self, rows: Sequence[Row]) -> AsyncIterator[Sequence[tuple[Row, TurnRecord | None]]]:
        """The records of rows, in groups of bounded size; None for a row that vanished or is unreadable."""
        ...


class RowWalk(Protocol):
    """Walks the rows of a backfill in the order of their `_id`s."""

    async def count(self, job: Job) -> int | None:
        """The rows of a job, None if counting takes too long."""
        ...

    async def read(self, job: Job, after: DocumentKey | None, limit: int) -> WalkedRows:
        """The next rows of a job; `last` is None at its end."""
        ...


class Permit(Protocol):
    """The right to send, which ends with the lease."""

    async def wait(self) -> None:
        """Return once this instance may send; raises LeaseLost if it never will again under its epoch."""
        ...

    def holds(self) -> bool:
        """Whether it may send at this very moment."""
        ...


class _Unconditional:
    async def wait(self) -> None:
        return

    def holds(self) -> bool:
        return True


UNCONDITIONAL: Permit = _Unconditional()
"""A permit that always holds, for commands that send nothing or hold the lease for their whole duration."""


class Sink(Protocol):
    """Where traces go. Its bytes are the same for the same traces."""

    @property
    def name(self) -> str:
        """The name that an operator knows: the host of Langfuse, or the path of the file."""
        ...

    def encode(self, trace: Trace) -> bytes:
        """One trace as a chunk."""
        ...

    def frame(self, chunks: Sequence[bytes]) -> bytes:
        """Chunks as the payload of one request."""
        ...

    def unframe(self, payload: bytes, chunk_bytes: Sequence[int]) -> Sequence[bytes]:
        """The chunks in a payload of `frame`, given their lengths."""
        ...

    def shrink(self, chunk: bytes) -> bytes | None:
        """A chunk with less of its texts, which says so; None where there is nothing to cut."""
        ...

    async def deliver(self, payload: bytes) -> DeliveryOutcome:
        """Send a payload once and read the answer."""
        ...

    async def find(self, probes: Sequence[Probe]) -> LookupAnswer:
        """Which of the observations the destination holds."""
        ...


class MediaLibrary(Protocol):
    """Where the bytes of images and files go, if that is switched on."""

    async def publish(
        self, trace_id: TraceId, observation_id: ObservationId, files: Sequence[AttachedFile]
    ) -> tuple[str, ...] | Retry | Refused | StorageAway:
        """The references of the files that the destination now has. What it will never have is left out and counted;
        another answer where it may have the rest later."""
        ...


class FollowupSink(Protocol):
    """Where follow-ups of a trace go. Every call may be repeated: it overwrites, or finds nothing to do."""

    async def put_score(self, score: Score) -> DeliveryOutcome:
        """Create or overwrite a score."""
        ...

    async def delete_score(self, score_id: str) -> DeliveryOutcome:
        """Delete a score; a missing score is not an error."""
        ...

    async def delete_traces(self, trace_ids: Sequence[TraceId]) -> DeliveryOutcome:
        """Delete traces with everything in them."""
        ...
