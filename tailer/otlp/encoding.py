"""Encodes traces as OTLP protobuf (`ExportTraceServiceRequest`), as `core/trace/otlp.py` does for Langfuse.

A trace becomes a chunk of repeated `spans` fields, and a request is its head and its chunks. So a batch comes apart
again without encoding anything anew, and a retry has identical bytes.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from tailer import __version__
from tailer.core.identity import ObservationId, TraceId
from tailer.core.trace.observations import Trace
from tailer.core.trace.otlp import encode_field
from tailer.otlp.conventions import SCHEMA_URL, SpanShape, describe_span
from tailer.otlp.options import OtlpOptions
from tailer.otlp.wire import Attributes, encode_attributes, encode_number, encode_text, encode_time

SCOPE_NAME: Final = "librechat-tailer"
_ATTRIBUTE_OF_SPAN: Final = b"\x4a"
_ERROR_CODE: Final = b"\x18\x02"  # Status.code = STATUS_CODE_ERROR


def encode_trace(trace: Trace) -> bytes:
    """The spans of a trace as one chunk for `frame_request`."""
    return b"".join(
        encode_span(
            trace.id,
            item.id,
            item.parent_id,
            describe_span(trace, item, leads=number == 0),
            times=(item.start_milliseconds, item.end_milliseconds),
        )
        for number, item in enumerate(trace.observations)
    )


def encode_span(
    trace_id: TraceId,
    span_id: ObservationId,
    parent_id: ObservationId | None,
    shape: SpanShape,
    *,
    times: tuple[int, int],
) -> bytes:
    """One span as a chunk; `times` are its start and end in milliseconds since 1970."""
    start, end = times
    pieces = [
        encode_field(b"\x0a", bytes.fromhex(trace_id)),
        encode_field(b"\x12", bytes.fromhex(span_id)),
        encode_field(b"\x22", bytes.fromhex(parent_id)) if parent_id is not None else b"",
        encode_text(b"\x2a", shape.name),
        encode_number(b"\x30", shape.kind),
        encode_time(b"\x39", start),
        encode_time(b"\x41", max(start, end)),
        encode_attributes(_ATTRIBUTE_OF_SPAN, shape.attributes),
    ]
    if shape.failure is not None:
        pieces.append(encode_field(b"\x7a", encode_text(b"\x12", shape.failure) + _ERROR_CODE))
    return encode_field(b"\x12", b"".join(pieces))


def describe_resource(options: OtlpOptions, *, environment: str | None, release: str | None) -> Attributes:
    """What every span comes from. The operator's own attributes win."""
    stated = {
        "service.name": options.service_name,
        "service.version": release,
        "deployment.environment.name": environment,
        "telemetry.sdk.name": SCOPE_NAME,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }
    return {**{name: value for name, value in stated.items() if value is not None}, **options.resource}


def encode_resource(attributes: Attributes) -> bytes:
    """The resource of a request, the same field for spans and metrics."""
    return encode_field(b"\x0a", encode_attributes(b"\x0a", attributes))


def encode_scope() -> bytes:
    """The instrumentation scope, the same field for spans and metrics."""
    return encode_field(b"\x0a", encode_text(b"\x0a", SCOPE_NAME) + encode_text(b"\x12", __version__))


def frame_request(resource: bytes, chunks: Iterable[bytes]) -> bytes:
    """A whole request: one resource, one scope with the schema of the conventions, and the chunks at the end."""
    scope_spans = b"".join((encode_scope(), encode_text(b"\x1a", SCHEMA_URL), *chunks))
    return encode_field(b"\x0a", resource + encode_field(b"\x12", scope_spans))


def read_chunks(request: bytes, chunk_bytes: Sequence[int]) -> list[bytes]:
    """The chunks of a request, which are at its end, given their lengths."""
    chunks, start = [], len(request) - sum(chunk_bytes)
    for size in chunk_bytes:
        chunks.append(request[start : start + size])
        start += size
    return chunks
