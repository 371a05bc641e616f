"""Our bytes at a receiver that is none of ours: OtelTap decodes them in Rust and prints what it has."""

import platform
import sys
from collections.abc import AsyncIterator

import pytest

from tailer.flow.sending.outcomes import Delivered, Rejected
from tailer.otlp.destination import OtlpDestination, open_otlp
from tailer.otlp.options import OtlpOptions, SignalOptions
from tailer.outbound.proof import Proven
from tests.evidence import Events
from tests.fakes.otlp.decoding import decode_spans
from tests.http.oteltap import OtelTap, attributes_of, run_oteltap
from tests.unit.test_otlp_conventions import request_of
from tests.unit.test_recorded_turns import TURNS, trace_of_turn

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="OtelTap ships no library for this machine",
)


@pytest.fixture
async def oteltap() -> AsyncIterator[OtelTap]:
    async with run_oteltap() as receiver:
        yield receiver


@pytest.fixture
async def otlp(oteltap: OtelTap) -> AsyncIterator[OtlpDestination]:
    options = OtlpOptions(
        SignalOptions(f"{oteltap.url}/v1/traces"), SignalOptions(f"{oteltap.url}/v1/metrics")
    )
    async with open_otlp(options, Events(), connections=1) as destination:
        yield destination


async def test_every_recorded_turn_arrives_as_it_was_meant(oteltap: OtelTap, otlp: OtlpDestination) -> None:
    """All ids, names, times and attributes with their types, of every release and every kind of turn."""
    traces = list({trace.id: trace for trace in (trace_of_turn(*each.values) for each in TURNS)}.values())  # type: ignore[arg-type]
    chunks = [otlp.spans.encode(trace) for trace in traces]
    assert await otlp.prove() == Proven(None)
    assert await otlp.spans.deliver(otlp.spans.frame(chunks)) == Delivered()
    meant = decode_spans(request_of(traces))
    await oteltap.until(lambda: len(oteltap.spans()) >= len(meant))

    for span, expected in zip(oteltap.spans(), meant, strict=True):
        assert (span["traceId"], span["spanId"], span["parentSpanId"] or None) == (
            expected.trace_id,
            expected.span_id,
            expected.parent_span_id,
        )
        assert (span["name"], span["kind"]) == (expected.name, expected.kind)
        assert int(span["startTimeUnixNano"]) == expected.start_nanoseconds
        assert int(span["endTimeUnixNano"]) == expected.end_nanoseconds
        assert attributes_of(span) == expected.attributes
        status = span["status"] or {"code": 0, "message": ""}
        assert (status["code"], status["message"]) == (expected.status_code, expected.status_message)


async def test_metrics_arrive_with_their_buckets(oteltap: OtelTap, otlp: OtlpDestination) -> None:
    assert otlp.metrics is not None
    otlp.metrics.observe([trace_of_turn(*TURNS[0].values)])  # type: ignore[arg-type]
    await otlp.metrics.report()
    await oteltap.until(lambda: len(oteltap.metrics()) >= 2)

    usage, duration = oteltap.metrics()
    assert (usage["name"], usage["unit"]) == ("gen_ai.client.token.usage", "{token}")
    assert (duration["name"], duration["unit"]) == ("gen_ai.client.operation.duration", "s")
    for metric in (usage, duration):
        assert metric["histogram"]["aggregationTemporality"] == 1
        for point in metric["histogram"]["dataPoints"]:
            assert sum(map(int, point["bucketCounts"])) == int(point["count"])
            assert len(point["bucketCounts"]) == len(point["explicitBounds"]) + 1
    sums = {
        attributes_of(point)["gen_ai.token.type"]: point["sum"] for point in usage["histogram"]["dataPoints"]
    }
    assert sums == {"input": 108.0, "output": 13.0}


async def test_what_is_no_otlp_is_rejected(otlp: OtlpDestination) -> None:
    """As our fake has it."""
    assert await otlp.spans.deliver(b"\xff\xff") == Rejected("http_400")
