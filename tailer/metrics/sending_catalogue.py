"""The metrics of the way to the destinations: requests, what arrived, what waits, and what could not be sent."""

from typing import Final

from tailer.flow.letter_reasons import LetterKind
from tailer.metrics import labels
from tailer.metrics.declaration import Kind, Label, Metric, Section

_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LATENCY_BUCKETS: Final = (0.5, 1, 2, 3, 4, 5, 10, 30, 60, 120, 300, 900, 3600)

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

SENDING: Final = Section(
    "Sending",
    (
        REQUESTS, REQUEST_DURATION, OBSERVATIONS, TRACES, SENT_BYTES, RETRIES, UNKNOWN_OUTCOMES, TRACES_MAY_REPEAT, SPLITS,
        TRACES_CUT, SPOT_CHECKS,
        MEDIA_LEFT_OUT, ANNOTATION_RETRIES, ANNOTATIONS_FAILED, ANNOTATIONS_LEFT_OUT, DESTINATION_WARNINGS,
        METRIC_REPORTS_LOST, QUEUE_LENGTH, QUEUE_CAPACITY, OLDEST_UNACKNOWLEDGED,
        EXPORT_LAG, PAUSED, OWED, AWAY, LATENCY, DEAD_LETTERS, DEAD_LETTERS_KEPT,
    ),
)  # fmt: skip
