"""How events move the metrics. The sampler in `tailer.daemon.gauges` sets the gauges of lasting states."""

from collections.abc import Sequence
from functools import singledispatchmethod

from tailer.core.policy.routes import DEFAULT_NAME
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.trace.observations import Trace
from tailer.events import (
    BackfillAdvanced,
    BackfillDone,
    BatchSettled,
    BatchSplit,
    CheckpointSaved,
    ClockCompared,
    DeliveryPaused,
    DeliveryResumed,
    DeliveryRetried,
    DestinationEvent,
    DestinationWarned,
    Event,
    FollowupFailed,
    FollowupLeftOut,
    FollowupRetried,
    GapsLeft,
    HintsRead,
    LeadershipLost,
    LeaseReleased,
    LeaseTaken,
    LettersCounted,
    LibreChatClockCompared,
    MediaLeftOut,
    MetricsLost,
    OplogSeen,
    PartsUnknown,
    ReadFailed,
    ReadingPaused,
    RequestDone,
    RowUnreadable,
    ShardsSeen,
    SideTask,
    SideTaskFailed,
    SpotChecked,
    StateFailed,
    StreamEnded,
    StreamFailed,
    StreamGapFound,
    StreamOpened,
    TraceCut,
    TraceRejected,
    TracesDelivered,
    TracesMayRepeat,
    TurnDone,
    TurnFailed,
)
from tailer.flow.letter_reasons import LetterKind
from tailer.metrics import catalogue, sending_catalogue
from tailer.metrics.declaration import Metric
from tailer.metrics.instruments import Instruments
from tailer.metrics.lifetimes import OF_A_TASK, OF_A_TERM
from tailer.metrics.usage import Usage


