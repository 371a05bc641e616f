"""`keys`: secrets that this deployment has generated."""

from secrets import token_bytes
from typing import Any

from bson import Binary
from pymongo import ReturnDocument

from tailer.events import StateOperation
from tailer.mongo.state.database import StateDatabase, Transaction
from tailer.mongo.state.fencing import Fence


class Keys:
    """The key of masked placeholders."""

    def __init__(self, database: StateDatabase, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def mask_key(self) -> bytes:
        """The secret behind masked placeholders, generated once: equal values stay equal over restarts."""
        found = await self._database.attempt(
            StateOperation.MASK_KEY, lambda: self._database["keys"].find_one({"_id": "mask"})
        )
        if found is None:
            found = await self._fence.write(StateOperation.MASK_KEY, self._make_mask_key)
        return bytes(found["key"])

    def _make_mask_key(self, transaction: Transaction) -> dict[str, Any]:
        # With an upsert there always is one.
        made: dict[str, Any] = transaction["keys"].find_one_and_update(  # type: ignore[assignment]
            {"_id": "mask"},
            {"$setOnInsert": {"key": Binary(token_bytes(32))}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=transaction.session,
        )
        return made
