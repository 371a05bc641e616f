"""The records that pass through the flow's ports: stream answers, batches, and stored state."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tailer.core.identity import DocumentKey, ObservationId, TraceId
from tailer.core.light_dataclass import light_dataclass
from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.hints import ChangeHint, Interest, Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.trace.followup import Edit, SentTurn
from tailer.core.trace.late import LateMarks
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import Wait
from tailer.flow.letter_reasons import LetterReason


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """Hints with the position of each, the position after them all, and the server's time of the reply."""

    hints: Sequence[tuple[ChangeHint, StreamPosition]]
    position: StreamPosition
    source_seconds: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of a stream that was never read, in cluster seconds."""

    stream: Stream
    from_seconds: int
    to_seconds: int
    reason: str


@dataclass(frozen=True, slots=True)
class WalkedRows:
    """A chunk of a walk: the rows that are messages, how many documents there were, and the `_id` of the last. `keys`
    are the documents of any other collection."""

    rows: Sequence[Row]
    rows_walked: int
    last: DocumentKey | None
    keys: Sequence[DocumentKey] = ()


@light_dataclass(frozen=True, slots=True)
class Probe:
    """What to look up in the destination: the first observation of what was sent, in its trace.

    `started_milliseconds` is when it began, if that is known: a server may not show what began long ago."""

    trace_id: TraceId
    observation_id: ObservationId
    started_milliseconds: int | None = field(default=None, compare=False)


@light_dataclass(frozen=True, slots=True)
class BatchItem:
    """One trace, or a later piece of one, in a batch.

    `record_id` is its export record; `sent` what that record keeps of a turn for later changes; `edit` the edit that
    a later piece shows, which the turn's record is brought up to. `observations` and `ended_milliseconds` tell this run
    how much it holds and when what it shows ended; they are not stored."""

    record_id: str
    probe: Probe
    message_id: str
    document_key: DocumentKey
    chunk_bytes: int
    sent: SentTurn | None = None
    edit: Edit | None = None
    late: LateMarks | None = None
    observations: int = 0
    ended_milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request carries. `payload` is stored before it is sent, so that a retry has identical bytes."""

    batch_id: str
    items: tuple[BatchItem, ...]
    payload: bytes


@dataclass(frozen=True, slots=True)
class ParkedTurn:
    """A turn that waits long, stored in the state database; times are cluster seconds."""

    document_key: DocumentKey
    message_id: str | None
    wait: Wait
    since_seconds: int
    deadline_seconds: int


@dataclass(frozen=True, slots=True)
class OwedShare:
    """What a destination that was away still has to do with an entry, stored in the state database.

    It keeps what only the stream said of the row. `conversation_id` says whose it is among several shards; where
    nothing told, the row's own `_id` stands in its place. `since_seconds` is cluster time; `times` is how often it was
    owed, which changes when it is owed once more."""

    key: EntryKey
    message_id: str | None
    conversation_id: str | None
    since_seconds: int
    written_milliseconds: int | None
    finished_milliseconds: int | None
    deadline_passed: bool
    finished: bool
    stopped: bool
    edited: bool
    changed: frozenset[str]
    times: int = 0

    @property
    def knows_conversation(self) -> bool:
        """Whether something told whose it is. That is kept when another shard, which does not know, owes the same."""
        return self.conversation_id not in (None, self.key.document_key)

    def to_entry(self, now_seconds: float) -> Entry:
        """The entry as it was when it was owed, due at once, by the caller's monotonic clock."""
        return Entry(
            self.key,
            opened_seconds=now_seconds,
            due_seconds=now_seconds,
            work=self.key.interest,
            message_id=self.message_id,
            belongs_to=self.conversation_id,
            finished_milliseconds=self.finished_milliseconds,
            written_milliseconds=self.written_milliseconds,
            cluster_seconds=self.since_seconds,
            deadline_passed=self.deadline_passed,
            changed=self.changed,
            finished=self.finished,
            stopped=self.stopped,
            edited=self.edited,
        )


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What was on its way, or owed, to a destination that is no longer named: traces in batches, and shares."""

    traces: int
    owed: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored position with the touches of rows that a restart would not see again. `saved_seconds` is when it was
    stored, by the clock of the instance that did; None if it is not."""

    position: StreamPosition
    touches: tuple[tuple[DocumentKey, tuple[int, ...]], ...] = ()
    saved_seconds: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What cannot be sent or done: why, and its item and chunk where one was built.

    `interest` is the kind of work that failed before anything was built; None in letters of earlier releases."""

    record_id: str
    message_id: str
    document_key: DocumentKey
    reason: LetterReason
    chunk: bytes | None
    item: BatchItem | None = None
    interest: Interest | None = None

    @property
    def leaves_record(self) -> bool:
        """Whether an export record says that it arrived. Follow-ups and deletions have none, nor has what broke before
        its trace was known."""
        if self.interest is None:
            return True
        unknown = self.record_id == unknown_record_id(self.interest, self.document_key)
        return self.interest not in (Interest.FOLLOWUP, Interest.DELETION) and not unknown


def unknown_record_id(work: Interest, row: DocumentKey) -> str:
    """The id of a dead letter when only the kind of work and the row's `_id` are known."""
    return f"{work.value}-{row}"
