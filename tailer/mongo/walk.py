"""Walks a collection in the order of `_id`, by its index, without content.

Where a job has times only ObjectIds are walked, because other `_id`s hold none; a job without times walks them all.
"""

from typing import Any

from bson import ObjectId
from pymongo.errors import ExecutionTimeout

from tailer.core.backfill import Job
from tailer.core.identity import LAST_SECOND, DocumentKey
from tailer.core.stream.hints import Stream
from tailer.flow.records import WalkedRows
from tailer.mongo.collections import Collections
from tailer.mongo.connection import Database
from tailer.mongo.document_keys import from_key, to_key
from tailer.mongo.failures import passes
from tailer.mongo.message_rows import ROW_FIELDS

_COUNT_MILLISECONDS = 20_000
_ID_INDEX = [("_id", 1)]


class MongoWalk:
    """A `RowWalk` over LibreChat's database."""

    def __init__(self, database: Database, collections: Collections) -> None:
        self._database = database
        self._collections = collections

    async def count(self, job: Job) -> int | None:
        """The rows of a job, None where counting takes too long."""
        hint = None if job.conversation_id is not None else "_id_"

        async def count() -> int:
            options: dict[str, Any] = {} if hint is None else {"hint": hint}
            return int(
                await self._database[job.stream.value].count_documents(
                    _query(job), maxTimeMS=_COUNT_MILLISECONDS, **options
                )
            )

        try:
            return await self._collections.ask(job.stream.value, count, passing=_passes_but_timeouts)
        except ExecutionTimeout:
            return None

    async def read(self, job: Job, after: DocumentKey | None, limit: int) -> WalkedRows:
        """The next rows of a job; `last` is None at its end."""
        bound: Any = None if after is None else from_key(after)
        query, fields = _query(job), ROW_FIELDS if job.stream is Stream.MESSAGES else {"_id": 1}
        if after is not None and job.conversation_id is not None:
            # An expression compares across the types of `_id`, as the sort order does; an operator would not.
            query["$expr"] = {"$gt": ["$_id", {"$literal": bound}]}

        async def fetch() -> list[dict[str, Any]]:
            # One more, because `min()` includes the key at which the index scan begins.
            cursor = self._database[job.stream.value].find(query, fields).sort(_ID_INDEX).limit(limit + 1)
            if job.conversation_id is None:
                cursor = cursor.hint(_ID_INDEX)
                if after is not None:
                    cursor = cursor.min([("_id", bound)])
            found: list[dict[str, Any]] = await cursor.to_list(None)
            return found

        found = await self._collections.ask(job.stream.value, fetch)
        documents = [document for document in found if to_key(document["_id"]) != after][:limit]
        last = to_key(documents[-1]["_id"]) if documents else None
        if job.stream is not Stream.MESSAGES:
            keys = [to_key(document["_id"]) for document in documents]
            return WalkedRows((), len(keys), last, keys)
        rows = [row for row in map(self._collections.read_row, documents) if row is not None]
        return WalkedRows(rows, len(documents), last)


def _query(job: Job) -> dict[str, object]:
    if job.conversation_id is not None:
        return {"conversationId": job.conversation_id}
    bounds: dict[str, object] = {}
    if job.since_seconds is not None:
        bounds["$gte"] = _id_at(job.since_seconds, "00")
    if job.until_seconds is not None:
        bounds["$lte"] = _id_at(job.until_seconds, "ff")
    return {"_id": bounds} if bounds else {}


def _id_at(seconds: int, rest: str) -> ObjectId:
    return ObjectId(f"{min(max(0, seconds), LAST_SECOND):08x}" + rest * 8)


def _passes_but_timeouts(error: BaseException) -> bool:
    return passes(error) and not isinstance(error, ExecutionTimeout)
