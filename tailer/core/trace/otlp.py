"""Encodes traces as OTLP protobuf (`ExportTraceServiceRequest`) by hand: the wire format of a dozen fields.

A trace becomes a chunk of repeated `spans` fields. Chunks of any number of traces, joined and framed, are one request.
So a batch can be split without encoding anything again, and a retry has identical bytes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from tailer.core.json_text import encode_json_bytes
from tailer.core.trace.observations import Level, Observation, Trace

_ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")
_LABEL_CHARACTERS = 200
"""Langfuse accepts no longer session and user ids, and longer names have no use."""
_METADATA_CHARACTERS = 4_000
"""Values that every span repeats must be short; a turn's texts are not repeated."""
_NANOSECONDS = 1_000_000
_SCOPE = b"langfuse-sdk-librechat-tailer"
"""Under a scope that begins with `langfuse-sdk`, Langfuse does not copy every attribute of a span into its metadata.
Its other readings of scopes do not touch this one (server 4.16): the repair of spans of the Python SDK up to 3.3 wants
exactly `langfuse-sdk`, and the way into the tables is chosen by the header `x-langfuse-ingestion-version` before any
scope."""
_OF_ONE_TRACE = frozenset({"message_id", "parent_message_id"})
"""Metadata of a trace that no other one has; all the rest recurs, in a conversation at the least."""
_OF_FEW_VALUES = frozenset({"usage_source", "cost_source", "timing", "calls", "assignment"})
"""Metadata of an observation that has one of a few values."""
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
    head = b"\x0a\x10" + bytes.fromhex(trace.id) + b"\x12\x08"
    shared = _shared_attributes(trace, context)
    chunk: list[bytes] = []
    for item in trace.observations:
        span = _encode_span(item, head, shared, trace.metadata)
        chunk += (b"\x12", _varint(len(span)), span)
    return b"".join(chunk)


def frame_request(chunks: Iterable[bytes], *, scope_version: str) -> bytes:
    """A whole request of the chunks of `encode_trace`, under one resource and one scope."""
    scope = encode_field(
        b"\x0a", encode_field(b"\x0a", _SCOPE) + encode_field(b"\x12", scope_version.encode())
    )
    service = encode_field(b"\x0a", b"librechat-tailer")
    resource = encode_field(b"\x0a", encode_field(b"\x0a", _attribute("service.name", service)))
    spans = list(chunks)
    scope_size = len(scope) + sum(map(len, spans))
    scope_head = b"\x12" + _varint(scope_size)
    head = b"\x0a" + _varint(len(resource) + len(scope_head) + scope_size)
    # Joined once, because a request is large.
    return b"".join((head, resource, scope_head, scope, *spans))


def _encode_span(item: Observation, head: bytes, shared: bytes, metadata: Mapping[str, str]) -> bytes:
    pieces = [head, bytes.fromhex(item.id)]
    if item.parent_id is not None:
        pieces += (b"\x22\x08", bytes.fromhex(item.parent_id))
    name = _label(item.name)
    start, end = item.start_milliseconds, item.end_milliseconds
    pieces += (
        b"\x2a",
        _varint(len(name)),
        name,
        # SpanKind internal, then start and end as fixed 64 bit nanoseconds.
        _TIMES.pack(b"\x30\x01\x39", start * _NANOSECONDS, b"\x41", max(start, end) * _NANOSECONDS),
        shared,
    )
    _add_observation(pieces, item)
    if item.metadata:
        _add_own_metadata(pieces, item.metadata, metadata)
    if item.level is Level.ERROR:
        message = encode_field(b"\x12", _wire(item.status_message or ""))
        pieces.append(encode_field(b"\x7a", message + _STATUS_ERROR))
    return b"".join(pieces)


def _shared_attributes(trace: Trace, context: SpanContext) -> bytes:
    """What every span of a trace carries."""
    pieces = [
        _recurring("langfuse.trace.name", trace.name),
        _recurring("session.id", trace.session_id[:_LABEL_CHARACTERS]),
    ]
    if trace.user_id is not None:
        pieces.append(_recurring("user.id", trace.user_id[:_LABEL_CHARACTERS]))
    pieces.append(_recurring("langfuse.environment", context.environment))
    if context.release is not None:
        pieces.append(_recurring("langfuse.release", context.release))
    if trace.tags:
        values = b"".join(encode_field(b"\x0a", encode_field(b"\x0a", _wire(tag))) for tag in trace.tags)
        pieces.append(encode_field(b"\x4a", _attribute("langfuse.trace.tags", encode_field(b"\x2a", values))))
    for name, value in trace.metadata.items():
        if name in _OF_ONE_TRACE or len(value) > _LABEL_CHARACTERS:
            _add(pieces, _trace_key(name), _wire(value[:_METADATA_CHARACTERS]))
        else:
            pieces.append(_recurring_of_trace(name, value))
    return b"".join(pieces)


