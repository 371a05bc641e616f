"""The walk of a backfill over a LibreChat in memory, in the order in which MongoDB sorts `_id`s."""

import asyncio
from datetime import datetime
from typing import Any

from bson import ObjectId

from tailer.core.backfill import Job
from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.flow.records import WalkedRows
from tailer.mongo.document_keys import from_key, to_key
from tests.memory.librechat import Document, MemoryLibreChat
from tests.memory.reader import read_stored_row

_TYPES: tuple[type, ...] = (int, str, dict, bytes, ObjectId, bool, datetime)


class MemoryWalk:
    """A `RowWalk`."""

    def __init__(self, librechat: MemoryLibreChat) -> None:
        self._librechat = librechat

    async def count(self, job: Job) -> int | None:
        await asyncio.sleep(0)
        return len(self._choose(job))

    async def read(self, job: Job, after: DocumentKey | None, limit: int) -> WalkedRows:
        await asyncio.sleep(0)
        documents = self._choose(job)
        if after is not None:
            bound = _order(from_key(after))
            documents = [document for document in documents if _order(document["_id"]) > bound]
        chunk = documents[:limit]
        if job.stream is not Stream.MESSAGES:
            keys = [to_key(document["_id"]) for document in chunk]
            return WalkedRows((), len(keys), keys[-1] if keys else None, keys)
        rows = [row for row in map(read_stored_row, chunk) if row is not None]
        return WalkedRows(rows, len(chunk), to_key(chunk[-1]["_id"]) if chunk else None)

    def _choose(self, job: Job) -> list[Document]:
        stored = sorted(self._librechat.find(job.stream.value), key=lambda document: _order(document["_id"]))
        return [document for document in stored if _belongs(document, job)]


def _belongs(document: Document, job: Job) -> bool:
    if job.conversation_id is not None:
        return bool(document.get("conversationId") == job.conversation_id)
    if job.since_seconds is None and job.until_seconds is None:
        return True
    made = document["_id"]
    if not isinstance(made, ObjectId):
        return False
    seconds = int(str(made)[:8], 16)
    return (job.since_seconds is None or seconds >= job.since_seconds) and (
        job.until_seconds is None or seconds <= job.until_seconds
    )


def _order(document_id: object) -> tuple[int, Any]:
    """The type comes first."""
    place = next(index for index, kind in enumerate(_TYPES) if type(document_id) is kind)
    return place, str(document_id) if isinstance(document_id, dict) else document_id
