"""Decodes OTLP trace exports, protobuf or JSON, into spans.

Owns the wire format and nothing else: it refuses what cannot be read at all and leaves every judgement
about the content to the rules. Values that Langfuse cannot read stay visible as `Unsupported`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fakes.langfuse.request_body import PROTOBUF, RefusedRequestError, media_type


@dataclass(frozen=True, slots=True)
class Unsupported:
    """An attribute value that is neither a primitive nor an array of strings, with the name of its shape."""

    shape: str


AttributeValue = str | bool | int | float | tuple[str, ...] | Unsupported


@dataclass(frozen=True, slots=True)
class DecodedSpan:
    """One span as it was sent: ids as text (hex where they were bytes), times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    start_nanoseconds: int
    end_nanoseconds: int
    attributes: Mapping[str, AttributeValue]
    status_code: int = 0
    status_message: str = ""
    scope_name: str = ""
    size_bytes: int = 0
    repeated_keys: tuple[str, ...] = field(default=())

    @property
    def key(self) -> tuple[str, str]:
        """Trace id and span id: what Langfuse would have to deduplicate by."""
        return self.trace_id, self.span_id

    def text(self, key: str) -> str | None:
        """The attribute `key` when it is a string, else None."""
        value = self.attributes.get(key)
        return value if isinstance(value, str) else None


def decode_spans(body: bytes, content_type: str) -> list[DecodedSpan]:
    """All spans of an export request in the order in which they were sent."""
    if media_type(content_type) == PROTOBUF:
        return list(_spans_of_protobuf(_parse_protobuf(body)))
    return list(_spans_of_json(body))


def span_keys(body: bytes, content_type: str) -> list[bytes]:
    """Trace id and span id of every span as bytes: all that a benchmark needs, at little cost."""
    if media_type(content_type) == PROTOBUF:
        return [
            span.trace_id + span.span_id
            for resource in _parse_protobuf(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    try:
        return [bytes.fromhex(span.trace_id + span.span_id) for span in _spans_of_json(body)]
    except ValueError as error:
        raise RefusedRequestError(400, "traceId and spanId must be hex in JSON") from error


def _parse_protobuf(body: bytes) -> ExportTraceServiceRequest:
    try:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
    except DecodeError as error:
        raise RefusedRequestError(400, "Failed to parse OTel Protobuf Trace") from error
    return request


def _spans_of_protobuf(request: ExportTraceServiceRequest) -> Iterator[DecodedSpan]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                attributes, repeated = _collect(
                    (item.key, _protobuf_value(item.value)) for item in span.attributes
                )
                yield DecodedSpan(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_span_id=span.parent_span_id.hex() or None,
                    name=span.name,
                    start_nanoseconds=span.start_time_unix_nano,
                    end_nanoseconds=span.end_time_unix_nano,
                    attributes=attributes,
                    status_code=int(span.status.code),
                    status_message=span.status.message,
                    scope_name=scope.scope.name,
                    size_bytes=span.ByteSize(),
                    repeated_keys=repeated,
                )


def _protobuf_value(value: Any) -> AttributeValue:
    shape = value.WhichOneof("value")
    if shape in {"string_value", "bool_value", "int_value", "double_value"}:
        primitive: str | bool | int | float = getattr(value, shape)
        return primitive
    if shape == "array_value":
        return _array([_protobuf_value(item) for item in value.array_value.values])
    return Unsupported(shape or "empty")


def _spans_of_json(body: bytes) -> Iterator[DecodedSpan]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise RefusedRequestError(400, "Failed to parse OTel JSON Trace") from error
    for resource in _array_of(document, "resourceSpans"):
        for scope in _array_of(resource, "scopeSpans"):
            scope_name = str((scope.get("scope") or {}).get("name", ""))
            for span in _array_of(scope, "spans"):
                yield _span_of_json(span, scope_name)


def _span_of_json(span: Mapping[str, Any], scope_name: str) -> DecodedSpan:
    pairs = [(str(item.get("key")), _json_value(item.get("value"))) for item in _array_of(span, "attributes")]
    attributes, repeated = _collect(pairs)
    status = span.get("status") or {}
    parent = span.get("parentSpanId")
    return DecodedSpan(
        trace_id=str(span.get("traceId", "")),
        span_id=str(span.get("spanId", "")),
        parent_span_id=None if parent in {None, ""} else str(parent),
        name=str(span.get("name", "")),
        start_nanoseconds=_nanoseconds(span, "startTimeUnixNano"),
        end_nanoseconds=_nanoseconds(span, "endTimeUnixNano"),
        attributes=attributes,
        status_code=int(status.get("code", 0)),
        status_message=str(status.get("message", "")),
        scope_name=scope_name,
        size_bytes=len(json.dumps(span, ensure_ascii=False, separators=(",", ":")).encode()),
        repeated_keys=repeated,
    )


def _array_of(container: Any, name: str) -> list[dict[str, Any]]:
    found = container.get(name, []) if isinstance(container, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise RefusedRequestError(400, f"Invalid OTLP trace export: {name} must be an array of objects")
    return found


def _nanoseconds(span: Mapping[str, Any], name: str) -> int:
    try:
        return int(span.get(name, 0))
    except (TypeError, ValueError) as error:
        raise RefusedRequestError(
            400, f"Invalid OTLP trace export: {name} must be a decimal number"
        ) from error


def _whole_number(value: Any) -> AttributeValue:
    try:
        return int(value)
    except (TypeError, ValueError):
        return Unsupported("intValue that is no number")


_JSON_PRIMITIVES: Mapping[str, Callable[[Any], AttributeValue]] = {
    "stringValue": lambda value: (
        value if isinstance(value, str) else Unsupported("stringValue that is no string")
    ),
    "boolValue": lambda value: (
        value if isinstance(value, bool) else Unsupported("boolValue that is no boolean")
    ),
    "intValue": _whole_number,
    "doubleValue": lambda value: (
        float(value) if isinstance(value, int | float) else Unsupported("doubleValue")
    ),
}


def _json_value(value: Any) -> AttributeValue:
    if not isinstance(value, dict) or len(value) != 1:
        return Unsupported("empty")
    ((shape, content),) = value.items()
    if shape in _JSON_PRIMITIVES:
        return _JSON_PRIMITIVES[shape](content)
    if shape == "arrayValue" and isinstance(content, dict):
        return _array([_json_value(item) for item in content.get("values", [])])
    return Unsupported(str(shape))


def _array(values: list[AttributeValue]) -> AttributeValue:
    strings = tuple(value for value in values if isinstance(value, str))
    return strings if len(strings) == len(values) else Unsupported("array with values that are no strings")


def _collect(
    pairs: Iterable[tuple[str, AttributeValue]],
) -> tuple[dict[str, AttributeValue], tuple[str, ...]]:
    attributes: dict[str, AttributeValue] = {}
    repeated: list[str] = []
    for key, value in pairs:
        if key in attributes:
            repeated.append(key)
        attributes[key] = value
    return attributes, tuple(repeated)
