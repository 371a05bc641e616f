"""What happens on the way to the destination."""

from dataclasses import dataclass
from typing import ClassVar

from tailer.core.trace.followup import FollowupOperation
from tailer.events.base import DestinationEvent, Event


@dataclass(frozen=True, slots=True)
class RequestDone(DestinationEvent):
    """One request to the destination was answered, or got no answer; `result` is one of a closed list."""

    level: ClassVar[str | None] = None
    result: str
    seconds: float
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class DeliveryRetried(DestinationEvent):
    """A batch was not accepted and is sent again later."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "delivery_retried"
    reason: str
    attempt: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class LookupRetried(DestinationEvent):
    """The destination could not say whether it has a batch; it is asked again later."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "lookup_retried"
    reason: str
    attempt: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class DeliveryUnknown(DestinationEvent):
    """The answer to a request was lost; the destination is asked whether it has the batch."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "delivery_unknown"
    reason: str
    traces: int


@dataclass(frozen=True, slots=True)
class BatchSettled(DestinationEvent):
    """A batch of unknown outcome is settled: `verdict` is found, sent_again or sent_again_unread."""

    name: ClassVar[str] = "batch_settled"
    verdict: str
    traces: int


@dataclass(frozen=True, slots=True)
class TracesMayRepeat(DestinationEvent):
    """A batch of unknown outcome was sent again although the destination could not be asked for it: its traces may be
    there twice."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "traces_may_repeat"
    reason: str
    traces: int


@dataclass(frozen=True, slots=True)
class DeliveryPaused(DestinationEvent):
    """The destination refuses the keys: nothing is sent until it accepts them."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "delivery_paused"
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class DeliveryResumed(DestinationEvent):
    """The destination accepts the keys again."""

    name: ClassVar[str] = "delivery_resumed"


@dataclass(frozen=True, slots=True)
class BatchSplit(DestinationEvent):
    """A batch was halved because it is too large or holds a span that the destination rejects."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "batch_split"
    reason: str
    traces: int


@dataclass(frozen=True, slots=True)
class TraceRejected(DestinationEvent):
    """A single trace was refused for good; it is kept as a dead letter."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "trace_rejected"
    trace_id: str
    message_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TraceCut(DestinationEvent):
    """A single trace is too large for a gateway before the destination; it goes with its longest texts cut."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "trace_cut"
    trace_id: str
    message_id: str
    cut_bytes: int


@dataclass(frozen=True, slots=True)
class SpansRejected(DestinationEvent):
    """The destination took a request but for some of its spans; nothing says which. All its turns are looked for."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "spans_rejected"
    spans: int
    traces: int


@dataclass(frozen=True, slots=True)
class SpotChecked(DestinationEvent):
    """An acknowledged turn was looked for some minutes later: `result` is kept, missing or unread."""

    level: ClassVar[str | None] = None
    result: str


@dataclass(frozen=True, slots=True)
class TraceNotKept(DestinationEvent):
    """An acknowledged turn is not in the destination ten minutes later."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "trace_not_kept"
    trace_id: str
    message_id: str


@dataclass(frozen=True, slots=True)
class TracesDelivered(DestinationEvent):
    """A batch was acknowledged and recorded; `latencies_seconds` count from the end of each turn until now."""

    level: ClassVar[str | None] = "debug"
    name: ClassVar[str] = "traces_delivered"
    traces: int
    observations: int
    latencies_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FirstTurnSent(Event):
    """The first traces of a term were acknowledged: it works. `latency_seconds` counts from the end of the answer; None
    for a turn that ended before this run."""

    name: ClassVar[str] = "first_turn_sent"
    traces: int
    latency_seconds: float | None
    writes_to: str


@dataclass(frozen=True, slots=True)
class TurnsSent(Event):
    """What came of the turns since the last line of this kind: traces acknowledged, turns that the settings leave out,
    and new dead letters."""

    name: ClassVar[str] = "turns_sent"
    traces: int
    left_out: int
    dead_letters: int
    within_seconds: int
    traces_since_start: int


@dataclass(frozen=True, slots=True)
class FollowupRetried(DestinationEvent):
    """A score or a deletion was not taken and is tried again later."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "annotation_retried"
    operation: FollowupOperation
    reason: str
    attempt: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class FollowupFailed(DestinationEvent):
    """A score or a deletion was refused for good; the trace itself is not affected."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "annotation_failed"
    operation: FollowupOperation


@dataclass(frozen=True, slots=True)
class FollowupLeftOut(DestinationEvent):
    """The destination has no way to do what came after a trace: a deletion, or a score that is taken back."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "annotation_left_out"
    operation: FollowupOperation
    count: int


@dataclass(frozen=True, slots=True)
class DestinationWarned(Event):
    """The destination took a request and sent a warning with it, which may repeat what was sent and is not shown."""

    level: ClassVar[str | None] = "debug"
    name: ClassVar[str] = "destination_warned"
    destination: str


@dataclass(frozen=True, slots=True)
class MetricsDelayed(DestinationEvent):
    """The destination did not take a report of metrics; the same is sent again later."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "metrics_delayed"
    reason: str


@dataclass(frozen=True, slots=True)
class MetricsLost(DestinationEvent):
    """The destination refused a report of metrics, or points of it, for good. The spans are not affected."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "metrics_lost"
    reason: str


@dataclass(frozen=True, slots=True)
class MediaRetried(DestinationEvent):
    """A file of a turn was not taken, by the destination or the storage behind it; its turn waits for the next try."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "media_retried"
    reason: str
    attempt: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class MediaLeftOut(DestinationEvent):
    """A file of a turn was not uploaded: `reason` is type, missing, too_large, refused or unavailable."""

    level: ClassVar[str | None] = None
    reason: str


@dataclass(frozen=True, slots=True)
class DestinationProven(DestinationEvent):
    """Langfuse accepts the keys."""

    name: ClassVar[str] = "Langfuse initialized successfully"
    host: str
    project: str | None


@dataclass(frozen=True, slots=True)
class DestinationAway(DestinationEvent):
    """Langfuse does not answer at the start. It has answered before, so the start waits for it."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "destination_away"
    host: str
    reason: str
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class DeadLetterReplayed(DestinationEvent):
    """A dead letter was sent again on request: `outcome` is sent or nothing_to_send."""

    name: ClassVar[str] = "dead_letter_replayed"
    record_id: str
    message_id: str
    outcome: str


@dataclass(frozen=True, slots=True)
class DestinationRefused(DestinationEvent):
    """One of several destinations cannot be used until an operator mends something. The others go on."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "destination_refused"
    subject: str
    hint: str


@dataclass(frozen=True, slots=True)
class DestinationLeft(DestinationEvent):
    """One of several destinations has accepted nothing for some seconds: its turns are kept in the state database, and
    the others go on."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "destination_left"
    waited_seconds: float


@dataclass(frozen=True, slots=True)
class DestinationReturned(DestinationEvent):
    """A destination accepts again; `owed` turns and changes are sent to it now."""

    name: ClassVar[str] = "destination_returned"
    owed: int


@dataclass(frozen=True, slots=True)
class DestinationForgotten(Event):
    """What was on its way, or owed, to a destination that the settings no longer name is let go; `destination` is its
    name. Its dead letters stay."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "destination_forgotten"
    destination: str
    traces: int
    owed: int
