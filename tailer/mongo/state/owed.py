"""`owed`: what destinations that were away still have to get. A document names a row, and not what is sent of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import ASCENDING, DeleteOne, UpdateOne

from tailer.core.identity import DocumentKey
from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Interest
from tailer.core.stream.shard import WHOLE, Shard
from tailer.events import StateOperation
from tailer.flow.records import OwedShare
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence


class Owed:
    """An `OwedStore`."""

    _database: StateDatabase
    _fence: Fence
    _belonging: Belonging

    async def owe(self, shares: Sequence[OwedShare]) -> int:
        """Store what is owed. A share that is owed already is owed once, with the changes of both; how many are new."""
        writes = [self._owe(share) for share in shares]
        if not writes:
            return 0
        written = await self._fence.write(
            StateOperation.OWE,
            lambda transaction: transaction["owed"].bulk_write(writes, session=transaction.session),
        )
        return int(written.upserted_count)

    async def load_owed(self, limit: int, *, shard: Shard = WHOLE) -> Sequence[OwedShare]:
        """What is owed of a shard's conversations, the oldest first."""

        async def load() -> list[OwedShare]:
            cursor = self._database["owed"].find(self._owed_of(shard))
            cursor = cursor.sort([("since_seconds", ASCENDING), ("_id", ASCENDING)])
            own: list[OwedShare] = []
            while len(own) < limit and (found := await cursor.to_list(limit)):
                own += [share for share in map(_read, found) if shard.owns(share.conversation_id)]
            return own[:limit]

        return await self._database.attempt(StateOperation.LOAD_OWED, load)

    async def count_owed(self, *, shard: Shard = WHOLE) -> int:
        """How much is owed of a shard's conversations, roughly where there are several shards."""
        query = self._owed_of(shard)
        counted = await self._database.attempt(
            StateOperation.COUNT_OWED, lambda: self._database["owed"].count_documents(query)
        )
        return int(counted)

    def _owed_of(self, shard: Shard) -> dict[str, Any]:
        if shard.is_whole:
            return self._belonging.query
        return {**self._belonging.query, "conversation_id": {"$not": {"$regex": shard.foreign_ids()}}}

    async def settle_owed(self, shares: Sequence[OwedShare], *, since_seconds: int) -> int:
        """Forget shares that were loaded and worked on; returns how many. One that was owed once more meanwhile is
        kept, and counts as owed since then."""
        forgotten = [DeleteOne({"_id": self._id_of(share.key), "times": share.times}) for share in shares]
        kept = [
            UpdateOne({"_id": self._id_of(share.key)}, {"$set": {"since_seconds": since_seconds}})
            for share in shares
        ]
        if not shares:
            return 0
        written = await self._fence.write(
            StateOperation.SETTLE_OWED,
            lambda transaction: transaction["owed"].bulk_write(
                [*forgotten, *kept], session=transaction.session
            ),
        )
        return int(written.deleted_count)

    def _owe(self, share: OwedShare) -> UpdateOne:
        first: dict[str, Any] = {
            "interest": share.key.interest.value,
            "document_key": share.key.document_key,
            "since_seconds": share.since_seconds,
            **self._belonging.marks,
        }
        latest: dict[str, Any] = {
            "message_id": share.message_id,
            "written_milliseconds": share.written_milliseconds,
            "finished_milliseconds": share.finished_milliseconds,
            "deadline_passed": share.deadline_passed,
            "finished": share.finished,
            "stopped": share.stopped,
            "edited": share.edited,
        }
        (latest if share.knows_conversation else first)["conversation_id"] = share.conversation_id
        update = {
            "$setOnInsert": first,
            "$set": latest,
            "$addToSet": {"changed": {"$each": sorted(share.changed)}},
            "$inc": {"times": 1},
        }
        return UpdateOne({"_id": self._id_of(share.key)}, update, upsert=True)

    def _id_of(self, key: EntryKey) -> str:
        # The name stands in it for `default` too: these documents are as old as names are.
        return f"{self._belonging.of}/{key.interest.value}/{key.document_key}"


def _read(document: Mapping[str, Any]) -> OwedShare:
    return OwedShare(
        key=EntryKey(Interest(document["interest"]), DocumentKey(document["document_key"])),
        message_id=document["message_id"],
        conversation_id=document["conversation_id"],
        since_seconds=int(document["since_seconds"]),
        written_milliseconds=document["written_milliseconds"],
        finished_milliseconds=document["finished_milliseconds"],
        deadline_passed=bool(document["deadline_passed"]),
        finished=bool(document["finished"]),
        stopped=bool(document["stopped"]),
        edited=bool(document["edited"]),
        changed=frozenset(document["changed"]),
        times=int(document["times"]),
    )
