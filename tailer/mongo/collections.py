"""Queries on LibreChat's collections: repeated while a failure passes, and no longer if a privilege is missing."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pymongo.errors import ExecutionTimeout, OperationFailure, PyMongoError

from tailer.core.librechat.bson_values import count, filled_string, identifier, milliseconds, strings
from tailer.core.turn.readback import Row
from tailer.errors import SourceError
from tailer.events import CollectionDenied, Emit, ReadFailed, RowUnreadable
from tailer.mongo.connection import Database
from tailer.mongo.document_keys import to_key
from tailer.mongo.failures import certificate_trouble, explain_source_failure, failure_name, passes
from tailer.mongo.retrying import keep_trying

Result = TypeVar("Result")

ROW_FIELDS: Mapping[str, object] = {
    "messageId": 1,
    "conversationId": 1,
    "parentMessageId": 1,
    "user": 1,
    "isCreatedByUser": 1,
    "createdAt": 1,
    "model": 1,
    "langfuseDestinationIds": 1,
    "error": 1,
    "bytes": {"$bsonSize": "$$ROOT"},
}
"""A message without its content."""
_UNAUTHORIZED = 13
_NEEDED = ("messages", "conversations")
"""The collections without which nothing works. A refusal of any other collection is reported once and tolerated."""


class Collections:
    """LibreChat's database, read only. `proven` says that this process could read what it needs at its start."""

    def __init__(self, database: Database, emit: Emit, *, proven: bool = False) -> None:
        self._database = database
        self._emit = emit
        self._denied: set[str] = set()
        self._proven: set[str] = set(_NEEDED) if proven else set()

    async def prove(self) -> None:
        """Check that everything needed can be read in the way that it will be; raises SourceError."""
        await self.find("messages", {}, ROW_FIELDS, limit=1)
        await self.find("conversations", {}, {"_id": 1}, limit=1)

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

        return await self.ask(collection, fetch, denied=None if collection in _NEEDED else [])

    async def ask(
        self,
        collection: str,
        call: Callable[[], Awaitable[Result]],
        *,
        denied: Result | None = None,
        passing: Callable[[BaseException], bool] = passes,
    ) -> Result:
        """The result of a question about a collection, repeated while its failure passes.

        A failure that does not pass is waited for too once the collection has answered: what is revoked can be granted
        again. Before that it is a SourceError. `denied` is the answer for a collection that need not be readable.
        """

        def is_denied(error: BaseException) -> bool:
            return denied is not None and isinstance(error, OperationFailure) and error.code == _UNAUTHORIZED

        def is_waited_for(error: BaseException) -> bool:
            if isinstance(error, ExecutionTimeout) or is_denied(error):
                return passing(error)
            return passing(error) or (collection in self._proven and isinstance(error, PyMongoError))

        def report(error: PyMongoError) -> None:
            hint = certificate_trouble(error) if passes(error) else self._explain(collection, error).hint
            self._emit(ReadFailed(collection, failure_name(error), hint))

        try:
            answer = await keep_trying(call, report, passing=is_waited_for)
        except ExecutionTimeout:
            raise
        except PyMongoError as error:
            if denied is not None and is_denied(error):
                self._denied.add(collection)
                self._emit(CollectionDenied(collection))
                return denied
            raise self._explain(collection, error) from error
        self._proven.add(collection)
        return answer

    def _explain(self, collection: str, error: PyMongoError) -> SourceError:
        return explain_source_failure(error, f"{self._database.name}.{collection}")

    def read_row(self, document: Mapping[str, Any]) -> Row | None:
        """A message read with `ROW_FIELDS`. A message without ids is reported and becomes None."""
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
            refused=document.get("error") is True,
            model=filled_string(document.get("model")),
        )
