"""Images, sound, video and other bytes as short placeholders: `[image/png, 1.5 MB]`. Bytes never become text.

A part may hold a data URI, an address, or the names of a stored file. A tool's output may hold bytes anywhere in its
text, as a data URI or, in the protocols of image tools, as plain base64.
"""

import re
from typing import Final

from tailer.core.librechat.bson_values import Document, filled_string, mapping, string

_MEDIA_TYPES: Final = {
    "image": "image",
    "image_url": "image",
    "image_file": "image",
    "audio": "audio",
    "input_audio": "audio",
    "audio_url": "audio",
    "video": "video",
    "video_url": "video",
    "file": "file",
    "document": "file",
}
_ADDRESSES: Final = ("url", "filename", "filepath", "file_id")
_MOST_NAME_CHARACTERS: Final = 500
_DATA_URI: Final = re.compile(
    r"data:([\w.+-]{1,60}/[\w.+-]{1,60})?(?:;[\w.=+-]{1,60})*;base64,([A-Za-z0-9+/_=%-]*)"
)
_BARE: Final = re.compile(
    r"[A-Za-z0-9+/]{400,}={0,2}|(?:[A-Za-z0-9+/]{60,}(?:\r?\n|\\n)){5,}[A-Za-z0-9+/]*={0,2}"
)
"""In one piece, or in lines."""
_SHORTEST_BARE: Final = 400
_SHORTEST_LINE: Final = 60
_OF_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_RUNS: Final = bytes(ord("a") if byte in _OF_BASE64 else ord(" ") for byte in range(256))
"""Turns each character of base64 into the same letter, so that a run of them is found as a text."""
_RUN: Final = b"a" * _SHORTEST_LINE
_UNITS: Final = ((1_000_000, "MB"), (1_000, "kB"))
_MARKS: Final = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))


def is_media(part_type: object) -> bool:
    """Whether a part of this type is an image, sound, a video or a file."""
    # Not `isinstance`: BSON's code type is a kind of text that has no hash.
    return type(part_type) is str and part_type in _MEDIA_TYPES


def describe_media(part: Document) -> str:
    """The placeholder of a media part."""
    part_type = string(part.get("type")) or ""
    kind, inner = _MEDIA_TYPES.get(part_type, "media"), part.get(part_type)
    fields = mapping(inner) or part
    data = string(fields.get("data")) or string(mapping(part.get("source")).get("data"))
    told = filled_string(fields.get("mimeType")) or filled_string(fields.get("media_type"))
    form = filled_string(fields.get("format"))
    mime = told or (kind if form is None else f"{kind}/{form}")
    if data and not data.startswith("data:"):
        return _placeholder(mime[:_MOST_NAME_CHARACTERS], len(data))
    texts = [string(inner), data, *(string(fields.get(name)) for name in _ADDRESSES)]
    for text in texts:
        uri = _DATA_URI.match(text or "")
        if uri is not None:
            return _placeholder(uri.group(1) or kind, len(uri.group(2)))
    address = next((text for text in texts if text), None)
    return f"[{kind}: {address[:_MOST_NAME_CHARACTERS]}]" if address else f"[{kind}]"


def without_data_uris(text: str) -> str:
    """A text with placeholders in place of data URIs."""
    if "base64," not in text:
        return text
    return _DATA_URI.sub(lambda found: _placeholder(found.group(1) or "data", len(found.group(2))), text)


def without_bytes(text: str) -> str:
    """A tool's text with placeholders in place of data URIs and of long stretches of base64."""
    shown = without_data_uris(text)
    if len(shown) < _SHORTEST_BARE or not _may_hold_base64(shown):
        return shown
    return _BARE.sub(_replace_bare, shown)


def _may_hold_base64(text: str) -> bool:
    """Whether enough characters of base64 stand together. The expression takes ten times as long to find none."""
    return _RUN in text.encode("utf-8", "surrogatepass").translate(_RUNS)


def _replace_bare(found: re.Match[str]) -> str:
    run = found.group()
    # A row of dashes, a long number or a hexadecimal digest is text; base64 has all three kinds of characters.
    if all(mark.search(run) for mark in _MARKS):
        return _placeholder("data", len(run))
    return run


def _placeholder(kind: str, base64_characters: int) -> str:
    size = base64_characters * 3 // 4
    for factor, unit in _UNITS:
        if size >= factor:
            return f"[{kind}, {size / factor:.1f} {unit}]"
    return f"[{kind}, {size} bytes]"
