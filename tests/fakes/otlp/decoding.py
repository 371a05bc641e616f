"""Decodes OTLP requests with the protocol's own parser, and refuses what a lenient one would overlook."""

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped, unused-ignore]
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

AttributeValue = str | bool | int | float | tuple[str, ...]


class BadRequest(Exception):
    """What the receiver answers 400 or 415 to."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span: ids as hex, times in nanoseconds since 1970, with the attributes of its resource."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: int
    start_nanoseconds: int
    end_nanoseconds: int
    attributes: Mapping[str, AttributeValue]
    status_code: int
    status_message: str
    resource: Mapping[str, AttributeValue]
    scope: tuple[str, str]
    schema_url: str


@dataclass(frozen=True, slots=True)
class ReceivedPoint:
    """One point of a histogram, with the name and unit of its metric."""

    metric: str
    unit: str
    temporality: int
    attributes: Mapping[str, AttributeValue]
    start_nanoseconds: int
    time_nanoseconds: int
    count: int
    sum: float
    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    resource: Mapping[str, AttributeValue]


def unpack(body: bytes, *, media: str, encoding: str | None) -> bytes:
    """The message in a body; raises BadRequest."""
    if media != "application/x-protobuf":
        raise BadRequest(f"content type {media!r}", 415)
    if encoding is None:
        return body
    if encoding != "gzip":
        raise BadRequest(f"content encoding {encoding!r}", 415)
    try:
        return gzip.decompress(body)
    except (OSError, EOFError) as error:
        raise BadRequest(f"no gzip: {error}") from error


def decode_spans(message: bytes) -> list[ReceivedSpan]:
    """The spans of a request in their order; raises BadRequest."""
    request = _parse(ExportTraceServiceRequest(), message)
    return [
        ReceivedSpan(
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_span_id=span.parent_span_id.hex() or None,
            name=span.name,
            kind=span.kind,
            start_nanoseconds=span.start_time_unix_nano,
            end_nanoseconds=span.end_time_unix_nano,
            attributes=_attributes(span.attributes),
            status_code=span.status.code,
            status_message=span.status.message,
            resource=_attributes(resource.resource.attributes),
            scope=(scope.scope.name, scope.scope.version),
            schema_url=scope.schema_url,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def decode_points(message: bytes) -> list[ReceivedPoint]:
    """The points of all histograms of a request; raises BadRequest for any other kind of metric."""
    return list(_points(_parse(ExportMetricsServiceRequest(), message)))


def _points(request: Any) -> Iterator[ReceivedPoint]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.WhichOneof("data") != "histogram":
                    raise BadRequest(f"metric {metric.name} is no histogram")
                for point in metric.histogram.data_points:
                    yield ReceivedPoint(
                        metric=metric.name,
                        unit=metric.unit,
                        temporality=metric.histogram.aggregation_temporality,
                        attributes=_attributes(point.attributes),
                        start_nanoseconds=point.start_time_unix_nano,
                        time_nanoseconds=point.time_unix_nano,
                        count=point.count,
                        sum=point.sum,
                        bounds=tuple(point.explicit_bounds),
                        buckets=tuple(point.bucket_counts),
                        resource=_attributes(resource.resource.attributes),
                    )


def _parse(request: Any, message: bytes) -> Any:
    try:
        request.ParseFromString(message)
    except DecodeError as error:
        raise BadRequest(f"no message: {error}") from error
    _refuse_unknown(request)
    return request


def _refuse_unknown(message: Message) -> None:
    if len(UnknownFieldSet(message)):
        raise BadRequest(f"unknown fields in {type(message).__name__}")
    for field, value in message.ListFields():
        if field.message_type is not None:
            inner = [value] if isinstance(value, Message) else value
            for item in inner:
                _refuse_unknown(item)


def _attributes(pairs: Any) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    for pair in pairs:
        if not pair.key or pair.key in found:
            raise BadRequest(f"attribute {pair.key!r} stands twice or has no name")
        found[pair.key] = _value(pair.key, pair.value)
    return found


def _value(key: str, value: Any) -> AttributeValue:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        texts = value.array_value.values
        if any(item.WhichOneof("value") != "string_value" for item in texts):
            raise BadRequest(f"attribute {key} is an array of mixed types")
        return tuple(item.string_value for item in texts)
    if kind not in ("string_value", "bool_value", "int_value", "double_value"):
        raise BadRequest(f"attribute {key} has no usable value")
    found: AttributeValue = getattr(value, kind)
    return found
