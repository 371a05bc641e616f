"""Reads conversations newest first, a page at a time, by LibreChat's own indexes on `messages`.

Recent releases have an index on `conversationId`, `user` and `createdAt`, the newest with `_id` behind it: with either
a page costs the same however long the conversation is. Older releases have one on `conversationId` alone: the server
then looks at the whole conversation and sends a page of it. Which index there is shows by asking for it by its fields,
so no privilege beyond `find` is needed.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pymongo.errors import OperationFailure

from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.readback import Owner, Row
from tailer.mongo.error_codes import NO_SUCH_INDEX
from tailer.mongo.message_rows import SMALL_BYTES, WHOLE_IF_SMALL, whole_if_own
from tailer.mongo.reading import Hint, Reading

PAGE_ROWS = 110
"""Rows of a page: as many as fill the history of a common chat."""
_MOST_OWN = 8
"""Ids of which everything is wanted, up to which the rest is asked for without: two for each turn."""
_SPARE_ROWS = 8
"""How many more than the last time: a question and its answer are new, and shorter rows leave room for others."""
_ROWS_EACH = 20
_MOST_ROWS = 1_600
"""Rows that are read of several conversations together, for each and at most: enough where most of them are short."""
_INDEXES: Final[Sequence[Hint | None]] = (
    [("conversationId", 1), ("user", 1), ("createdAt", 1), ("_id", 1)],
    [("conversationId", 1), ("user", 1), ("createdAt", 1)],
    [("conversationId", 1)],
    None,
)
_FIRST_THAT_SORTS: Final = 2
_REMEMBERED: Final = 1_000
"""Long conversations that are remembered as such; all of them are forgotten when there are more."""
_AGAIN_SECONDS: Final = 600.0
"""How long an index that was not there is not asked for: an upgrade of LibreChat brings it."""


@light_dataclass(frozen=True, slots=True)
class StoredRow:
    """A message of a conversation. `is_whole`: as it is stored; otherwise it has what a history shows if it is small,
    and only what `ROW_FIELDS` names if it is large."""

    row: Row
    document: Mapping[str, Any]
    is_whole: bool

    @property
    def has_content(self) -> bool:
        """Whether what a history shows was read too."""
        return self.row.stored_bytes < SMALL_BYTES


class ConversationPages:
    """Pages of LibreChat's conversations; it remembers which index there is, which conversations were long, and how
    many of their newest rows were enough."""

    def __init__(self) -> None:
        self._index = 0
        self._lowered_seconds = 0.0
        # Jobs run side by side on several threads: nothing is done with it that takes more than one step.
        self._long: dict[Owner, int] = {}

    def was_long(self, owner: Owner) -> bool:
        """Whether a conversation had more than a page when it was read last. Then it is not worth reading with
        others."""
        return owner in self._long

    def read_newest(
        self,
        reading: Reading,
        conversation_id: str,
        user_id: str,
        *,
        whole: Collection[str],
        since: object = None,
    ) -> tuple[Sequence[StoredRow], bool]:
        """The newest rows of an owner's conversation, newest first, and whether there are no older ones.

        `whole` are the ids of those of which everything is wanted, `since` is the `createdAt` to begin at."""
        owner: Owner = (conversation_id, user_id)
        query: dict[str, object] = {"conversationId": conversation_id, "user": user_id}
        limit = PAGE_ROWS
        if since is None:
            limit = self._long.get(owner, PAGE_ROWS)
        else:
            query["createdAt"] = {"$lte": since}
        own = whole if len(whole) <= _MOST_OWN else None
        fields = WHOLE_IF_SMALL if own is None else whole_if_own(list(own))
        found = self._find(reading, query, fields, [("createdAt", -1)], limit)
        is_all = len(found) < limit
        if not is_all:
            self._remember(owner, PAGE_ROWS)
        elif since is None:
            self._long.pop(owner, None)
        return _read_rows(reading, found, own), is_all

    def note_enough(self, owner: Owner, rows: int) -> None:
        """So many of a long conversation's newest rows were enough, the first page alone."""
        self._remember(owner, min(PAGE_ROWS, rows + _SPARE_ROWS))

    def _remember(self, owner: Owner, rows: int) -> None:
        if len(self._long) >= _REMEMBERED:
            self._long.clear()
        self._long[owner] = rows

    def read_together(
        self, reading: Reading, conversation_ids: Sequence[str]
    ) -> tuple[Sequence[StoredRow], bool]:
        """The rows of all owners of some of these conversations, in any order and each conversation whole; and whether
        nothing of the others was read."""
        query = {"conversationId": {"$in": conversation_ids}}
        limit = min(_MOST_ROWS, _ROWS_EACH * len(conversation_ids))
        found = self._find(reading, query, WHOLE_IF_SMALL, [("conversationId", 1)], limit)
        rows = _read_rows(reading, found)
        if len(found) < limit:
            return rows, True
        last = found[-1]["row"]["conversationId"]
        return [item for item in rows if item.row.conversation_id != last], False

    def _find(
        self,
        reading: Reading,
        query: Mapping[str, object],
        fields: Mapping[str, object],
        sort: Hint,
        limit: int,
    ) -> list[dict[str, Any]]:
        if self._index and time.monotonic() - self._lowered_seconds > _AGAIN_SECONDS:
            self._index = 0
        while True:
            index = self._index
            try:
                return reading.find(
                    "messages",
                    query,
                    fields,
                    limit=limit,
                    sort=sort,
                    hint=_INDEXES[index],
                    # A page of very large rows is more than a server sorts in memory.
                    allow_disk_use=index >= _FIRST_THAT_SORTS,
                )
            except OperationFailure as error:
                if error.code != NO_SUCH_INDEX or _INDEXES[index] is None:
                    raise
                self._index = index + 1
                self._lowered_seconds = time.monotonic()


def _read_rows(
    reading: Reading, found: Sequence[Mapping[str, Any]], whole: Collection[str] | None = None
) -> list[StoredRow]:
    """Rows, of which the small ones came whole: all of them, or those with the ids in `whole`."""
    rows = []
    for item in found:
        document = item["row"]
        row = reading.read_row(document, item["bytes"])
        if row is not None:
            is_whole = row.stored_bytes < SMALL_BYTES and (whole is None or row.message_id in whole)
            rows.append(StoredRow(row, document, is_whole))
    return rows
