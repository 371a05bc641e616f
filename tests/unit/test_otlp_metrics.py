"""What is counted of acknowledged turns, in which bucket, under which attributes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tailer.core.trace.observations import ObservationType, Trace
from tailer.otlp.histograms import Histogram, Instrument, frame_metrics
from tailer.otlp.metrics import GenAiMetrics
from tests.fakes.otlp.decoding import ReceivedPoint, decode_points
from tests.fakes.otlp.rules import check_points
from tests.recordings import TrueTurn
from tests.unit.test_recorded_turns import TURNS, trace_of_turn

INSTRUMENT = Instrument("x", "s", "for tests", (1.0, 4.0, 16.0))


class Posts:
    """A connection that keeps what is posted; only its packing is asked for here."""

    def pack(self, request: bytes) -> bytes:
        return request


def points_of(traces: Sequence[Trace]) -> list[ReceivedPoint]:
    ticks = iter((1_760_000_000.0, 1_760_000_060.0))
    metrics = GenAiMetrics(
        Posts(),  # type: ignore[arg-type]
        {"service.name": "librechat"},
        lambda _: None,
        interval=timedelta(seconds=60),
        wall_clock=lambda: next(ticks),
    )
    metrics.observe(traces)
    report = metrics._take()
    points = [] if report is None else decode_points(report)
    assert list(check_points(points)) == []
    return points


@pytest.mark.parametrize(("name", "turn"), TURNS)
def test_the_tokens_of_every_recorded_turn_are_counted_once(name: str, turn: TrueTurn) -> None:
    trace = trace_of_turn(name, turn)
    usage = [point for point in points_of([trace]) if point.metric == "gen_ai.client.token.usage"]

    for kind in ("input", "output"):
        expected = [
            sum(count for bucket, count in item.usage.items() if bucket.startswith(kind))
            for item in trace.observations
            if item.usage is not None and any(bucket.startswith(kind) for bucket in item.usage)
        ]
        points = [point for point in usage if point.attributes["gen_ai.token.type"] == kind]
        assert sum(point.sum for point in points) == sum(expected)
        assert sum(point.count for point in points) == len(expected)


def test_estimates_are_series_of_their_own() -> None:
    """So a sum without them can be had."""
    traces = [trace_of_turn(*parameters.values) for parameters in TURNS]  # type: ignore[arg-type]
    sources = {
        point.attributes.get("librechat.usage.source")
        for point in points_of(traces)
        if point.metric == "gen_ai.client.token.usage"
    }

    assert {"reported", "estimated", "billed"} <= sources


def test_times_that_are_not_stored_are_no_durations() -> None:
    traces = [trace_of_turn(*parameters.values) for parameters in TURNS]  # type: ignore[arg-type]
    durations = [point for point in points_of(traces) if point.metric.endswith("duration")]

    assert {point.attributes["librechat.timing"] for point in durations} == {"stored", "estimated"}
    assert all(point.sum > 0 for point in durations)


def test_a_call_whose_times_are_those_of_its_bill_has_tokens_and_no_duration() -> None:
    """The agents API stores no other times."""
    trace = trace_of_turn(*TURNS[0].values)  # type: ignore[arg-type]
    chat = next(item for item in trace.observations if item.type is ObservationType.GENERATION)
    billed = replace(chat, parent_id=None, metadata={**chat.metadata, "timing": "not stored"})

    assert billed.end_milliseconds > billed.start_milliseconds
    points = points_of([replace(trace, observations=(billed,))])
    assert {point.metric for point in points} == {"gen_ai.client.token.usage"}


@pytest.mark.parametrize(("value", "bucket"), [(0.0, 0), (1.0, 0), (1.1, 1), (4.0, 1), (16.0, 2), (16.1, 3)])
def test_a_value_is_in_the_bucket_whose_upper_bound_it_does_not_exceed(value: float, bucket: int) -> None:
    """As the data model has it: bounds are inclusive above."""
    histogram = Histogram(INSTRUMENT)
    histogram.record(value, {"a": "b"})
    (metric,) = _read(histogram)
    (point,) = metric.histogram.data_points

    assert list(point.bucket_counts) == [int(number == bucket) for number in range(4)]
    assert list(point.explicit_bounds) == [1.0, 4.0, 16.0]


def test_beyond_the_limit_one_series_holds_the_rest() -> None:
    histogram = Histogram(INSTRUMENT)
    for number in range(2_500):
        histogram.record(2.0, {"gen_ai.request.model": str(number)})
    (metric,) = _read(histogram)
    overflow = [
        point for point in metric.histogram.data_points if point.attributes[0].key == "otel.metric.overflow"
    ]

    assert len(metric.histogram.data_points) == 2_001
    assert [point.count for point in overflow] == [500]


def _read(histogram: Histogram) -> Sequence[Any]:
    request = ExportMetricsServiceRequest.FromString(frame_metrics(b"", [histogram.take(1, 2)]))
    metrics: Sequence[Any] = request.resource_metrics[0].scope_metrics[0].metrics
    return metrics
