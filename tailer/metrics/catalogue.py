"""Every metric of the daemon: name, kind, unit, labels and meaning. Only declared metrics are measured.

Metrics have base units. Every label has a closed set of values, or one that the code bounds; it never holds a user, a
conversation, a message, the text of an error or a URL. `docs/metrics.md` is written from this list.
"""

from typing import Final

from tailer.flow.letter_reasons import LetterKind
from tailer.metrics import labels
from tailer.metrics.declaration import Kind, Label, Metric, Section
from tailer.metrics.usage_catalogue import USAGE

_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LATENCY_BUCKETS: Final = (0.5, 1, 2, 3, 4, 5, 10, 30, 60, 120, 300, 900, 3600)
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

REQUESTS: Final = Metric(
    "tailer_export_requests_total",
    Kind.COUNTER,
    "Requests to the destination",
    (labels.RESULT, labels.DESTINATION),
)
REQUEST_DURATION: Final = Metric(
    "tailer_export_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time of a request to the destination",
    (labels.DESTINATION,),
    buckets=_REQUEST_BUCKETS,
)
OBSERVATIONS: Final = Metric(
    "tailer_export_observations_total", Kind.COUNTER, "Observations acknowledged", (labels.DESTINATION,)
)
TRACES: Final = Metric(
    "tailer_export_traces_total", Kind.COUNTER, "Traces acknowledged", (labels.DESTINATION,)
)
SENT_BYTES: Final = Metric(
    "tailer_export_bytes_total",
    Kind.COUNTER,
    "Bytes sent, compressed, including those that were sent again",
    (labels.DESTINATION,),
)
RETRIES: Final = Metric(
    "tailer_export_retries_total",
    Kind.COUNTER,
    "Batches sent again because none was taken",
    (labels.DESTINATION,),
)
UNKNOWN_OUTCOMES: Final = Metric(
    "tailer_export_unknown_outcomes_total",
    Kind.COUNTER,
    "Batches whose answer was lost",
    (labels.VERDICT, labels.DESTINATION),
)
TRACES_MAY_REPEAT: Final = Metric(
    "tailer_export_traces_may_repeat_total",
    Kind.COUNTER,
    "Traces sent again after a lost answer, although the destination cannot be asked whether it has them",
    (labels.DESTINATION,),
)
SPOT_CHECKS: Final = Metric(
    "tailer_export_spot_checks_total",
    Kind.COUNTER,
    "Acknowledged turns that were looked for in Langfuse some minutes later, one a minute",
    (labels.SPOT_CHECK, labels.DESTINATION),
)
TRACES_CUT: Final = Metric(
    "tailer_export_traces_cut_total",
    Kind.COUNTER,
    "Traces whose longest texts were cut to half because a gateway takes no more; counted for each cut",
    (labels.DESTINATION,),
)
MEDIA_LEFT_OUT: Final = Metric(
    "tailer_media_left_out_total",
    Kind.COUNTER,
    "Files of turns that were not uploaded",
    (Label("reason", "", ("type", "missing", "too_large", "refused", "unavailable")), labels.DESTINATION),
)
ANNOTATION_RETRIES: Final = Metric(
    "tailer_annotation_retries_total",
    Kind.COUNTER,
    "Scores and deletions tried again because they were not taken",
    (labels.ANNOTATION, labels.DESTINATION),
)
ANNOTATIONS_FAILED: Final = Metric(
    "tailer_annotations_failed_total",
    Kind.COUNTER,
    "Scores and deletions refused for good",
    (labels.ANNOTATION, labels.DESTINATION),
)
ANNOTATIONS_LEFT_OUT: Final = Metric(
    "tailer_annotations_left_out_total",
    Kind.COUNTER,
    "Deletions and withdrawn scores that a destination has no way to do",
    (labels.ANNOTATION, labels.DESTINATION),
)
DESTINATION_WARNINGS: Final = Metric(
    "tailer_export_warnings_total",
    Kind.COUNTER,
    "Requests that the destination took with a warning in words (OTLP's `error_message`)",
)
METRIC_REPORTS_LOST: Final = Metric(
    "tailer_export_metric_reports_lost_total",
    Kind.COUNTER,
    "Reports of OTLP metrics that the destination refused for good, as a whole or in part",
)
SPLITS: Final = Metric(
    "tailer_export_splits_total",
    Kind.COUNTER,
    "Batches halved because they were too large or held a refused span",
    (labels.DESTINATION,),
)
QUEUE_LENGTH: Final = Metric(
    "tailer_queue_length", Kind.GAUGE, "Batches that wait to be sent", (labels.DESTINATION,)
)
QUEUE_CAPACITY: Final = Metric(
    "tailer_queue_capacity", Kind.GAUGE, "Batches that may wait", (labels.DESTINATION,)
)
OLDEST_UNACKNOWLEDGED: Final = Metric(
    "tailer_export_oldest_unacked_timestamp_seconds",
    Kind.GAUGE,
    "Cluster time of the position that the oldest unacknowledged turn holds; absent while nothing is open",
)
EXPORT_LAG: Final = Metric(
    "tailer_export_lag_seconds",
    Kind.GAUGE,
    "Age of the oldest unacknowledged turn, 0 when there is none",
    (labels.DESTINATION,),
)
PAUSED: Final = Metric(
    "tailer_export_paused",
    Kind.GAUGE,
    "1 while the destination refuses the keys, for spans, scores, deletions or files",
    (labels.DESTINATION,),
)
OWED: Final = Metric(
    "tailer_export_owed",
    Kind.GAUGE,
    "Turns and changes that are kept in the state database for a destination that does not accept them",
    (labels.DESTINATION,),
)
AWAY: Final = Metric(
    "tailer_export_away",
    Kind.GAUGE,
    "1 while one of several destinations accepts nothing, or less than there is to send: its turns are owed",
    (labels.DESTINATION,),
)
LATENCY: Final = Metric(
    "tailer_end_to_end_latency_seconds",
    Kind.HISTOGRAM,
    "From the end of a turn, as LibreChat stored it, to its acknowledgement, including the settle time; turns of a "
    "backfill do not count",
    (labels.DESTINATION,),
    buckets=_LATENCY_BUCKETS,
)
DEAD_LETTERS: Final = Metric(
    "tailer_dead_letters_total",
    Kind.COUNTER,
    "Turns that became dead letters",
    (
        Label(
            "reason",
            "build_failed: the tailer failed; rejected: the destination refused",
            (LetterKind.BUILD_FAILED.value, LetterKind.REJECTED.value),
        ),
        labels.DESTINATION,
    ),
)
DEAD_LETTERS_KEPT: Final = Metric(
    "tailer_dead_letters_kept",
    Kind.GAUGE,
    "Dead letters in the state database, including those from before the start",
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
    Section(
        "Sending",
        (
            REQUESTS, REQUEST_DURATION, OBSERVATIONS, TRACES, SENT_BYTES, RETRIES, UNKNOWN_OUTCOMES, TRACES_MAY_REPEAT, SPLITS,
            TRACES_CUT, SPOT_CHECKS,
            MEDIA_LEFT_OUT, ANNOTATION_RETRIES, ANNOTATIONS_FAILED, ANNOTATIONS_LEFT_OUT, DESTINATION_WARNINGS,
            METRIC_REPORTS_LOST, QUEUE_LENGTH, QUEUE_CAPACITY, OLDEST_UNACKNOWLEDGED,
            EXPORT_LAG, PAUSED, OWED, AWAY, LATENCY, DEAD_LETTERS, DEAD_LETTERS_KEPT,
        ),
    ),
    USAGE,
)  # fmt: skip
