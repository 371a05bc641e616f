"""What happens in the daemon, as named facts. One event is one log line and its share of the metrics, decided here
and in `tailer.metrics`; the code that emits it knows neither.

An event never carries message content, and only ids that a log line may show. `level` None means metrics only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from tailer.core.hints import Stream


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `level` is the log level, or None for what only metrics count."""

    level: ClassVar[str | None] = "info"
    name: ClassVar[str] = "event"


Emit: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class StreamOpened(Event):
    """A change stream is open; `resumed_from_seconds` is None when it starts from now."""

    name: ClassVar[str] = "stream_opened"
    stream: Stream
    resumed_from_seconds: int | None


@dataclass(frozen=True, slots=True)
class StreamFailed(Event):
    """A command of a change stream failed; it heals by the named reaction."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "stream_failed"
    stream: Stream
    failure: str
    reaction: str


@dataclass(frozen=True, slots=True)
class StreamGapFound(Event):
    """History is lost between two cluster times: those turns are not exported by the stream."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "stream_gap_found"
    stream: Stream
    from_seconds: int
    to_seconds: int
    reason: str


@dataclass(frozen=True, slots=True)
class HintsRead(Event):
    """A batch of hints was read."""

    level: ClassVar[str | None] = None
    stream: Stream
    inserts: int
    updates: int
    replaces: int
    deletes: int


@dataclass(frozen=True, slots=True)
class ReadingPaused(Event):
    """Too much is open: reading waits, the oplog is the buffer."""

    name: ClassVar[str] = "reading_paused"
    stream: Stream
    open_turns: int


@dataclass(frozen=True, slots=True)
class TurnDone(Event):
    """An entry was closed: `outcome` from the closed lists of outcomes and exclusions."""

    level: ClassVar[str | None] = None
    outcome: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class TurnFailed(Event):
    """A turn could not be read or built; it is kept as a dead letter."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "turn_failed"
    message_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RowUnreadable(Event):
    """A row lacks what makes it a message; the field is named, its content is not."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "row_unreadable"
    collection: str
    document_key: str
    field: str


@dataclass(frozen=True, slots=True)
class CollectionDenied(Event):
    """A collection may not be read; what it would tell is left out from now on."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "collection_denied"
    collection: str


@dataclass(frozen=True, slots=True)
class ReadFailed(Event):
    """A query for rows failed and is tried again."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "read_failed"
    collection: str
    failure: str


@dataclass(frozen=True, slots=True)
class StateFailed(Event):
    """A write of the tailer's own state failed and is tried again."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "state_failed"
    operation: str
    failure: str


@dataclass(frozen=True, slots=True)
class RequestDone(Event):
    """One request to the destination was answered, or not; `result` from a closed list."""

    level: ClassVar[str | None] = None
    result: str
    seconds: float
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class DeliveryRetried(Event):
    """A batch was not taken and is sent again later."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "delivery_retried"
    reason: str
    attempt: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class AnnotationFailed(Event):
    """A score or a deletion is refused for good; the trace itself is not concerned."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "annotation_failed"
    operation: str


@dataclass(frozen=True, slots=True)
class MediaLeftOut(Event):
    """A file of a turn was not uploaded: `reason` is type, missing, too_large or refused."""

    level: ClassVar[str | None] = None
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryUnknown(Event):
    """Nobody saw the answer; the destination is asked whether it has the batch."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "delivery_unknown"
    reason: str
    traces: int


@dataclass(frozen=True, slots=True)
class BatchSettled(Event):
    """A batch of unknown outcome is settled: `verdict` is found, sent_again or sent_again_unread."""

    name: ClassVar[str] = "batch_settled"
    verdict: str
    traces: int


@dataclass(frozen=True, slots=True)
class DeliveryPaused(Event):
    """The destination refuses the keys: nothing is sent until it accepts them."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "delivery_paused"
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class DeliveryResumed(Event):
    """The destination accepts the keys again."""

    name: ClassVar[str] = "delivery_resumed"


@dataclass(frozen=True, slots=True)
class BatchSplit(Event):
    """A batch was halved because it is too large or holds a span that the destination rejects."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "batch_split"
    reason: str
    traces: int


@dataclass(frozen=True, slots=True)
class TraceRejected(Event):
    """A single trace is refused for good; it is kept as a dead letter."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "trace_rejected"
    trace_id: str
    message_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TracesDelivered(Event):
    """A batch is acknowledged and recorded; `latencies_seconds` from each turn's end to now."""

    level: ClassVar[str | None] = "debug"
    name: ClassVar[str] = "traces_delivered"
    traces: int
    observations: int
    latencies_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CheckpointSaved(Event):
    """The position of a stream was stored."""

    level: ClassVar[str | None] = None
    stream: Stream
    cluster_seconds: int
    write_seconds: float


@dataclass(frozen=True, slots=True)
class Drained(Event):
    """Stopping: everything open was sent, or the limit was reached first; what is open comes again after a start."""

    name: ClassVar[str] = "drained"
    complete: bool
    left_open: int


@dataclass(frozen=True, slots=True)
class Started(Event):
    """What this run watches, where it writes, and from where it goes on."""

    name: ClassVar[str] = "started"
    version: str
    watches: str
    writes_to: str
    state_database: str
    resumes_from: str
    http_port: int


@dataclass(frozen=True, slots=True)
class DestinationProven(Event):
    """Langfuse accepts the keys."""

    name: ClassVar[str] = "Langfuse initialized successfully"
    host: str
    project: str | None


@dataclass(frozen=True, slots=True)
class DestinationAway(Event):
    """Langfuse does not answer at the start; it did before, so the start waits for it."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "destination_away"
    host: str
    reason: str
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class SourceUnanswered(Event):
    """MongoDB does not answer at the start, which waits for a while."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "source_unanswered"
    subject: str
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class SettingDoubted(Event):
    """A setting that is valid and may not be what was meant."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "setting_doubted"
    warning: str


@dataclass(frozen=True, slots=True)
class SendingDisabled(Event):
    """LANGFUSE_ENABLED is false: turns are read, counted and not sent."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "sending_disabled"


@dataclass(frozen=True, slots=True)
class Stopping(Event):
    """A signal asked for the end: reading has stopped, what is open is sent."""

    name: ClassVar[str] = "stopping"
    open_turns: int
    limit_seconds: float


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The run is over."""

    name: ClassVar[str] = "stopped"
    forced: bool


@dataclass(frozen=True, slots=True)
class TaskFailed(Event):
    """A task of the daemon ended by an error that nothing expected; the daemon stops. `where` names code only."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "task_failed"
    error: str
    where: str
