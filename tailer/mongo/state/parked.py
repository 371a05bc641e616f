"""`parked`: turns that wait long, so that they do not hold back a resume token."""

from collections.abc import Sequence

from pymongo import DeleteOne, UpdateOne

from tailer.core.identity import DocumentKey
from tailer.core.turn.turns import Wait
from tailer.events import StateOperation
from tailer.flow.records import ParkedTurn
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence


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
            writes.append(DeleteOne({"_id": turn.document_key, "wait": {"$ne": fields["wait"]}}))
            writes.append(UpdateOne({"_id": turn.document_key}, {"$setOnInsert": fields}, upsert=True))
        if writes:
            await self._fence.write(
                StateOperation.PARK,
                lambda session: self._database["parked"].bulk_write(writes, session=session),
            )

    async def unpark(self, keys: Sequence[DocumentKey]) -> None:
        """Forget parked turns."""
        if keys:
            query = {"_id": {"$in": list(keys)}}
            await self._fence.write(
                StateOperation.UNPARK,
                lambda session: self._database["parked"].delete_many(query, session=session),
            )

    async def load_parked(self, limit: int) -> Sequence[ParkedTurn]:
        """Parked turns, earliest deadline first."""
        found = await self._database.attempt(
            StateOperation.LOAD_PARKED,
            lambda: self._database["parked"].find({}).sort("deadline_seconds", 1).to_list(limit),
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


def _describe(turn: ParkedTurn) -> dict[str, object]:
    return {
        "message_id": turn.message_id,
        "wait": turn.wait.value,
        "since_seconds": turn.since_seconds,
        "deadline_seconds": turn.deadline_seconds,
    }
