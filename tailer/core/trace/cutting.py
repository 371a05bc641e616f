"""Makes an encoded trace smaller, for a gateway that takes less than the destination does.

What is cut are texts, the longest first, and each says how much is missing. Ids, times, tokens and cost stay.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tailer.core.trace.otlp import encode_field, encode_string_attribute

_SHORTEST_BYTES: Final = 400
"""A text below this is not cut: a trace that is too large without longer texts cannot be helped."""
_CUT_KEYS: Final = (
    b"langfuse.observation.input",
    b"langfuse.observation.output",
    b"langfuse.observation.status_message",
    b"langfuse.observation.metadata.",
    b"langfuse.trace.metadata.",
)
_MARK: Final = re.compile(rb"\xe2\x80\xa6 \[cut: (\d+) bytes left out\]\Z")
_LENGTH_DELIMITED: Final = 2
_WIDTHS: Final = {1: 8, 5: 4}
_SPANS, _ATTRIBUTE, _STATUS = b"\x12", b"\x4a", b"\x7a"
_KEY, _VALUE, _TEXT, _MESSAGE = 1, 2, 1, 2


@dataclass(frozen=True, slots=True)
class CutRules:
    """What may be cut: the attributes whose names begin with `keys`; the texts in such a value, and the value with each
    of them at most so long; and the attribute that says that something was cut."""

    keys: tuple[bytes, ...]
    note: str
    texts: Callable[[bytes], Iterator[bytes]]
    cut: Callable[[bytes, int], bytes]


def cut_chunk(chunk: bytes) -> bytes | None:
    """The spans of a chunk for Langfuse with their longest texts cut to half; None where none is long enough."""
    return cut_spans(chunk, _LANGFUSE)


def cut_spans(chunk: bytes, rules: CutRules) -> bytes | None:
    """The spans of a chunk with their longest texts cut to half; None where none is long enough."""
    longest = max((len(text) for span in _payloads(chunk, 2) for text in _texts(span, rules)), default=0)
    if longest < _SHORTEST_BYTES:
        return None
    limit = longest // 2
    return b"".join(encode_field(_SPANS, _cut_span(span, limit, rules)) for span in _payloads(chunk, 2))


def read_fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, wire type and content of each field of a protobuf message: a number's own bytes, else the payload.

    Raises ValueError for bytes that are no message.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        start = at
        if kind == _LENGTH_DELIMITED:
            size, start = _read_varint(message, at)
            at = start + size
        elif kind == 0:
            _, at = _read_varint(message, at)
        elif kind in _WIDTHS:
            at += _WIDTHS[kind]
        else:
            raise ValueError("not a message")
        if at > len(message):
            raise ValueError("not a message")
        yield tag >> 3, kind, message[start:at]


def read_number(content: bytes) -> int:
    """The number in a field of wire type 0."""
    return _read_varint(content, 0)[0]


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:  # noqa: PLR2004 - ten groups of seven bits hold every number
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the eighth bit says that more follow
            return value, at
    raise ValueError("not a message")


def _payloads(message: bytes, number: int) -> Iterator[bytes]:
    return (content for found, _, content in read_fields(message) if found == number)


def _texts(span: bytes, rules: CutRules) -> Iterator[bytes]:
    for number, _, content in read_fields(span):
        if number == _ATTRIBUTE[0] >> 3:
            key, text = _read_attribute(content)
            if key.startswith(rules.keys) and text is not None:
                yield from rules.texts(text)
        elif number == _STATUS[0] >> 3:
            yield from _payloads(content, _MESSAGE)


def _read_attribute(content: bytes) -> tuple[bytes, bytes | None]:
    """Key and text of an attribute; None for a value that is no text."""
    fields = {number: payload for number, _, payload in read_fields(content)}
    return fields[_KEY], next(_payloads(fields[_VALUE], _TEXT), None)


def _cut_span(span: bytes, limit: int, rules: CutRules) -> bytes:
    pieces: list[bytes] = []
    was_cut = False
    noted = rules.note.encode() in span
    for number, kind, content in read_fields(span):
        changed = content
        if number == _ATTRIBUTE[0] >> 3:
            key, text = _read_attribute(content)
            if key.startswith(rules.keys) and text is not None and len(text) > limit:
                shorter = rules.cut(text, limit)
                was_cut = was_cut or shorter != text
                pieces.append(encode_string_attribute(key.decode(), shorter))
                continue
        elif number == _STATUS[0] >> 3:
            changed = b"".join(
                encode_field(b"\x12", cut_text(inner, limit))
                if found == _MESSAGE
                else _encode(found, inner_kind, inner)
                for found, inner_kind, inner in read_fields(content)
            )
        pieces.append(_encode(number, kind, changed))
    if was_cut and not noted:
        pieces.append(encode_string_attribute(rules.note, b"true"))
    return b"".join(pieces)


def cut_text(text: bytes, limit: int) -> bytes:
    """A text with at most so many bytes, which says how much is missing."""
    if len(text) <= limit:
        return text
    mark = _MARK.search(text)
    missing = int(mark[1]) if mark is not None else 0
    whole = text[: mark.start()] if mark is not None else text
    kept = whole[: max(0, limit - 60)].decode("utf-8", "ignore").encode()
    return kept + f"… [cut: {missing + len(whole) - len(kept)} bytes left out]".encode()


def _encode(number: int, kind: int, content: bytes) -> bytes:
    tag = bytes([number << 3 | kind])
    return encode_field(tag, content) if kind == _LENGTH_DELIMITED else tag + content


def _whole(text: bytes) -> Iterator[bytes]:
    yield text


_LANGFUSE: Final = CutRules(_CUT_KEYS, "langfuse.observation.metadata.cut_to_fit", _whole, cut_text)
