"""Encodes traces as OTLP protobuf (`ExportTraceServiceRequest`) by hand: the wire format of a dozen fields.

A trace becomes a chunk of repeated `spans` fields. Chunks of any number of traces, joined and framed, are one request.
So a batch can be split without encoding anything again, and a retry has identical bytes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from struct import pack

from tailer.core.json_text import encode_json_bytes
from tailer.core.trace.observations import Level, Observation, Trace

_ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")
_LABEL_CHARACTERS = 200
"""Langfuse accepts no longer session and user ids, and longer names have no use."""
_METADATA_CHARACTERS = 4_000
"""Values that every span repeats must be short; a turn's texts are not repeated."""
_NANOSECONDS = 1_000_000
_SCOPE = "langfuse-sdk-librechat-tailer"
"""Under a scope that begins with `langfuse-sdk`, Langfuse does not copy every attribute of a span into its metadata.
Its other readings of scopes do not touch this one (server 4.16): the repair of spans of the Python SDK up to 3.3 wants
exactly `langfuse-sdk`, and the way into the tables is chosen by the header `x-langfuse-ingestion-version` before any
scope."""
_STATUS_ERROR = b"\x18\x02"  # Status.code = STATUS_CODE_ERROR


@dataclass(frozen=True, slots=True)
class SpanContext:
    """The values that every span of a deployment carries; `environment` and `release` as Langfuse accepts them."""

    environment: str
    release: str | None = None

    def __post_init__(self) -> None:
        """Refuse an environment that Langfuse would silently show as `default`."""
        if _ENVIRONMENT.fullmatch(self.environment) is None:
            message = f"environment {self.environment!r} is not 1 to 40 of a-z, 0-9, _ and -, not starting with langfuse"
            raise ValueError(message)


def encode_trace(trace: Trace, context: SpanContext) -> bytes:
    """The spans of a trace as one chunk for `frame_request`."""
    trace_id = b"\x0a\x10" + bytes.fromhex(trace.id)
    shared = b"".join(_shared_attributes(trace, context))
    return b"".join(
        encode_field(b"\x12", _encode_span(item, trace_id, shared, trace.metadata))
        for item in trace.observations
    )


def frame_request(chunks: Iterable[bytes], *, scope_version: str) -> bytes:
    """A whole request of the chunks of `encode_trace`, under one resource and one scope."""
    scope = encode_field(b"\x0a", _text(b"\x0a", _SCOPE) + _text(b"\x12", scope_version))
    resource = encode_field(
        b"\x0a", encode_field(b"\x0a", _attribute("service.name", _text(b"\x0a", "librechat-tailer")))
    )
    spans = list(chunks)
    scope_size = len(scope) + sum(map(len, spans))
    scope_head = b"\x12" + _varint(scope_size)
    head = b"\x0a" + _varint(len(resource) + len(scope_head) + scope_size)
    # Joined once, because a request is large.
    return b"".join((head, resource, scope_head, scope, *spans))


def _encode_span(item: Observation, trace_id: bytes, shared: bytes, metadata: Mapping[str, str]) -> bytes:
    pieces = [trace_id, b"\x12\x08", bytes.fromhex(item.id)]
    if item.parent_id is not None:
        pieces += (b"\x22\x08", bytes.fromhex(item.parent_id))
    pieces += (
        _text(b"\x2a", _label(item.name)),
        # SpanKind internal, then start and end as fixed 64 bit nanoseconds.
        b"\x30\x01\x39",
        pack("<Q", item.start_milliseconds * _NANOSECONDS),
        b"\x41",
        pack("<Q", max(item.start_milliseconds, item.end_milliseconds) * _NANOSECONDS),
        shared,
    )
    pieces += _observation_attributes(item, metadata)
    if item.level is Level.ERROR:
        message = _text(b"\x12", _printable(item.status_message or ""))
        pieces.append(encode_field(b"\x7a", message + _STATUS_ERROR))
    return b"".join(pieces)


def _shared_attributes(trace: Trace, context: SpanContext) -> Iterable[bytes]:
    yield _string_attribute("langfuse.trace.name", trace.name)
    yield _string_attribute("session.id", _label(trace.session_id))
    if trace.user_id is not None:
        yield _string_attribute("user.id", _label(trace.user_id))
    yield _string_attribute("langfuse.environment", context.environment)
    if context.release is not None:
        yield _string_attribute("langfuse.release", context.release)
    if trace.tags:
        values = b"".join(encode_field(b"\x0a", _text(b"\x0a", _printable(tag))) for tag in trace.tags)
        yield encode_field(b"\x4a", _attribute("langfuse.trace.tags", encode_field(b"\x2a", values)))
    for name, value in trace.metadata.items():
        yield _string_attribute(f"langfuse.trace.metadata.{name}", _printable(value[:_METADATA_CHARACTERS]))


