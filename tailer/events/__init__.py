"""What happens in the daemon, as named facts. One event is one log line and its share of the metrics, decided here
and in `tailer.metrics`; the code that emits it knows neither.

An event never carries message content, and only ids that a log line may show. `level` None means metrics only.
"""

from tailer.events.base import (
    Emit,
    Event,
)
from tailer.events.delivery import (
    AnnotationFailed,
    BatchSettled,
    BatchSplit,
    DeadLetterReplayed,
    DeliveryPaused,
    DeliveryResumed,
    DeliveryRetried,
    DeliveryUnknown,
    DestinationAway,
    DestinationProven,
    MediaLeftOut,
    RequestDone,
    TraceRejected,
    TracesDelivered,
)
from tailer.events.leadership import (
    LeadershipLost,
    LeaseDoubted,
    LeaseReleased,
    LeaseTaken,
    StandingBy,
)
from tailer.events.lifecycle import (
    Drained,
    Listening,
    SendingDisabled,
    SettingDoubted,
    Started,
    Stopped,
    Stopping,
    TaskFailed,
)
from tailer.events.reading import (
    CollectionDenied,
    ReadFailed,
    RowUnreadable,
    TurnDone,
    TurnFailed,
)
from tailer.events.source import (
    BackfillAdvanced,
    BackfillDone,
    BackfillStarted,
    GapsLeft,
    HintsRead,
    ReadingPaused,
    SourceUnanswered,
    StreamFailed,
    StreamGapFound,
    StreamOpened,
)
from tailer.events.state import (
    CheckpointSaved,
    StateFailed,
)

__all__ = [
    "AnnotationFailed",
    "BackfillAdvanced",
    "BackfillDone",
    "BackfillStarted",
    "BatchSettled",
    "BatchSplit",
    "CheckpointSaved",
    "CollectionDenied",
    "DeadLetterReplayed",
    "DeliveryPaused",
    "DeliveryResumed",
    "DeliveryRetried",
    "DeliveryUnknown",
    "DestinationAway",
    "DestinationProven",
    "Drained",
    "Emit",
    "Event",
    "GapsLeft",
    "HintsRead",
    "LeadershipLost",
    "LeaseDoubted",
    "LeaseReleased",
    "LeaseTaken",
    "Listening",
    "MediaLeftOut",
    "ReadFailed",
    "ReadingPaused",
    "RequestDone",
    "RowUnreadable",
    "SendingDisabled",
    "SettingDoubted",
    "SourceUnanswered",
    "StandingBy",
    "Started",
    "StateFailed",
    "Stopped",
    "Stopping",
    "StreamFailed",
    "StreamGapFound",
    "StreamOpened",
    "TaskFailed",
    "TraceRejected",
    "TracesDelivered",
    "TurnDone",
    "TurnFailed",
]
