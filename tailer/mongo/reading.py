"""Several queries in one job on the driver's thread. A hop to that thread for each costs more than a query itself."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from pymongo.database import Database

from tailer.core.identity import DocumentKey
from tailer.core.librechat.messages import MalformedDocument, Message, read_earlier, read_message
from tailer.core.turn.readback import Row
from tailer.events import RowUnreadable
from tailer.mongo.document_keys import to_key
from tailer.mongo.message_rows import missing_id, read_row

Hint = Sequence[tuple[str, int]]


class Reading:
    """The queries of one job, one after another. A job that fails is repeated with a new `Reading`.

    `collection` is the one that was asked last, `asked` are all of them. `unreadable` is reported when the job is done.
    """

    def __init__(self, database: "Database[dict[str, Any]]", denied: Container[str]) -> None:
        self._database = database
        self._denied = denied
        self.collection = "messages"
        self.asked: set[str] = set()
        self.unreadable: list[RowUnreadable] = []

    def may_read(self, collection: str) -> bool:
        """Whether a collection was not refused lately."""
        return collection not in self._denied

    def find(
        self,
        collection: str,
        query: Mapping[str, object],
        fields: Mapping[str, object],
        *,
        limit: int = 0,
        sort: Sequence[tuple[str, int]] = (),
        hint: Hint | None = None,
        allow_disk_use: bool = False,
    ) -> list[dict[str, Any]]:
        """All documents of a query; none from a collection that may not be read."""
        if not self.may_read(collection):
            return []
        self.collection = collection
        self.asked.add(collection)
        cursor = self._database[collection].find(query, fields or None, batch_size=2000, limit=limit)
        if sort:
            cursor = cursor.sort(list(sort))
        if hint is not None:
            cursor = cursor.hint(list(hint))
        if allow_disk_use:
            cursor = cursor.allow_disk_use(True)
        return cursor.to_list()

    def aggregate(
        self, collection: str, pipeline: Sequence[Mapping[str, Any]], *, hint: Hint
    ) -> list[dict[str, Any]]:
        """All that a pipeline gives; nothing from a collection that may not be read."""
        if not self.may_read(collection):
            return []
        self.collection = collection
        self.asked.add(collection)
        return self._database[collection].aggregate(list(pipeline), hint=dict(hint)).to_list()

    def read_row(self, document: Mapping[str, Any], stored_bytes: object) -> Row | None:
        """A row without its content. A message without ids is reported and becomes None."""
        row = read_row(document, stored_bytes)
        if row is None:
            self.unreadable.append(RowUnreadable("messages", to_key(document["_id"]), missing_id(document)))
        return row

    def read_message(
        self, document: Mapping[str, Any], key: DocumentKey | None = None, *, earlier: bool = False
    ) -> Message | None:
        """A whole row, or an `earlier` one, as far as a history shows it; its key if that is known already. A row that
        is not a message is reported and becomes None."""
        read = read_earlier if earlier else read_message
        try:
            return read(key or to_key(document["_id"]), document)
        except MalformedDocument as error:
            self.unreadable.append(RowUnreadable(error.collection, error.key, error.field))
            return None
