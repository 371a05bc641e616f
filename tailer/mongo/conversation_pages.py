"""Reads conversations newest first, a page at a time, by LibreChat's own indexes on `messages`.

Recent releases have an index on `conversationId`, `user` and `createdAt`, the newest with `_id` behind it: with either
a page costs the same however long the conversation is. Older releases have one on `conversationId` alone: the server
then looks at the whole conversation and sends a page of it. Which index there is shows by asking for it by its fields,
so no privilege beyond `find` is needed.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo.errors import OperationFailure

from tailer.core.identity import DocumentKey
from tailer.core.light_dataclass import light_dataclass
from tailer.mongo.document_keys import to_key
from tailer.mongo.message_rows import SMALL_BYTES, WHOLE_IF_SMALL
from tailer.mongo.reading import Hint, Reading

PAGE_ROWS = 110
"""Rows of a page: as many as fill the history of a common chat."""
_BATCH_ROWS = 1_200
"""Rows that are read of many conversations together."""
_NO_SUCH_INDEX: Final = 2
_INDEXES: Final[Sequence[Hint | None]] = (
    [("conversationId", 1), ("user", 1), ("createdAt", 1), ("_id", 1)],
    [("conversationId", 1), ("user", 1), ("createdAt", 1)],
    [("conversationId", 1)],
    None,
)
_FIRST_THAT_SORTS: Final = 2
_AGAIN_SECONDS: Final = 600.0
"""How long an index that was not there is not asked for: an upgrade of LibreChat brings it."""


@light_dataclass(frozen=True, slots=True)
class StoredRow:
    """A message read with `WHOLE_IF_SMALL`: the whole document, or only what `ROW_FIELDS` names."""

    key: DocumentKey
    document: Mapping[str, Any]
    stored_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether the content was read too."""
        return self.stored_bytes < SMALL_BYTES


class ConversationPages:
    """Pages of LibreChat's conversations; it remembers which index there is."""

    def __init__(self) -> None:
        self._index = 0
        self._lowered_seconds = 0.0

    def read_newest(
        self, reading: Reading, conversation_id: str, user_id: str, *, since: object = None
    ) -> Sequence[StoredRow]:
        """The newest rows of an owner's conversation, newest first; `since` is the `createdAt` to begin at."""
        query: dict[str, object] = {"conversationId": conversation_id, "user": user_id}
        if since is not None:
            query["createdAt"] = {"$lte": since}
        return self._find(reading, query, [("createdAt", -1)], PAGE_ROWS)

    def read_together(
        self, reading: Reading, conversation_ids: Sequence[str]
    ) -> tuple[Sequence[StoredRow], frozenset[str]]:
        """The rows of conversations of all owners in any order, and those conversations of which this is not all."""
        query = {"conversationId": {"$in": conversation_ids}}
        found = self._find(reading, query, [("conversationId", 1)], _BATCH_ROWS)
        if len(found) < _BATCH_ROWS:
            return found, frozenset()
        last = found[-1].document.get("conversationId")
        whole = {row.document.get("conversationId") for row in found} - {last}
        return found, frozenset(conversation_ids) - whole

    def _find(
        self, reading: Reading, query: Mapping[str, object], sort: Hint, limit: int
    ) -> Sequence[StoredRow]:
        if self._index and time.monotonic() - self._lowered_seconds > _AGAIN_SECONDS:
            self._index = 0
        while True:
            index = self._index
            try:
                found = reading.find(
                    "messages",
                    query,
                    WHOLE_IF_SMALL,
                    limit=limit,
                    sort=sort,
                    hint=_INDEXES[index],
                    # A page of very large rows is more than a server sorts in memory.
                    allow_disk_use=index >= _FIRST_THAT_SORTS,
                )
                return [StoredRow(to_key(item["row"]["_id"]), item["row"], item["bytes"]) for item in found]
            except OperationFailure as error:
                if error.code != _NO_SUCH_INDEX or _INDEXES[index] is None:
                    raise
                self._index = index + 1
                self._lowered_seconds = time.monotonic()
