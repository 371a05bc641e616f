"""`exports`: one record for each trace, or later piece of one, that was sent and acknowledged. Records expire."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tailer.core.identity import DocumentKey, TraceId
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.trace.followup import SentTurn
from tailer.events import StateOperation
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.records import read_sent


class Exports:
    """An `ExportStore`. The records themselves are written when their batch is finished."""

    _database: StateDatabase
    _fence: Fence
    _belonging: Belonging

    async def prepare(self, *, lifetime: timedelta) -> None:
        """Create the two indexes: the one that makes records expire, and the one by row."""
        await self._database.attempt(
            StateOperation.PREPARE, lambda: self._prepare(int(lifetime.total_seconds()))
        )

    async def _prepare(self, seconds: int) -> None:
        indexes = await self._database["exports"].index_information()
        if "sent_at_1" not in indexes:
            await self._database["exports"].create_index("sent_at", expireAfterSeconds=seconds)
        elif indexes["sent_at_1"].get("expireAfterSeconds") != seconds:
            changed = {"keyPattern": {"sent_at": 1}, "expireAfterSeconds": seconds}
            await self._database.command({"collMod": "exports", "index": changed})
        # Separately, because a start may have ended between the two.
        if "document_key_1" not in indexes:
            await self._database["exports"].create_index("document_key")

    async def find_exported(self, record_ids: Sequence[str]) -> frozenset[str]:
        """Those that were sent and acknowledged before, including deleted ones."""
        found = await self._find_exported(record_ids, {"_id": 1})
        return frozenset(self._belonging.record_of(document["_id"]) for document in found)

    async def find_exported_rows(self, record_ids: Sequence[str]) -> Mapping[str, DocumentKey]:
        """Those that were sent and acknowledged before, including deleted ones, each with its row."""
        found = await self._find_exported(record_ids, {"document_key": 1})
        return {
            self._belonging.record_of(document["_id"]): DocumentKey(document["document_key"])
            for document in found
        }

    async def _find_exported(
        self, record_ids: Sequence[str], fields: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        query = self._belonging.among(record_ids)
        return await self._database.attempt(
            StateOperation.FIND_EXPORTED,
            lambda: self._database["exports"].find(query, fields).to_list(None),
        )

    async def load_sent(self, trace_ids: Sequence[TraceId]) -> Mapping[TraceId, SentTurn]:
        """What is remembered of sent turns; those whose traces were deleted are left out."""
        turns = await self._load(self._belonging.among(trace_ids))
        return {turn.trace_id: turn for turn in turns}

    async def load_sent_by_document(self, keys: Sequence[DocumentKey]) -> Sequence[SentTurn]:
        """What is remembered of the turns of rows."""
        return await self._load({"document_key": {"$in": list(keys)}})

    async def load_sent_between(
        self,
        since: datetime,
        until: datetime,
        *,
        ended_milliseconds: int,
        shard: Shard = WHOLE,
        limit: int | None = None,
    ) -> Sequence[SentTurn] | None:
        """The turns of a shard recorded from `since` and before `until`, without those that had ended long before; None
        if there are more than `limit`."""
        query: dict[str, Any] = {
            "sent_at": {"$gte": since, "$lt": until},
            "sent.end_milliseconds": {"$gte": ended_milliseconds},
        }
        if not shard.is_whole:
            query["sent.session_id"] = {"$not": {"$regex": shard.foreign_ids()}}
        found = await self._find_sent(query, limit=0 if limit is None else limit + 1)
        if limit is not None and len(found) > limit:
            return None
        turns = (read_sent(document, self._belonging) for document in found)
        return [turn for turn in turns if shard.owns(turn.session_id)]

    async def _load(self, query: dict[str, Any]) -> list[SentTurn]:
        return [read_sent(document, self._belonging) for document in await self._find_sent(query)]

    async def _find_sent(self, query: dict[str, Any], *, limit: int = 0) -> list[dict[str, Any]]:
        chosen = {**query, **self._belonging.query, "sent": {"$exists": True}, "deleted_at": None}
        return await self._database.attempt(
            StateOperation.LOAD_SENT,
            lambda: self._database["exports"].find(chosen, limit=limit).to_list(None),
        )

    async def find_traces_by_document(self, keys: Sequence[DocumentKey]) -> Sequence[TraceId]:
        """The traces that were sent for rows, including those of titles."""
        query = {
            "document_key": {"$in": list(keys)},
            "deleted_at": None,
            "piece_of": None,
            **self._belonging.query,
        }
        found = await self._database.attempt(
            StateOperation.FIND_TRACES,
            lambda: self._database["exports"].find(query, {"_id": 1}).to_list(None),
        )
        return [TraceId(self._belonging.record_of(document["_id"])) for document in found]

    async def record_feedback(self, trace_id: TraceId, digest: str | None) -> None:
        """Remember which feedback was sent last."""
        query, change = {"_id": self._belonging.id_of(trace_id)}, {"$set": {"sent.feedback": digest}}
        await self._fence.write(
            StateOperation.RECORD_FEEDBACK,
            lambda transaction: transaction["exports"].update_one(query, change, session=transaction.session),
        )

    async def record_deleted(self, trace_ids: Sequence[TraceId]) -> None:
        """Remember that traces were deleted: they are never sent again."""
        query = self._belonging.among(trace_ids)
        change = {"$set": {"deleted_at": datetime.now(UTC)}}
        await self._fence.write(
            StateOperation.RECORD_DELETED,
            lambda transaction: transaction["exports"].update_many(
                query, change, session=transaction.session
            ),
        )
