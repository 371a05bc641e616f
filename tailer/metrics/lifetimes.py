"""Gauges that are true only as long as something lasts: they are forgotten when it ends, for one that stands still
looks healthy."""

from collections.abc import Mapping
from typing import Final

from tailer.events import SideTask
from tailer.metrics import catalogue, sending_catalogue
from tailer.metrics.declaration import Metric

OF_A_TERM: Final = (
    catalogue.CONNECTED,
    catalogue.LAST_POLL,
    catalogue.SOURCE_TIME,
    catalogue.POSITION_TIME,
    catalogue.STREAM_LAG,
    catalogue.PENDING,
    catalogue.CHECKPOINT_TIME,
    catalogue.CHECKPOINT_SAVED,
    catalogue.GAPS_UNFILLED,
    catalogue.OPLOG_HEADROOM,
    catalogue.OLDEST_PENDING,
    sending_catalogue.QUEUE_LENGTH,
    sending_catalogue.EXPORT_LAG,
    sending_catalogue.OLDEST_UNACKNOWLEDGED,
    sending_catalogue.PAUSED,
    sending_catalogue.OWED,
    sending_catalogue.AWAY,
    catalogue.BACKFILL_REMAINING,
    catalogue.BACKFILL_POSITION,
)
"""What is true of the active instance's streams and work, and not of a standby."""
OF_A_TASK: Final[Mapping[SideTask, tuple[Metric, ...]]] = {
    SideTask.OPLOG: (
        catalogue.OPLOG_FIRST,
        catalogue.OPLOG_WINDOW,
        catalogue.OPLOG_HEADROOM,
        catalogue.CLOCK_SKEW,
    ),
    SideTask.DEAD_LETTERS: (sending_catalogue.DEAD_LETTERS_KEPT,),
}
"""What a watching task tells of."""
