"""The protobuf of attributes, for spans, resources and data points. One home for every type of value that we send."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import pack
from typing import Final, TypeAlias

from tailer.core.trace.otlp import encode_field

Value: TypeAlias = str | bool | int | float | tuple[str, ...]
"""The types of attributes that every back end takes."""
Attributes: TypeAlias = Mapping[str, Value]

_GREATEST: Final = 2**63 - 1
_DIGITS: Final = 100


def encode_attributes(tag: bytes, attributes: Attributes) -> bytes:
    """Each attribute as a field of a message: KeyValue{key, AnyValue}."""
    return b"".join(
        encode_field(tag, _key(name) + encode_field(b"\x12", _any_value(value)))
        for name, value in attributes.items()
    )


def encode_text(tag: bytes, text: str) -> bytes:
    """A text field. NUL is legal in a stored text, but not in every database behind a receiver."""
    # A lone surrogate has no UTF-8 form; the replacement keeps the message valid.
    return encode_field(tag, text.replace("\x00", "\ufffd").encode("utf-8", "replace"))


def encode_number(tag: bytes, number: int) -> bytes:
    """An integer field; negative numbers take ten bytes, as protobuf has it."""
    return tag + _varint(number & 0xFFFF_FFFF_FFFF_FFFF)


def encode_time(tag: bytes, milliseconds: int) -> bytes:
    """A time as fixed 64 bit nanoseconds since 1970; one before that is 1970."""
    return tag + pack("<Q", max(0, milliseconds) * 1_000_000)


def fits(number: int) -> bool:
    """Whether an integer is one of 64 bits."""
    return -_GREATEST - 1 <= number <= _GREATEST


@lru_cache(maxsize=512)
def _key(name: str) -> bytes:
    return encode_text(b"\x0a", name)


def _any_value(value: Value) -> bytes:
    if isinstance(value, str):
        return encode_text(b"\x0a", value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        # A longer number is one of a broken document.
        return encode_number(b"\x18", value) if fits(value) else encode_text(b"\x0a", str(value)[:_DIGITS])
    if isinstance(value, float):
        return b"\x21" + pack("<d", value)
    return encode_field(b"\x2a", _array(value))


def _array(texts: Iterable[str]) -> bytes:
    return b"".join(encode_field(b"\x0a", encode_text(b"\x0a", text)) for text in texts)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - seven bits a byte, the eighth says that more follow
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
