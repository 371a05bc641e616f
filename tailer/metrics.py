"""Every metric of the daemon, and how events move the counters. Gauges are set by the sampler in `tailer.sampling`.

Base units, closed label sets; never a user, conversation or message id, never an error's text.
"""

from functools import singledispatchmethod

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from tailer.events import (
    AnnotationFailed,
    BackfillAdvanced,
    BatchSettled,
    BatchSplit,
    CheckpointSaved,
    DeliveryPaused,
    DeliveryResumed,
    DeliveryRetried,
    Event,
    GapsLeft,
    HintsRead,
    LeadershipLost,
    LeaseReleased,
    LeaseTaken,
    MediaLeftOut,
    ReadFailed,
    ReadingPaused,
    RequestDone,
    RowUnreadable,
    StateFailed,
    StreamFailed,
    StreamGapFound,
    StreamOpened,
    TraceRejected,
    TracesDelivered,
    TurnDone,
    TurnFailed,
)

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LATENCY_BUCKETS = (0.5, 1, 2, 3, 4, 5, 10, 30, 60, 120, 300, 900, 3600)
_WRITE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class Metrics:
    """The registry of one daemon; nothing is registered globally."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        build = self._gauge("tailer_build_info", "Constant 1 with the version", "version")
        build.labels(version).set(1)
        self.state = self._gauge("tailer_state", "1 for the state the daemon is in", "state")
        self.leader = self._gauge("tailer_leader", "1 while this instance is the active one, 0 on a standby")
        self.leader_epoch = self._gauge(
            "tailer_leader_epoch", "Epoch of the lease that this instance took last"
        )
        self.event_loop_lag = self._histogram(
            "tailer_event_loop_lag_seconds", "How late the event loop runs a timer", _WRITE_BUCKETS
        )

        self.stream_connected = self._gauge(
            "tailer_stream_connected", "1 while the stream answers, 0 while it does not", "stream"
        )
        self.stream_events = self._counter("tailer_stream_events_total", "Change events read", "stream", "op")
        self.last_poll = self._gauge(
            "tailer_stream_last_poll_timestamp_seconds", "When the stream last answered", "stream"
        )
        self.source_time = self._gauge(
            "tailer_source_cluster_timestamp_seconds", "Cluster time of the server's last answer"
        )
        self.position_time = self._gauge(
            "tailer_stream_position_timestamp_seconds",
            "Cluster time up to which the stream was read",
            "stream",
        )
        self.stream_lag = self._gauge(
            "tailer_stream_lag_seconds",
            "Cluster time not yet read, growing while the stream does not answer, 0 when idle",
            "stream",
        )
        self.stream_restarts = self._counter(
            "tailer_stream_restarts_total", "Failures that reopened the stream", "stream", "reason"
        )
        self.stream_gaps = self._counter(
            "tailer_stream_gaps_total", "Stretches of lost history", "stream", "reason"
        )
        self.stream_gap_seconds = self._counter(
            "tailer_stream_gap_seconds_total", "Cluster time of lost history", "stream"
        )
        self.gaps_left = self._gauge(
            "tailer_stream_gaps_unfilled", "Stretches of lost history that no backfill has filled yet"
        )
        self.backfilled = self._counter("tailer_backfill_documents_total", "Rows that backfills walked")
        self.reading_paused = self._counter(
            "tailer_stream_pauses_total", "Times that reading waited because too much was open", "stream"
        )

        self.checkpoint_time = self._gauge(
            "tailer_checkpoint_timestamp_seconds", "Cluster time of the stored position", "stream"
        )
        self.checkpoint_saved = self._gauge(
            "tailer_checkpoint_last_success_timestamp_seconds", "When a position was last stored", "stream"
        )
        self.checkpoint_writes = self._counter(
            "tailer_checkpoint_writes_total", "Positions stored, by result", "result"
        )
        self.checkpoint_duration = self._histogram(
            "tailer_checkpoint_write_duration_seconds", "Time of storing a position", _WRITE_BUCKETS
        )
        self.state_failures = self._counter(
            "tailer_state_failures_total", "Failed writes and reads of the state database", "operation"
        )

        self.pairs_pending = self._gauge(
            "tailer_pairs_pending", "Open and parked turns by what they wait for", "kind"
        )
        self.pairs_oldest = self._gauge(
            "tailer_pair_oldest_pending_age_seconds", "Age of the oldest open turn, 0 when none is open"
        )
        self.pairs = self._counter("tailer_pairs_total", "Turns done, by outcome", "outcome")
        self.unreadable = self._counter(
            "tailer_document_parse_failures_total",
            "Rows without what makes them a message",
            "collection",
            "reason",
        )
        self.read_failures = self._counter(
            "tailer_read_failures_total", "Failed queries, each tried again", "collection"
        )

        self.requests = self._counter("tailer_export_requests_total", "Requests to the destination", "result")
        self.request_duration = self._histogram(
            "tailer_export_request_duration_seconds", "Time of a request to the destination", _REQUEST_BUCKETS
        )
        self.observations = self._counter("tailer_export_observations_total", "Observations acknowledged")
        self.traces = self._counter("tailer_export_traces_total", "Traces acknowledged")
        self.sent_bytes = self._counter("tailer_export_bytes_total", "Bytes sent, compressed")
        self.retries = self._counter(
            "tailer_export_retries_total", "Batches sent again because none was taken"
        )
        self.settled = self._counter(
            "tailer_export_unknown_outcomes_total",
            "Batches whose answer nobody saw, by how it was settled",
            "verdict",
        )
        self.media_left_out = self._counter(
            "tailer_media_left_out_total", "Files of turns that were not uploaded", "reason"
        )
        self.annotations_failed = self._counter(
            "tailer_annotations_failed_total", "Scores and deletions refused for good", "operation"
        )
        self.splits = self._counter("tailer_export_splits_total", "Batches halved")
        self.queue_length = self._gauge("tailer_queue_length", "Batches that wait to be sent")
        self.queue_capacity = self._gauge("tailer_queue_capacity", "Batches that may wait")
        self.oldest_open = self._gauge(
            "tailer_export_oldest_unacked_timestamp_seconds",
            "Cluster time of the position held by the oldest turn not acknowledged",
        )
        self.export_lag = self._gauge(
            "tailer_export_lag_seconds", "Age of the oldest turn not acknowledged, 0 when there is none"
        )
        self.paused = self._gauge("tailer_export_paused", "1 while the destination refuses the keys")
        self.latency = self._histogram(
            "tailer_end_to_end_latency_seconds",
            "From the end of a turn to its acknowledgement",
            _LATENCY_BUCKETS,
        )
        self.dead_letters = self._counter("tailer_dead_letters_total", "Turns kept as dead letters", "reason")

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, help_text, buckets=buckets, registry=self.registry)

    @singledispatchmethod
    def record(self, event: Event) -> None:
        """Move the counters that an event concerns; many events concern none."""

    @record.register
    def _(self, event: LeaseTaken) -> None:
        self.leader.set(1)
        self.leader_epoch.set(event.epoch)

    @record.register
    def _(self, event: LeaseReleased) -> None:
        self.leader.set(0)

    @record.register
    def _(self, event: LeadershipLost) -> None:
        self.leader.set(0)
        self._forget_term()

    def _forget_term(self) -> None:
        """What was true of the streams and the work of the active instance is not true of a standby."""
        for labelled in (
            self.stream_connected,
            self.last_poll,
            self.position_time,
            self.stream_lag,
            self.pairs_pending,
            self.checkpoint_time,
        ):
            labelled.clear()
        for gauge in (self.pairs_oldest, self.queue_length, self.export_lag, self.oldest_open, self.paused):
            gauge.set(0)

    @record.register
    def _(self, event: HintsRead) -> None:
        counts = {
            "insert": event.inserts,
            "update": event.updates,
            "replace": event.replaces,
            "delete": event.deletes,
        }
        for operation, count in counts.items():
            if count:
                self.stream_events.labels(event.stream.value, operation).inc(count)

    @record.register
    def _(self, event: StreamOpened) -> None:
        self.stream_connected.labels(event.stream.value).set(1)

    @record.register
    def _(self, event: StreamFailed) -> None:
        self.stream_connected.labels(event.stream.value).set(0)
        self.stream_restarts.labels(event.stream.value, event.reaction).inc()

    @record.register
    def _(self, event: StreamGapFound) -> None:
        self.stream_gaps.labels(event.stream.value, event.reason).inc()
        self.stream_gap_seconds.labels(event.stream.value).inc(max(0, event.to_seconds - event.from_seconds))

    @record.register
    def _(self, event: GapsLeft) -> None:
        self.gaps_left.set(event.gaps)

    @record.register
    def _(self, event: BackfillAdvanced) -> None:
        self.backfilled.inc(event.rows)

    @record.register
    def _(self, event: ReadingPaused) -> None:
        self.reading_paused.labels(event.stream.value).inc()

    @record.register
    def _(self, event: CheckpointSaved) -> None:
        self.checkpoint_time.labels(event.stream.value).set(event.cluster_seconds)
        self.checkpoint_saved.labels(event.stream.value).set_to_current_time()
        self.checkpoint_writes.labels("ok").inc()
        self.checkpoint_duration.observe(event.write_seconds)

    @record.register
    def _(self, event: StateFailed) -> None:
        self.state_failures.labels(event.operation).inc()
        if event.operation == "save_checkpoint":
            self.checkpoint_writes.labels("error").inc()

    @record.register
    def _(self, event: TurnDone) -> None:
        self.pairs.labels(event.outcome).inc(event.count)

    @record.register
    def _(self, event: TurnFailed) -> None:
        self.dead_letters.labels("build_failed").inc()

    @record.register
    def _(self, event: RowUnreadable) -> None:
        self.unreadable.labels(event.collection, event.field).inc()

    @record.register
    def _(self, event: ReadFailed) -> None:
        self.read_failures.labels(event.collection).inc()

    @record.register
    def _(self, event: RequestDone) -> None:
        self.requests.labels(event.result).inc()
        self.request_duration.observe(event.seconds)
        self.sent_bytes.inc(event.sent_bytes)

    @record.register
    def _(self, event: DeliveryRetried) -> None:
        self.retries.inc()

    @record.register
    def _(self, event: DeliveryPaused) -> None:
        self.paused.set(1)

    @record.register
    def _(self, event: DeliveryResumed) -> None:
        self.paused.set(0)

    @record.register
    def _(self, event: MediaLeftOut) -> None:
        self.media_left_out.labels(event.reason).inc()

    @record.register
    def _(self, event: AnnotationFailed) -> None:
        self.annotations_failed.labels(event.operation).inc()

    @record.register
    def _(self, event: BatchSettled) -> None:
        self.settled.labels(event.verdict).inc()

    @record.register
    def _(self, event: BatchSplit) -> None:
        self.splits.inc()

    @record.register
    def _(self, event: TraceRejected) -> None:
        self.dead_letters.labels("rejected").inc()

    @record.register
    def _(self, event: TracesDelivered) -> None:
        self.traces.inc(event.traces)
        self.observations.inc(event.observations)
        for seconds in event.latencies_seconds:
            self.latency.observe(seconds)
