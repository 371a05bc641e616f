"""Reads rows back in batches: what a turn needs, by indexed queries only, in groups of bounded size.

Queries use the indexes that LibreChat itself creates: `_id`, `messageId` and `conversationId` of `messages`,
`conversationId` of `conversations` and `transactions`, `id` of `agents`. Collections that the user may not read
(`transactions`, `agents`, `users`, `groups`) are left alone for ten minutes, and then asked again.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

from tailer.core.identity import DocumentKey
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.trace.followup import SentTurn
from tailer.core.trace.spending import Spending
from tailer.core.turn.readback import DeletedRow, Row
from tailer.core.turn.turns import TurnRecord
from tailer.events import Emit
from tailer.mongo.collections import Collections
from tailer.mongo.connection import Database
from tailer.mongo.document_keys import from_key, to_key
from tailer.mongo.message_rows import CONTENT_FIELDS, ROW_FIELDS
from tailer.mongo.titled_rows import find_titled
from tailer.mongo.transactions import (
    read_deleted,
    read_ledgers,
    read_spending,
    read_transactions_by_key,
    read_unnamed,
)
from tailer.mongo.turn_reading import TurnReading, read_settled_messages
from tailer.mongo.users import Users

GROUP_BYTES = 2_000_000
"""Stored bytes of the rows that are in memory at once; a single larger row is a group of its own."""
_HISTORY_FACTOR = 4
"""A stored row is larger than its text by ids, usage and tool results, so this many times the limit is read."""
_JOB_ROWS = 128
"""Turns that are read in one job."""


class MongoDocuments:
    """A `DocumentReader` over LibreChat's database."""

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        history_bytes: int,
        with_users: bool,
        with_groups: bool = False,
        proven: bool = False,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self._collections = Collections(database, emit, proven=proven)
        self._users = Users(self._collections, wanted=with_users, with_groups=with_groups)
        self._turns = TurnReading(
            history_bytes=history_bytes,
            stored_bytes=history_bytes * _HISTORY_FACTOR,
            group_bytes=group_bytes,
        )
        self._group_bytes = group_bytes

    async def locate(self, keys: Sequence[DocumentKey]) -> Sequence[Row]:
        """The rows that still exist. A row without ids is reported and left out."""
        found = await self._collections.find(
            "messages", {"_id": {"$in": [from_key(key) for key in keys]}}, ROW_FIELDS
        )
        return [row for row in map(self._collections.read_row, found) if row is not None]

    async def find_existing(self, keys: Sequence[DocumentKey]) -> frozenset[DocumentKey]:
        """Those with a stored row, even an unreadable one."""
        query = {"_id": {"$in": [from_key(key) for key in keys]}}
        found = await self._collections.find("messages", query, {"_id": 1})
        return frozenset(to_key(document["_id"]) for document in found)

    async def locate_titled(self, keys: Sequence[DocumentKey]) -> Sequence[tuple[DocumentKey, Row]]:
        """The response row on which each conversation's title was billed, from the transactions if they may be read."""
        return await self._collections.run(partial(find_titled, keys=keys))

    async def locate_answers(self, questions: Sequence[Row]) -> Sequence[tuple[Row, Row]]:
        """The response rows of questions, each with its question."""
        by_id = {(row.conversation_id, row.user_id, row.message_id): row for row in questions}
        query = {
            "conversationId": {"$in": [row.conversation_id for row in questions]},
            "parentMessageId": {"$in": [row.message_id for row in questions]},
        }
        found = await self._collections.find("messages", query, ROW_FIELDS)
        pairs = []
        for row in filter(None, map(self._collections.read_row, found)):
            question = by_id.get((row.conversation_id, row.user_id, row.parent_message_id or ""))
            if question is not None and not row.created_by_user:
                pairs.append((row, question))
        return pairs

    async def read_ledgers(
        self, turns: Sequence[SentTurn], *, only_news: bool = False
    ) -> Mapping[str, Sequence[Transaction]]:
        """The transactions that name the responses of turns, by message id."""
        return await read_ledgers(self._collections, turns, only_news=only_news)

    async def read_unnamed(
        self, conversation_id: str, user_id: str | None, since_seconds: int
    ) -> Sequence[Transaction]:
        """The transactions of a conversation that name no message, since then."""
        return await read_unnamed(self._collections, conversation_id, user_id, since_seconds)

    async def read_transactions(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Transaction]:
        """Transactions by `_id`."""
        return await read_transactions_by_key(self._collections, keys)

    async def read_spending(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Spending | None]:
        """For transactions by `_id`: the whole spending each belongs to, None where a chat has it."""
        found = await read_spending(self._collections, keys)
        users = await self._users.read(
            {spending.user_id for spending in found.values() if spending is not None}
        )
        return {
            key: None if spending is None else replace(spending, user=users.get(spending.user_id or ""))
            for key, spending in found.items()
        }

    async def read_deleted(self, rows: Mapping[DocumentKey, DeletedRow]) -> Mapping[DocumentKey, Spending]:
        """What was spent on responses that are not stored any more."""
        found = await read_deleted(self._collections, rows)
        users = await self._users.read({spending.user_id for spending in found.values()})
        return {
            key: replace(spending, user=users.get(spending.user_id or "")) for key, spending in found.items()
        }

    async def read_turns(self, rows: Sequence[Row]) -> AsyncIterator[Sequence[tuple[Row, TurnRecord | None]]]:
        """The records of rows, in groups of at most `group_bytes`; None for a row that has vanished."""
        unread = sorted(rows, key=_conversation_of)
        while unread:
            taken = _count_for_one_job(unread, self._group_bytes)
            users = await self._users.read({row.user_id for row in unread[:taken]})
            begun = await self._collections.run(partial(self._turns.begin, unread[:taken], users))
            if begun.records:
                yield begun.records
            for group in begun.later:
                yield await self._collections.run(partial(self._turns.finish, group, begun.found, users))
            unread = [*begun.unread, *unread[taken:]]

    async def read_messages(self, keys: Iterable[DocumentKey]) -> Mapping[DocumentKey, Message]:
        """Whole rows by `_id`, temporary where their conversations say so. A row that is not a message is reported and
        left out."""
        return await self._collections.run(
            partial(read_settled_messages, keys=list(keys), fields=CONTENT_FIELDS)
        )


def _conversation_of(row: Row) -> str:
    return row.conversation_id


def _count_for_one_job(rows: Sequence[Row], byte_limit: int) -> int:
    """How many of the first rows are read together: their own content is in memory from the beginning."""
    sizes = accumulate(row.stored_bytes for row in rows[:_JOB_ROWS])
    return max(1, sum(size <= byte_limit for size in sizes))