class Metrics(Instruments):
    """The metrics of one daemon. `usage_label_values` is how many values a label of the usage metrics may have; None:
    there are no usage metrics. `destinations` are the names of all destinations."""

    def __init__(
        self,
        version: str,
        *,
        shard: Shard = WHOLE,
        usage_label_values: int | None = None,
        destinations: Sequence[str] = (DEFAULT_NAME,),
    ) -> None:
        super().__init__(with_usage=usage_label_values is not None, destinations=destinations)
        self.gauge(catalogue.BUILD_INFO).labels(version).set(1)
        self.gauge(catalogue.SHARD_INFO).labels(str(shard.index), str(shard.total)).set(1)
        self._stored: dict[str, int] = {}
        self._oplog_first: int | None = None
        self._usage = None if usage_label_values is None else Usage(self, most_values=usage_label_values)

    @property
    def wants_traces(self) -> bool:
        """Whether acknowledged traces are counted."""
        return self._usage is not None

    def count_traces(self, traces: Sequence[Trace]) -> None:
        """Count what acknowledged traces say of models and tools."""
        if self._usage is not None:
            self._usage.count(traces)

    @singledispatchmethod
    def _follow(self, event: Event) -> None:
        """Many events affect no counter."""

    @_follow.register
    def _(self, event: LeaseTaken) -> None:
        self.gauge(catalogue.LEADER).set(1)
        self.gauge(catalogue.LEADER_EPOCH).set(event.epoch)
        self.gauge(catalogue.BACKFILL_REMAINING).set(0)

    @_follow.register
    def _(self, event: ShardsSeen) -> None:
        self.gauge(catalogue.SHARDS_MISSING).set(event.missing)

    @_follow.register
    def _(self, event: LeaseReleased) -> None:
        self.gauge(catalogue.LEADER).set(0)

    @_follow.register
    def _(self, event: LeadershipLost) -> None:
        self.gauge(catalogue.LEADER).set(0)
        self._forget_term()

    def _forget_term(self) -> None:
        for metric in OF_A_TERM:
            self.forget(metric)
        self._stored.clear()

    @_follow.register
    def _(self, event: HintsRead) -> None:
        counts = {
            "insert": event.inserts,
            "update": event.updates,
            "replace": event.replaces,
            "delete": event.deletes,
        }
        if any(counts.values()):
            self.gauge(catalogue.LAST_EVENT).labels(event.stream.value).set_to_current_time()
        for operation, count in counts.items():
            if count:
                self.counter(catalogue.EVENTS).labels(event.stream.value, operation).inc(count)

    @_follow.register
    def _(self, event: StreamOpened) -> None:
        self.gauge(catalogue.CONNECTED).labels(event.stream.value).set(1)

    @_follow.register
    def _(self, event: StreamFailed) -> None:
        self.gauge(catalogue.CONNECTED).labels(event.stream.value).set(0)
        self.counter(catalogue.RESTARTS).labels(event.stream.value, event.cause.value).inc()

    @_follow.register
    def _(self, event: StreamEnded) -> None:
        self.counter(catalogue.RESTARTS).labels(event.stream.value, event.cause.value).inc()

    @_follow.register
    def _(self, event: StreamGapFound) -> None:
        self.count(catalogue.GAPS, event.stream.value, event.reason)
        self.counter(catalogue.GAP_SECONDS).labels(event.stream.value).inc(
            max(0, event.to_seconds - event.from_seconds)
        )

    @_follow.register
    def _(self, event: GapsLeft) -> None:
        self.gauge(catalogue.GAPS_UNFILLED).set(event.gaps)

    @_follow.register
    def _(self, event: BackfillAdvanced) -> None:
        self.counter(catalogue.BACKFILLED).inc(event.rows)
        self._show_or_forget(catalogue.BACKFILL_REMAINING, event.remaining_rows)
        self._show_or_forget(catalogue.BACKFILL_POSITION, event.position_seconds)

    @_follow.register
    def _(self, event: BackfillDone) -> None:
        self.gauge(catalogue.BACKFILL_REMAINING).set(0)
        self.forget(catalogue.BACKFILL_POSITION)

    def _show_or_forget(self, metric: Metric, value: float | None) -> None:
        if value is None:
            self.forget(metric)
        else:
            self.gauge(metric).set(value)

    @_follow.register
    def _(self, event: ReadingPaused) -> None:
        self.counter(catalogue.PAUSES).labels(event.stream.value).inc()

    @_follow.register
    def _(self, event: CheckpointSaved) -> None:
        self.gauge(catalogue.CHECKPOINT_TIME).labels(event.stream.value).set(event.cluster_seconds)
        self.gauge(catalogue.CHECKPOINT_SAVED).labels(event.stream.value).set_to_current_time()
        self.counter(catalogue.CHECKPOINT_WRITES).labels("ok").inc()
        self.histogram(catalogue.CHECKPOINT_DURATION).observe(event.write_seconds)

        self._stored[event.stream.value] = event.cluster_seconds
        self._show_headroom()

    @_follow.register
    def _(self, event: OplogSeen) -> None:
        self._oplog_first = event.first_seconds
        self.gauge(catalogue.OPLOG_FIRST).set(event.first_seconds)
        self.gauge(catalogue.OPLOG_WINDOW).set(event.last_seconds - event.first_seconds)
        self._show_headroom()

    def _show_headroom(self) -> None:
        if self._oplog_first is not None:
            for stream, stored in self._stored.items():
                self.gauge(catalogue.OPLOG_HEADROOM).labels(stream).set(stored - self._oplog_first)

    @_follow.register
    def _(self, event: LibreChatClockCompared) -> None:
        self.gauge(catalogue.LIBRECHAT_CLOCK_SKEW).set(event.ahead_seconds)

    @_follow.register
    def _(self, event: ClockCompared) -> None:
        self.gauge(catalogue.CLOCK_SKEW).set(event.ahead_seconds)

    @_follow.register
    def _(self, event: SideTaskFailed) -> None:
        self.count(catalogue.TASK_FAILURES, event.task.value)
        for metric in OF_A_TASK.get(event.task, ()):
            self.forget(metric)
        if event.task is SideTask.OPLOG:
            self._oplog_first = None

    @_follow.register
    def _(self, event: LettersCounted) -> None:
        self.gauge(sending_catalogue.DEAD_LETTERS_KEPT).set(event.kept)

    @_follow.register
    def _(self, event: StateFailed) -> None:
        self.count(catalogue.STATE_FAILURES, event.operation)
        if event.operation == "save_checkpoint":
            self.counter(catalogue.CHECKPOINT_WRITES).labels("error").inc()

    @_follow.register
    def _(self, event: TurnDone) -> None:
        self.count(catalogue.PAIRS, event.outcome, by=event.count)

    @_follow.register
    def _(self, event: TurnFailed) -> None:
        self.counter(sending_catalogue.DEAD_LETTERS).labels(LetterKind.BUILD_FAILED.value, _at(event)).inc()

    @_follow.register
    def _(self, event: RowUnreadable) -> None:
        self.count(catalogue.UNREADABLE, event.collection, event.field)

    @_follow.register
    def _(self, event: PartsUnknown) -> None:
        self.counter(catalogue.UNKNOWN_PARTS).inc(event.parts)

    @_follow.register
    def _(self, event: ReadFailed) -> None:
        self.count(catalogue.READ_FAILURES, event.collection)

    @_follow.register
    def _(self, event: RequestDone) -> None:
        self.counter(sending_catalogue.REQUESTS).labels(event.result, _at(event)).inc()
        self.histogram(sending_catalogue.REQUEST_DURATION).labels(_at(event)).observe(event.seconds)
        self.counter(sending_catalogue.SENT_BYTES).labels(_at(event)).inc(event.sent_bytes)

    @_follow.register
    def _(self, event: DeliveryRetried) -> None:
        self.counter(sending_catalogue.RETRIES).labels(_at(event)).inc()

    @_follow.register
    def _(self, event: DeliveryPaused) -> None:
        self.gauge(sending_catalogue.PAUSED).labels(_at(event)).set(1)

    @_follow.register
    def _(self, event: DeliveryResumed) -> None:
        self.gauge(sending_catalogue.PAUSED).labels(_at(event)).set(0)

    @_follow.register
    def _(self, event: MediaLeftOut) -> None:
        self.counter(sending_catalogue.MEDIA_LEFT_OUT).labels(event.reason, _at(event)).inc()

    @_follow.register
    def _(self, event: FollowupRetried) -> None:
        self.counter(sending_catalogue.ANNOTATION_RETRIES).labels(event.operation.value, _at(event)).inc()

    @_follow.register
    def _(self, event: FollowupFailed) -> None:
        self.counter(sending_catalogue.ANNOTATIONS_FAILED).labels(event.operation.value, _at(event)).inc()

    @_follow.register
    def _(self, event: FollowupLeftOut) -> None:
        self.counter(sending_catalogue.ANNOTATIONS_LEFT_OUT).labels(event.operation.value, _at(event)).inc(
            event.count
        )

    @_follow.register
    def _(self, event: TracesMayRepeat) -> None:
        self.counter(sending_catalogue.TRACES_MAY_REPEAT).labels(_at(event)).inc(event.traces)

    @_follow.register
    def _(self, event: DestinationWarned) -> None:
        self.counter(sending_catalogue.DESTINATION_WARNINGS).inc()

    @_follow.register
    def _(self, event: MetricsLost) -> None:
        self.counter(sending_catalogue.METRIC_REPORTS_LOST).inc()

    @_follow.register
    def _(self, event: BatchSettled) -> None:
        self.counter(sending_catalogue.UNKNOWN_OUTCOMES).labels(event.verdict, _at(event)).inc()

    @_follow.register
    def _(self, event: BatchSplit) -> None:
        self.counter(sending_catalogue.SPLITS).labels(_at(event)).inc()

    @_follow.register
    def _(self, event: TraceCut) -> None:
        self.counter(sending_catalogue.TRACES_CUT).labels(_at(event)).inc()

    @_follow.register
    def _(self, event: SpotChecked) -> None:
        self.counter(sending_catalogue.SPOT_CHECKS).labels(event.result, _at(event)).inc()

    @_follow.register
    def _(self, event: TraceRejected) -> None:
        self.counter(sending_catalogue.DEAD_LETTERS).labels(LetterKind.REJECTED.value, _at(event)).inc()

    @_follow.register
    def _(self, event: TracesDelivered) -> None:
        self.counter(sending_catalogue.TRACES).labels(_at(event)).inc(event.traces)
        self.counter(sending_catalogue.OBSERVATIONS).labels(_at(event)).inc(event.observations)
        latency = self.histogram(sending_catalogue.LATENCY).labels(_at(event))
        for seconds in event.latencies_seconds:
            latency.observe(seconds)

    _handler_of = staticmethod(_follow.dispatcher.dispatch)

    def record(self, event: Event) -> None:
        """Move the counters that an event affects."""
        # Called by its name, a method with dispatch is made anew each time.
        self._handler_of(type(event))(self, event)


def _at(event: DestinationEvent) -> str:
    """The name of the destination at which something happened."""
    return event.destination or DEFAULT_NAME
