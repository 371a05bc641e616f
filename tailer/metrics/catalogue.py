"""Every metric of the daemon: name, kind, unit, labels and meaning. Only declared metrics are measured.

Metrics have base units. Every label has a closed set of values, or one that the code bounds; it never holds a user, a
conversation, a message, the text of an error or a URL. `docs/metrics.md` is written from this list.
"""

from typing import Final

from tailer.metrics import labels
from tailer.metrics.declaration import Kind, Label, Metric, Section
from tailer.metrics.sending_catalogue import DEAD_LETTERS_KEPT, OLDEST_UNACKNOWLEDGED, SENDING
from tailer.metrics.usage_catalogue import USAGE

_WRITE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

BUILD_INFO: Final = Metric(
    "tailer_build_info",
    Kind.GAUGE,
    "Always 1; the version is a label",
    (Label("version", "of the tailer; one value"),),
)
STATE: Final = Metric(
    "tailer_state", Kind.GAUGE, "1 for the state that the daemon is in, 0 for the others", (labels.STATE,)
)
LEADER: Final = Metric("tailer_leader", Kind.GAUGE, "1 while this instance is the active one, 0 on a standby")
LEADER_EPOCH: Final = Metric(
    "tailer_leader_epoch", Kind.GAUGE, "Epoch of the lease that this instance took last"
)
SHARD_INFO: Final = Metric(
    "tailer_shard_info",
    Kind.GAUGE,
    "Always 1; the labels say which of how many shards this instance works on, or stands by for",
    (
        Label("shard", "number of the shard, from 0"),
        Label("shards", "how many there are, TAILER_TOTAL_SHARDS"),
    ),
)
SHARDS_MISSING: Final = Metric(
    "tailer_shards_missing",
    Kind.GAUGE,
    "Shards that have had no active instance for half a minute, or whose stored position lies five minutes behind the "
    "others, as this instance sees it",
)
LOOP_LAG: Final = Metric(
    "tailer_event_loop_lag_seconds",
    Kind.HISTOGRAM,
    "How late the event loop runs a timer",
    buckets=_WRITE_BUCKETS,
)

TASK_FAILURES: Final = Metric(
    "tailer_task_failures_total",
    Kind.COUNTER,
    "Looks of a watching task that broke; what it tells of is absent until the next one",
    (labels.SIDE_TASK,),
)

CONNECTED: Final = Metric(
    "tailer_stream_connected",
    Kind.GAUGE,
    "1 while the stream answers, 0 while it does not; while reading is paused, it keeps its last value",
    (labels.STREAM,),
)
EVENTS: Final = Metric(
    "tailer_stream_events_total", Kind.COUNTER, "Change events read", (labels.STREAM, labels.EVENT_OPERATION)
)
LAST_POLL: Final = Metric(
    "tailer_stream_last_poll_timestamp_seconds", Kind.GAUGE, "When the stream last answered", (labels.STREAM,)
)
LAST_EVENT: Final = Metric(
    "tailer_stream_last_event_timestamp_seconds",
    Kind.GAUGE,
    "When a change event was last read; absent before the first",
    (labels.STREAM,),
)
SOURCE_TIME: Final = Metric(
    "tailer_source_cluster_timestamp_seconds", Kind.GAUGE, "Cluster time of MongoDB's last answer"
)
POSITION_TIME: Final = Metric(
    "tailer_stream_position_timestamp_seconds",
    Kind.GAUGE,
    "Cluster time up to which the stream was read",
    (labels.STREAM,),
)
STREAM_LAG: Final = Metric(
    "tailer_stream_lag_seconds",
    Kind.GAUGE,
    "Cluster time not yet read: 0 when idle, growing every second while the stream does not answer or is not read; a "
    "stream that has not opened counts from its checkpoint, or from the start",
    (labels.STREAM,),
)
RESTARTS: Final = Metric(
    "tailer_stream_restarts_total",
    Kind.COUNTER,
    "Commands of a stream that failed or ended, each followed by another attempt",
    (labels.STREAM, labels.CAUSE),
)
PAUSES: Final = Metric(
    "tailer_stream_pauses_total",
    Kind.COUNTER,
    "How often reading waited because too much was open",
    (labels.STREAM,),
)
GAPS: Final = Metric(
    "tailer_stream_gaps_total",
    Kind.COUNTER,
    "Stretches of lost history",
    (labels.STREAM, labels.GAP_REASON),
)
GAP_SECONDS: Final = Metric(
    "tailer_stream_gap_seconds_total", Kind.COUNTER, "Cluster time of lost history", (labels.STREAM,)
)
GAPS_UNFILLED: Final = Metric(
    "tailer_stream_gaps_unfilled", Kind.GAUGE, "Stretches of lost history that no backfill has filled yet"
)
CLOCK_SKEW: Final = Metric(
    "tailer_clock_skew_seconds",
    Kind.GAUGE,
    "This machine's clock minus that of MongoDB's primary, uncertain by half a round trip; latencies are wrong by this "
    "amount",
)
LIBRECHAT_CLOCK_SKEW: Final = Metric(
    "tailer_librechat_clock_skew_seconds",
    Kind.GAUGE,
    "LibreChat's clock minus MongoDB's, by createdAt and _id of the messages of the last hour, uncertain by half a second",
)
OPLOG_FIRST: Final = Metric(
    "tailer_oplog_first_timestamp_seconds",
    Kind.GAUGE,
    "Cluster time of the oldest entry of the oplog; absent without the privilege serverStatus",
)
OPLOG_WINDOW: Final = Metric(
    "tailer_oplog_window_seconds",
    Kind.GAUGE,
    "From the oldest to the newest entry of the oplog; absent without the privilege serverStatus",
)
OPLOG_HEADROOM: Final = Metric(
    "tailer_oplog_headroom_seconds",
    Kind.GAUGE,
    "From the oldest entry of the oplog to the stored position; below 0 history is lost",
    (labels.STREAM,),
)
BACKFILLED: Final = Metric("tailer_backfill_documents_total", Kind.COUNTER, "Rows that backfills walked")
BACKFILL_REMAINING: Final = Metric(
    "tailer_backfill_remaining_documents",
    Kind.GAUGE,
    "Rows that the running backfill still has to walk, 0 without one; absent on a standby and if counting took too long",
)
BACKFILL_POSITION: Final = Metric(
    "tailer_backfill_position_timestamp_seconds",
    Kind.GAUGE,
    "Creation time of the row that the running backfill walked last; absent without one",
)