def _observation_attributes(item: Observation, shared: Mapping[str, str]) -> Iterable[bytes]:
    yield _string_attribute("langfuse.observation.type", item.type.value)
    if item.level is not Level.DEFAULT:
        yield _string_attribute("langfuse.observation.level", item.level.value)
    if item.status_message is not None:
        yield _string_attribute("langfuse.observation.status_message", _printable(item.status_message))
    if item.model is not None:
        yield _string_attribute("langfuse.observation.model.name", _label(item.model))
    for name, value in (("input", item.input), ("output", item.output)):
        if value is not None:
            yield encode_string_attribute(f"langfuse.observation.{name}", _encode_content(value))
    for name, value in (
        ("model.parameters", item.model_parameters),
        ("usage_details", item.usage),
        ("cost_details", item.cost),
    ):
        if value is not None:
            yield encode_string_attribute(f"langfuse.observation.{name}", encode_json_bytes(value))
    yield from _own_metadata(item, shared)


def _own_metadata(item: Observation, shared: Mapping[str, str]) -> Iterable[bytes]:
    """What is noted of the observation alone: of one name Langfuse shows the trace's value only (4.16)."""
    for name, value in item.metadata.items():
        if name not in shared:
            yield _string_attribute(f"langfuse.observation.metadata.{name}", _printable(value))
        elif shared[name] != value:
            yield _string_attribute(f"langfuse.observation.metadata.observation_{name}", _printable(value))


def _encode_content(value: object) -> bytes:
    """A text as it is, as Langfuse's own SDK sends it: its search and its tables show what stands there. Everything
    else as JSON."""
    if isinstance(value, str):
        return _printable(value).encode("utf-8", "replace")
    return encode_json_bytes(value)


def _printable(text: str) -> str:
    # A NUL is legal in a stored text, but not in every database behind Langfuse.
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def _label(text: str) -> str:
    """A name or an id. Any program may have stored it, so it is made printable and short."""
    return _printable(text[:_LABEL_CHARACTERS])


def _string_attribute(key: str, value: str) -> bytes:
    # A lone surrogate has no UTF-8 form; the replacement keeps the message valid.
    return encode_string_attribute(key, value.encode("utf-8", "replace"))


def encode_string_attribute(key: str, value: bytes) -> bytes:
    """KeyValue{key, AnyValue{string_value}} as one piece: most of a trace's bytes are written here."""
    size = len(value)
    if size < _SHORT_SIZE:
        name = _key(key)
        head = _SHORT_SIZES[size]
        inner = 1 + len(head) + size
        inner_head = _SHORT_SIZES[inner]
        outer = len(name) + 1 + len(inner_head) + inner
        return b"".join((b"\x4a", _SHORT_SIZES[outer], name, b"\x12", inner_head, b"\x0a", head, value))
    return encode_field(b"\x4a", _key(key) + encode_field(b"\x12", encode_field(b"\x0a", value)))


def _attribute(key: str, any_value: bytes) -> bytes:
    return _key(key) + encode_field(b"\x12", any_value)


@lru_cache(maxsize=512)
def _key(name: str) -> bytes:
    """The name of an attribute, encoded once: all spans use a handful of names."""
    return _text(b"\x0a", name)


def _text(tag: bytes, text: str) -> bytes:
    # A lone surrogate has no UTF-8 form; the replacement keeps the message valid.
    return encode_field(tag, text.encode("utf-8", "replace"))


def encode_field(tag: bytes, payload: bytes) -> bytes:
    """A field with a length: its tag, the length and the payload."""
    size = len(payload)
    return tag + (_SHORT_SIZES[size] if size < len(_SHORT_SIZES) else _varint(size)) + payload


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - seven bits a byte, the eighth says that more follow
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_SHORT_SIZE = 0x4000 - 0x200
"""A value below this is short together with its name and frame; names have at most some hundred bytes."""
_SHORT_SIZES = tuple(map(_varint, range(0x4000)))
"""The sizes that take one or two bytes. Nearly all fields are that short, and a trace has forty of them."""
