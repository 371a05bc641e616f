"""Document keys as text and back: an ObjectId as its 24 hex digits, any other `_id` as its own BSON."""

from typing import Any

import bson
from bson import ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion

from tailer.core.identity import DocumentKey

_OTHER = "~"

TOLERANT: CodecOptions[Any] = CodecOptions(
    document_class=dict,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""Reads whatever any program may have stored: broken UTF-8, and years that a `datetime` cannot hold."""


def to_key(document_id: object) -> DocumentKey:
    """The key of an `_id` of any BSON type."""
    if isinstance(document_id, ObjectId):
        return DocumentKey(str(document_id))
    return DocumentKey(_OTHER + bson.encode({"": document_id}).hex())


def from_key(key: DocumentKey) -> object:
    """The `_id` of a key."""
    if key.startswith(_OTHER):
        return bson.decode(bytes.fromhex(key[1:]), TOLERANT)[""]
    return ObjectId(key)