CHECKPOINT_TIME: Final = Metric(
    "tailer_checkpoint_timestamp_seconds", Kind.GAUGE, "Cluster time of the stored position", (labels.STREAM,)
)
CHECKPOINT_SAVED: Final = Metric(
    "tailer_checkpoint_last_success_timestamp_seconds",
    Kind.GAUGE,
    "When a position was last stored",
    (labels.STREAM,),
)
CHECKPOINT_WRITES: Final = Metric(
    "tailer_checkpoint_writes_total",
    Kind.COUNTER,
    "Positions stored",
    (Label("result", "", ("ok", "error")),),
)
CHECKPOINT_DURATION: Final = Metric(
    "tailer_checkpoint_write_duration_seconds",
    Kind.HISTOGRAM,
    "Time of storing a position",
    buckets=_WRITE_BUCKETS,
)
STATE_FAILURES: Final = Metric(
    "tailer_state_failures_total",
    Kind.COUNTER,
    "Failed reads and writes of the state database, each tried again",
    (labels.STATE_OPERATION,),
)

PENDING: Final = Metric("tailer_pairs_pending", Kind.GAUGE, "Open and parked turns", (labels.WAITING,))
OLDEST_PENDING: Final = Metric(
    "tailer_pair_oldest_pending_age_seconds", Kind.GAUGE, "Age of the oldest open turn, 0 when none is open"
)
PAIRS: Final = Metric(
    "tailer_pairs_total",
    Kind.COUNTER,
    "Turns done",
    (labels.WORK_OUTCOME,),
)
UNREADABLE: Final = Metric(
    "tailer_document_parse_failures_total",
    Kind.COUNTER,
    "Rows that lack a field that every message has",
    (labels.COLLECTION, labels.FIELD),
)
UNKNOWN_PARTS: Final = Metric(
    "tailer_unknown_parts_total",
    Kind.COUNTER,
    "Parts of answers of a type that this release does not know and does not show",
)
READ_FAILURES: Final = Metric(
    "tailer_read_failures_total",
    Kind.COUNTER,
    "Failed queries on LibreChat's collections, each tried again",
    (labels.COLLECTION,),
)

REDACTIONS: Final = Metric(
    "tailer_redactions_total",
    Kind.COUNTER,
    "Values that the masking replaced; what is built again after a crash counts again",
    (Label("rule", "the built-in rules, and pattern-1 to pattern-n of the settings"),),
)

ABSENT_UNTIL_KNOWN: Final = frozenset(
    {
        SOURCE_TIME,
        CLOCK_SKEW,
        LIBRECHAT_CLOCK_SKEW,
        OPLOG_FIRST,
        OPLOG_WINDOW,
        OLDEST_UNACKNOWLEDGED,
        DEAD_LETTERS_KEPT,
        BACKFILL_REMAINING,
        BACKFILL_POSITION,
    }
)
"""Gauges without labels for which 0 would be a lie."""

CATALOGUE: Final = (
    Section("The daemon", (BUILD_INFO, STATE, LEADER, LEADER_EPOCH, SHARD_INFO, SHARDS_MISSING, LOOP_LAG, TASK_FAILURES)),
    Section(
        "MongoDB and the streams",
        (
            CONNECTED, EVENTS, LAST_POLL, LAST_EVENT, SOURCE_TIME, POSITION_TIME, STREAM_LAG, RESTARTS, PAUSES, GAPS,
            GAP_SECONDS, GAPS_UNFILLED, CLOCK_SKEW, LIBRECHAT_CLOCK_SKEW, OPLOG_FIRST, OPLOG_WINDOW, OPLOG_HEADROOM, BACKFILLED,
            BACKFILL_REMAINING, BACKFILL_POSITION,
        ),
    ),
    Section(
        "Checkpoints and the state database",
        (CHECKPOINT_TIME, CHECKPOINT_SAVED, CHECKPOINT_WRITES, CHECKPOINT_DURATION, STATE_FAILURES),
    ),
    Section("Turns", (PENDING, OLDEST_PENDING, PAIRS, UNREADABLE, UNKNOWN_PARTS, READ_FAILURES, REDACTIONS)),
    SENDING,
    USAGE,
)  # fmt: skip