def _add_observation(pieces: list[bytes], item: Observation) -> None:
    pieces.append(_recurring("langfuse.observation.type", item.type))
    if item.level is not Level.DEFAULT:
        pieces.append(_recurring("langfuse.observation.level", item.level))
    if item.status_message is not None:
        _add(pieces, _STATUS_MESSAGE, _wire(item.status_message))
    if item.model is not None:
        _add(pieces, _MODEL, _label(item.model))
    if item.input is not None:
        _add(pieces, _INPUT, _encode_content(item.input))
    if item.output is not None:
        _add(pieces, _OUTPUT, _encode_content(item.output))
    if item.model_parameters is not None:
        _add(pieces, _PARAMETERS, encode_json_bytes(item.model_parameters))
    if item.usage is not None:
        _add(pieces, _USAGE, encode_json_bytes(item.usage))
    if item.cost is not None:
        _add(pieces, _COST, encode_json_bytes(item.cost))


def _add_own_metadata(pieces: list[bytes], own: Mapping[str, str], shared: Mapping[str, str]) -> None:
    """What is noted of the observation alone: of one name Langfuse shows the trace's value only (4.16)."""
    for name, value in own.items():
        if name not in shared:
            if name in _OF_FEW_VALUES:
                pieces.append(_recurring_of_observation(name, value))
            else:
                _add(pieces, _own_key(name), _wire(value))
        elif shared[name] != value:
            _add(pieces, _own_key(f"observation_{name}"), _wire(value))


def _encode_content(value: object) -> bytes:
    """A text as it is, as Langfuse's own SDK sends it: its search and its tables show what stands there. Everything
    else as JSON."""
    return _wire(value) if isinstance(value, str) else encode_json_bytes(value)


def _wire(text: str) -> bytes:
    """A stored text in UTF-8. A lone surrogate has no form there, and a NUL is not for every database behind
    Langfuse: both are replaced."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        encoded = text.encode("utf-8", "replace")
    return encoded.replace(b"\0", _REPLACEMENT) if b"\0" in encoded else encoded


def _label(text: str) -> bytes:
    """A name or an id. Any program may have stored it, so it is made printable and short."""
    return _wire(text[:_LABEL_CHARACTERS])


def encode_string_attribute(key: str, value: bytes) -> bytes:
    """KeyValue{key, AnyValue{string_value}}."""
    pieces: list[bytes] = []
    _add(pieces, _key(key), value)
    return b"".join(pieces)


def _add(pieces: list[bytes], key: bytes, value: bytes) -> None:
    """Add a text attribute to the pieces of a span: most of a trace's bytes are written here, and copied once."""
    size = len(value)
    frame = _FRAMES[size] if size < _TABLED else _frame(size)
    whole = len(key) + len(frame) + size
    pieces += (_HEADS[whole] if whole < _TABLED else b"\x4a" + _varint(whole), key, frame, value)


def _attribute(key: str, any_value: bytes) -> bytes:
    return _key(key) + encode_field(b"\x12", any_value)


@lru_cache(maxsize=512)
def _key(name: str) -> bytes:
    """The name of an attribute, encoded once: all spans use a handful of names."""
    return encode_field(b"\x0a", name.encode("utf-8", "replace"))


@lru_cache(maxsize=512)
def _trace_key(name: str) -> bytes:
    return _key(f"langfuse.trace.metadata.{name}")


@lru_cache(maxsize=512)
def _own_key(name: str) -> bytes:
    return _key(f"langfuse.observation.metadata.{name}")


@lru_cache(maxsize=512)
def _recurring(key: str, value: str) -> bytes:
    """A short attribute that many spans or traces have, encoded once for all of them."""
    return encode_string_attribute(key, _wire(value))


@lru_cache(maxsize=512)
def _recurring_of_trace(name: str, value: str) -> bytes:
    return encode_string_attribute(f"langfuse.trace.metadata.{name}", _wire(value))


@lru_cache(maxsize=64)
def _recurring_of_observation(name: str, value: str) -> bytes:
    return encode_string_attribute(f"langfuse.observation.metadata.{name}", _wire(value))


def encode_field(tag: bytes, payload: bytes) -> bytes:
    """A field with a length: its tag, the length and the payload."""
    return tag + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    return _SIZES[number] if number < _TABLED else _write_varint(number)


def _write_varint(number: int) -> bytes:
    if 0x80 <= number < 0x4000:  # noqa: PLR2004 - two bytes, as most lengths are that are not looked up
        return bytes((number & 0x7F | 0x80, number >> 7))
    digits = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - seven bits a byte, the eighth says that more follow
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _frame(size: int) -> bytes:
    """What stands between the key and the text of an attribute: AnyValue with its length, string_value with its."""
    inner = b"\x0a" + _write_varint(size)
    return b"\x12" + _write_varint(len(inner) + size) + inner


_TABLED = 0x800
"""The sizes below this are looked up: nearly all fields are that short, and a trace has some hundred of them."""
_SIZES = tuple(map(_write_varint, range(_TABLED)))
_FRAMES = tuple(map(_frame, range(_TABLED)))
_HEADS = tuple(b"\x4a" + size for size in _SIZES)
_TIMES = Struct("<3sQ1sQ")
_REPLACEMENT = "\ufffd".encode()
_STATUS_MESSAGE = _key("langfuse.observation.status_message")
_MODEL = _key("langfuse.observation.model.name")
_INPUT = _key("langfuse.observation.input")
_OUTPUT = _key("langfuse.observation.output")
_PARAMETERS = _key("langfuse.observation.model.parameters")
_USAGE = _key("langfuse.observation.usage_details")
_COST = _key("langfuse.observation.cost_details")
