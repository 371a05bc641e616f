"""Queries on LibreChat's collections: repeated while a failure passes, and no more where a privilege is missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.errors import OperationFailure

from tailer.core.librechat.bson_values import count, filled_string, identifier, milliseconds, strings
from tailer.core.turn.readback import Row
from tailer.events import CollectionDenied, Emit, ReadFailed, RowUnreadable
from tailer.mongo.connection import Database
from tailer.mongo.document_keys import to_key
from tailer.mongo.retrying import keep_trying

ROW_FIELDS: Mapping[str, object] = {
    "messageId": 1,
    "conversationId": 1,
    "parentMessageId": 1,
    "user": 1,
    "isCreatedByUser": 1,
    "createdAt": 1,
    "model": 1,
    "langfuseDestinationIds": 1,
    "bytes": {"$bsonSize": "$$ROOT"},
}
"""A message without its content."""
_UNAUTHORIZED = 13
_NEEDED = ("messages", "conversations")
"""Without these nothing can be done; a refusal of any other collection is reported once and lived with."""


class Collections:
    """LibreChat's database, read only."""

    def __init__(self, database: Database, emit: Emit) -> None:
        self._database = database
        self._emit = emit
        self._denied: set[str] = set()

    async def find(
        self,
        collection: str,
        query: Mapping[str, object],
        fields: Mapping[str, object],
        *,
        limit: int = 0,
        sort: Sequence[tuple[str, int]] = (),
    ) -> list[dict[str, Any]]:
        """All documents of a query; none from a collection that may not be read."""
        if collection in self._denied:
            return []

        async def fetch() -> list[dict[str, Any]]:
            cursor = self._database[collection].find(query, fields or None, batch_size=2000, limit=limit)
            if sort:
                cursor = cursor.sort(list(sort))
            found: list[dict[str, Any]] = await cursor.to_list(None)
            return found

        try:
            return await keep_trying(fetch, lambda failure: self.report(collection, failure))
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED or collection in _NEEDED:
                raise
            self._denied.add(collection)
            self._emit(CollectionDenied(collection))
            return []

    def report(self, collection: str, failure: str) -> None:
        """Tell of a failure after which a query is tried again."""
        self._emit(ReadFailed(collection, failure))

    def read_row(self, document: Mapping[str, Any]) -> Row | None:
        """A message read with `ROW_FIELDS`; one without ids is reported, and None."""
        key = to_key(document["_id"])
        message_id = filled_string(document.get("messageId"))
        conversation_id = filled_string(document.get("conversationId"))
        if message_id is None or conversation_id is None:
            field = "messageId" if message_id is None else "conversationId"
            self._emit(RowUnreadable("messages", key, field))
            return None
        return Row(
            key=key,
            message_id=message_id,
            conversation_id=conversation_id,
            parent_message_id=filled_string(document.get("parentMessageId")),
            user_id=identifier(document.get("user")),
            created_by_user=document.get("isCreatedByUser") is True,
            traced_natively=bool(strings(document.get("langfuseDestinationIds"))),
            created_milliseconds=milliseconds(document.get("createdAt")),
            stored_bytes=count(document.get("bytes")) or 0,
            model=filled_string(document.get("model")),
        )
