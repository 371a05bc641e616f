"""Makes the spans of a trace smaller, for a receiver that takes less in one request.

What is cut are texts, the longest first, and each says how much is missing. Texts inside JSON are cut there, so that
what was JSON stays JSON. Ids, times, names, tokens and cost stay.
"""

import json
from collections.abc import Callable, Iterator
from typing import Final

from tailer.core.json_text import encode_json_bytes
from tailer.core.trace.cutting import CutRules, cut_spans, cut_text

_KEYS: Final = (
    b"gen_ai.input.messages",
    b"gen_ai.output.messages",
    b"gen_ai.system_instructions",
    b"gen_ai.tool.call.arguments",
    b"gen_ai.tool.call.result",
    b"gen_ai.retrieval.",
    b"librechat.",
)


def shrink_chunk(chunk: bytes) -> bytes | None:
    """The spans of a chunk with their longest texts cut to half; None where none is long enough."""
    return cut_spans(chunk, _RULES)


def _texts_in(value: bytes) -> Iterator[bytes]:
    document = _read_json(value)
    if document is None:
        yield value
        return
    found: list[bytes] = []
    _map_texts(document, lambda text: _note(found, text))
    yield from found


def _note(found: list[bytes], text: str) -> str:
    found.append(text.encode("utf-8", "replace"))
    return text


def _cut(value: bytes, limit: int) -> bytes:
    document = _read_json(value)
    if document is None:
        return cut_text(value, limit)
    shorter = _map_texts(
        document, lambda text: cut_text(text.encode("utf-8", "replace"), limit).decode("utf-8")
    )
    return encode_json_bytes(shorter)


def _read_json(value: bytes) -> object:
    """The array or object in a value, None for a plain text."""
    if not value.startswith((b"[", b"{")):
        return None
    try:
        document: object = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return document


def _map_texts(document: object, change: Callable[[str], str]) -> object:
    """The document with every text changed, but for the names of its fields."""
    if isinstance(document, str):
        return change(document)
    if isinstance(document, list):
        return [_map_texts(item, change) for item in document]
    if isinstance(document, dict):
        return {name: _map_texts(item, change) for name, item in document.items()}
    return document


_RULES: Final = CutRules(_KEYS, "librechat.cut_to_fit", _texts_in, _cut)
