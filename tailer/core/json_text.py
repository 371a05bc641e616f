"""JSON text of stored values: compact, deterministic, and without an exception for any value that a document can
hold."""

import json
import math
from json.encoder import JSONEncoder

import orjson

_DEPTH = 64
"""Deeper nesting is replaced: no honest document has it, and parsers fail on it."""

_NUMBER_BITS = 1_024
"""Longer integers are replaced: neither databases nor parsers accept them."""

_ENCODER = JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str, check_circular=False
)


def encode_json(value: object) -> str:
    """The value as JSON. ObjectIds and times become text, NaN and infinities null, deep nesting a mark."""
    try:
        return orjson.dumps(value, str, orjson.OPT_PASSTHROUGH_DATETIME).decode()
    except orjson.JSONEncodeError:
        return _encode_anything(value)


def encode_json_bytes(value: object) -> bytes:
    """The value as JSON in UTF-8. A character without a UTF-8 form (a lone surrogate) is replaced."""
    try:
        return orjson.dumps(value, str, orjson.OPT_PASSTHROUGH_DATETIME)
    except orjson.JSONEncodeError:
        return _encode_anything(value).encode("utf-8", "replace")


def _encode_anything(value: object) -> str:
    """Encodes what the fast encoder refuses: lone surrogates, keys that are not text, long integers, deep nesting."""
    try:
        return _ENCODER.encode(value)
    except (ValueError, TypeError, RecursionError):
        return _ENCODER.encode(_clean(value, _DEPTH))


def decode_json(text: str) -> object:
    """The JSON object or array in `text`, or `text` itself if it holds none (partial arguments of a stopped run)."""
    if not text.startswith(("{", "[")):
        return text
    try:
        decoded: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return decoded


def _clean(value: object, depth: int) -> object:
    if depth == 0:
        return "[nested too deep]"
    if isinstance(value, dict):
        return {str(name): _clean(inner, depth - 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner, depth - 1) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() > _NUMBER_BITS:
        return "[number too long]"
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
