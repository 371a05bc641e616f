"""Small valid traces and the requests that carry them: what a test sends to the fake, or bends first."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.server import DEFAULT_KEYS

TRACE_ID = "0123456789abcdef0123456789abcdef"
ROOT_ID = "00000000000000a1"
GENERATION_ID = "00000000000000a2"
START = 1_760_000_000_123_000_000
SECOND = 1_000_000_000

Value = str | bool | int | float | Sequence[str] | AnyValue


@dataclass(frozen=True, slots=True)
class SampleSpan:
    """A span to send; ids in hex, times in nanoseconds."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    attributes: Mapping[str, Value]
    start: int = START
    end: int = START + 2 * SECOND

    def having(self, changes: Mapping[str, Value | None]) -> SampleSpan:
        """The span with other attributes; None takes one away."""
        merged: dict[str, Value | None] = {**self.attributes, **changes}
        return replace(self, attributes={key: value for key, value in merged.items() if value is not None})


def trace_attributes(**changes: Value) -> dict[str, Value]:
    """What every span of a sample trace says."""
    return {
        names.TRACE_NAME: "turn",
        names.SESSION_ID: "conversation-1",
        names.USER_ID: "user-1",
        names.ENVIRONMENT: "test",
        names.TRACE_TAGS: ["tag"],
        **changes,
    }


def root_span(trace_id: str = TRACE_ID, span_id: str = ROOT_ID) -> SampleSpan:
    """The agent observation at the root of a trace."""
    own: dict[str, Value] = {
        names.TYPE: "agent",
        names.INPUT: "What is the time?",
        names.OUTPUT: json.dumps({"role": "assistant", "content": "Noon"}),
        names.METADATA_PREFIX + "outcome": "complete",
    }
    return SampleSpan(trace_id, span_id, None, "turn", {**trace_attributes(), **own})


def generation_span(
    trace_id: str = TRACE_ID, span_id: str = GENERATION_ID, parent: str = ROOT_ID
) -> SampleSpan:
    """A generation below the root."""
    own: dict[str, Value] = {
        names.TYPE: "generation",
        names.MODEL: "gpt-5",
        names.MODEL_PARAMETERS: json.dumps({"temperature": 1}),
        names.USAGE_DETAILS: json.dumps({"input": 120, "output": 30, "input_cached_tokens": 0}),
        names.COST_DETAILS: json.dumps({"input": 0.001, "output": 0.002, "total": 0.003}),
    }
    return SampleSpan(trace_id, span_id, parent, "gpt-5", {**trace_attributes(), **own})


def encode_protobuf(spans: Iterable[SampleSpan]) -> bytes:
    """An ExportTraceServiceRequest."""
    encoded = [
        Span(
            trace_id=bytes.fromhex(span.trace_id),
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent_span_id or ""),
            name=span.name,
            start_time_unix_nano=span.start,
            end_time_unix_nano=span.end,
            attributes=[KeyValue(key=key, value=_any_value(value)) for key, value in span.attributes.items()],
        )
        for span in spans
    ]
    request = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=encoded)])]
    )
    return bytes(request.SerializeToString())


def json_document(spans: Iterable[SampleSpan]) -> dict[str, Any]:
    """The same request as a JSON document, to bend before it is sent."""
    encoded = [
        {
            "traceId": span.trace_id,
            "spanId": span.span_id,
            "parentSpanId": span.parent_span_id or "",
            "name": span.name,
            "startTimeUnixNano": str(span.start),
            "endTimeUnixNano": str(span.end),
            "attributes": [
                {"key": key, "value": _json_value(value)} for key, value in span.attributes.items()
            ],
        }
        for span in spans
    ]
    return {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "sample"}, "spans": encoded}]}]}


def request_headers(
    *,
    public_key: str = DEFAULT_KEYS[0],
    secret_key: str = DEFAULT_KEYS[1],
    content_type: str = "application/x-protobuf",
) -> dict[str, str]:
    """What an export request must say about itself."""
    token = base64.b64encode(f"{public_key}:{secret_key}".encode()).decode()
    return {
        "Authorization": f"Basic {token}",
        "Content-Type": content_type,
        "x-langfuse-ingestion-version": "4",
    }


def compressed(body: bytes) -> bytes:
    """The body as `Content-Encoding: gzip` carries it."""
    return gzip.compress(body, compresslevel=1)


def _any_value(value: Value) -> AnyValue:
    if isinstance(value, AnyValue):
        return value
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=item) for item in value]))


def _json_value(value: Value) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, AnyValue):
        message = "bend the JSON document itself"
        raise TypeError(message)
    return {"arrayValue": {"values": [{"stringValue": item} for item in value]}}
