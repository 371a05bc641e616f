"""`dead_letters`: turns that cannot be sent, with the reason, until somebody looks at them."""

from collections.abc import Sequence
from datetime import UTC, datetime

from bson import Binary
from pymongo import UpdateOne

from tailer.flow.ports import DeadLetter
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence


class DeadLetters:
    """A `DeadLetterStore`."""

    def __init__(self, database: StateDatabase, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def find_refused(self, record_ids: Sequence[str]) -> frozenset[str]:
        """Those whose chunk the destination refused: dead letters that were built."""
        query = {"_id": {"$in": list(record_ids)}, "chunk": {"$ne": None}}
        found = await self._database.attempt(
            "find_refused", lambda: self._database["dead_letters"].find(query, {"_id": 1}).to_list(None)
        )
        return frozenset(str(document["_id"]) for document in found)

    async def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Keep turns that cannot be sent; a repeated one counts its tries."""
        now = datetime.now(UTC)
        writes = [
            UpdateOne(
                {"_id": letter.record_id},
                {
                    "$set": {
                        "message_id": letter.message_id,
                        "document_key": letter.document_key,
                        "reason": letter.reason,
                        "chunk": None if letter.chunk is None else Binary(letter.chunk),
                        "last_failed_at": now,
                    },
                    "$setOnInsert": {"first_failed_at": now},
                    "$inc": {"tries": 1},
                },
                upsert=True,
            )
            for letter in letters
        ]
        if writes:
            await self._fence.write(
                "add_dead_letters",
                lambda session: self._database["dead_letters"].bulk_write(writes, session=session),
            )
