"""The ids in LibreChat's data, and how to move or replace one without breaking its references.

Owns which texts are ids and what their new value is. Every function is deterministic, so the id of a played document
follows from the recorded one. It refuses to touch anything else in a text.
"""

import hashlib
import re
from datetime import timedelta
from typing import Final
from uuid import UUID

from bson import ObjectId

NO_PARENT: Final = "00000000-0000-0000-0000-000000000000"
"""LibreChat's parentMessageId of a conversation's first message."""

_UUID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-f])")
# A saved agent's id is "agent_" and a nanoid of 21 characters; names of hand-off tools carry it in them.
_AGENT_ID: Final = re.compile(r"(?<![A-Za-z0-9])agent_[A-Za-z0-9_-]{21}(?![A-Za-z0-9_-])")
_ONE_SECOND: Final = timedelta(seconds=1)


def whole_seconds(interval: timedelta) -> timedelta:
    """The interval without its fraction of a second, rounded down."""
    return interval // _ONE_SECOND * _ONE_SECOND


def shift_object_id(object_id: ObjectId, *, by: timedelta) -> ObjectId:
    """Move the ObjectId's timestamp by whole seconds and keep its other 8 bytes."""
    seconds = (int.from_bytes(object_id.binary[:4], "big") + by // _ONE_SECOND) % 2**32
    return ObjectId(seconds.to_bytes(4, "big") + object_id.binary[4:])


def rename_object_id(object_id: ObjectId, *, salt: str) -> ObjectId:
    """Give the ObjectId another process part. Timestamp and counter stay, so ids keep their order."""
    mask = hashlib.sha256(salt.encode()).digest()
    process = bytes(old ^ new for old, new in zip(object_id.binary[4:9], mask, strict=False))
    return ObjectId(object_id.binary[:4] + process + object_id.binary[9:])


def rename_text(text: str, *, salt: str) -> str:
    """Replace every UUID except NO_PARENT and every agent id inside the text."""

    def digest(identifier: str) -> "hashlib._Hash":
        return hashlib.sha256(f"{salt}:{identifier}".encode())

    def rename_uuid(match: re.Match[str]) -> str:
        old = match[0]
        return old if old == NO_PARENT else str(UUID(bytes=digest(old).digest()[:16], version=4))

    with_fresh_uuids = _UUID.sub(rename_uuid, text)
    return _AGENT_ID.sub(lambda match: f"agent_{digest(match[0]).hexdigest()[:21]}", with_fresh_uuids)
