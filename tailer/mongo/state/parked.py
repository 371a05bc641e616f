"""`parked`: turns that wait long, so that they do not hold back a resume token.

A turn is kept under its row's `_id`, and names its shard. After the number of shards was changed it names one that is
no more, until the shard of its conversation adopts it.
"""

from collections.abc import Sequence
from typing import Any

from pymongo import DeleteOne, UpdateOne

from tailer.core.identity import DocumentKey
from tailer.core.stream.shard import Shard
from tailer.core.turn.turns import Wait
from tailer.events import StateOperation
from tailer.flow.records import ParkedTurn
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.names import names_of


class ParkedTurns:
    """A `ParkedStore`."""

    def __init__(self, database: StateDatabase, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def park(self, turns: Sequence[ParkedTurn]) -> None:
        """Store turns that wait; one that already waits for the same thing keeps its deadline."""
        writes: list[DeleteOne | UpdateOne] = []
        for turn in turns:
            fields = _describe(turn)
            change = {"$setOnInsert": fields, **self._marking()}
            writes.append(DeleteOne({"_id": turn.document_key, "wait": {"$ne": fields["wait"]}}))
            writes.append(UpdateOne({"_id": turn.document_key}, change, upsert=True))
        if writes:
            await self._fence.write(
                StateOperation.PARK,
                lambda transaction: transaction["parked"].bulk_write(writes, session=transaction.session),
            )

    async def unpark(self, keys: Sequence[DocumentKey]) -> None:
        """Forget parked turns."""
        if keys:
            query = {"_id": {"$in": list(keys)}}
            await self._fence.write(
                StateOperation.UNPARK,
                lambda transaction: transaction["parked"].delete_many(query, session=transaction.session),
            )

    async def load_parked(self, limit: int) -> Sequence[ParkedTurn]:
        """Parked turns, earliest deadline first."""
        found = await self._database.attempt(
            StateOperation.LOAD_PARKED,
            lambda: (
                self._database["parked"]
                .find(self._fence.names.query)
                .sort("deadline_seconds", 1)
                .to_list(limit)
            ),
        )
        return [
            ParkedTurn(
                document_key=DocumentKey(document["_id"]),
                message_id=document["message_id"],
                wait=Wait(document["wait"]),
                since_seconds=int(document["since_seconds"]),
                deadline_seconds=int(document["deadline_seconds"]),
            )
            for document in found
        ]

    async def find_orphans(
        self, layout: Sequence[Shard], after: DocumentKey | None, limit: int
    ) -> Sequence[DocumentKey]:
        """Turns that no shard of this division has, in the order of their `_id`s."""
        query: dict[str, Any] = {"shard": {"$nin": [names_of(shard).shard for shard in layout]}}
        if after is not None:
            query["_id"] = {"$gt": after}
        found = await self._database.attempt(
            StateOperation.LOAD_PARKED,
            lambda: self._database["parked"].find(query, {"_id": 1}).sort("_id", 1).to_list(limit),
        )
        return [DocumentKey(document["_id"]) for document in found]

    async def adopt(self, keys: Sequence[DocumentKey]) -> None:
        """Make turns this shard's."""
        if keys:
            query = {"_id": {"$in": list(keys)}}
            await self._fence.write(
                StateOperation.PARK,
                lambda transaction: transaction["parked"].update_many(
                    query, self._marking(), session=transaction.session
                ),
            )

    def _marking(self) -> dict[str, Any]:
        marks = self._fence.names.marks
        return {"$set": marks} if marks else {"$unset": {"shard": ""}}


def _describe(turn: ParkedTurn) -> dict[str, object]:
    return {
        "message_id": turn.message_id,
        "wait": turn.wait.value,
        "since_seconds": turn.since_seconds,
        "deadline_seconds": turn.deadline_seconds,
    }
