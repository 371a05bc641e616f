"""Reads rows back in batches: what a turn needs, by indexed queries only, in groups of bounded size.

Queries use the indexes that LibreChat itself creates: `_id`, `messageId` and `conversationId` of `messages`,
`conversationId` of `conversations` and `transactions`, `id` of `agents`. Collections that the user may not read
(`transactions`, `agents`) are asked once and then left alone.
"""

from asyncio import gather
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from bson import ObjectId
from cachetools import TTLCache
from pymongo.errors import OperationFailure

from tailer.core.documents import (
    Agent,
    Conversation,
    MalformedDocument,
    Message,
    Transaction,
    read_agent,
    read_conversation,
    read_message,
    read_transaction,
)
from tailer.core.identity import DocumentKey
from tailer.core.ledger import assign_by_time
from tailer.core.rows import (
    Row,
    RowSelection,
    add_agent,
    add_user,
    group_selections,
    make_record,
    saved_agent_id,
    select_rows,
)
from tailer.core.spending import Spending
from tailer.core.turns import TurnRecord
from tailer.core.usage import TITLE_CONTEXT
from tailer.core.users import USER_FIELDS, User, read_user
from tailer.core.values import count, filled_string, identifier, milliseconds, strings
from tailer.events import CollectionDenied, Emit, ReadFailed, RowUnreadable
from tailer.mongo.connection import Database
from tailer.mongo.keys import from_key, to_key
from tailer.mongo.persistence import keep_trying

GROUP_BYTES = 8_000_000
"""Stored bytes of the rows that are in memory at once; a single larger row makes a group of its own."""
_HISTORY_FACTOR = 4
"""A stored row is larger than its text by ids, usage and tool results: that many times the limit is read."""
_UNAUTHORIZED = 13

_SKELETON = {
    "messageId": 1,
    "conversationId": 1,
    "parentMessageId": 1,
    "user": 1,
    "isCreatedByUser": 1,
    "createdAt": 1,
    "langfuseDestinationIds": 1,
    "bytes": {"$bsonSize": "$$ROOT"},
}
_CONTENT = {
    "attachments.web_search": 0,
    "attachments.file_search": 0,
    "attachments.ui_resources": 0,
    "subagentTranscript": 0,
    "metadata.thoughtSignatures": 0,
}
"""Large fields that no trace shows."""


_Conversations: TypeAlias = Mapping[tuple[str, str | None], Mapping[str, Row]]
"""Rows without content, by conversation id and owner, then by message id."""


class MongoDocuments:
    """A `DocumentReader` over LibreChat's database."""

    def __init__(self, database: Database, emit: Emit, *, history_bytes: int, with_users: bool) -> None:
        self._database = database
        self._emit = emit
        self._history_bytes = history_bytes * _HISTORY_FACTOR
        self._with_users = with_users
        self._denied: set[str] = set()
        self._users: TTLCache[str, User] = TTLCache(maxsize=10_000, ttl=600)

    async def locate(self, keys: Sequence[DocumentKey]) -> Sequence[Row]:
        """The rows that still exist; a row without ids is reported and left out."""
        found = await self._find("messages", {"_id": {"$in": [from_key(key) for key in keys]}}, _SKELETON)
        return [row for row in map(self._to_row, found) if row is not None]

    async def locate_titled(self, keys: Sequence[DocumentKey]) -> Sequence[tuple[DocumentKey, Row]]:
        """The response row that each conversation's title was billed on; transactions tell, where they may be read."""
        conversations = await self._find(
            "conversations",
            {"_id": {"$in": [from_key(key) for key in keys]}},
            {"conversationId": 1, "user": 1},
        )
        # By owner too: ids are unique only together with the user.
        by_conversation = {
            (conversation_id, identifier(document.get("user"))): to_key(document["_id"])
            for document in conversations
            if (conversation_id := filled_string(document.get("conversationId"))) is not None
        }
        titles = await self._find(
            "transactions",
            {"conversationId": {"$in": [item for item, _ in by_conversation]}, "context": TITLE_CONTEXT},
            {"messageId": 1, "conversationId": 1},
        )
        message_ids = {filled_string(document.get("messageId")) for document in titles} - {None}
        found = await self._find("messages", {"messageId": {"$in": list(message_ids)}}, _SKELETON)
        rows = [row for row in map(self._to_row, found) if row is not None]
        return [
            (by_conversation[row.conversation_id, row.user_id], row)
            for row in rows
            if (row.conversation_id, row.user_id) in by_conversation
        ]

    async def locate_answers(self, questions: Sequence[Row]) -> Sequence[tuple[Row, Row]]:
        """The response rows of questions, each with its question."""
        by_id = {(row.conversation_id, row.user_id, row.message_id): row for row in questions}
        query = {
            "conversationId": {"$in": [row.conversation_id for row in questions]},
            "parentMessageId": {"$in": [row.message_id for row in questions]},
        }
        found = await self._find("messages", query, _SKELETON)
        pairs = []
        for row in filter(None, map(self._to_row, found)):
            question = by_id.get((row.conversation_id, row.user_id, row.parent_message_id or ""))
            if question is not None and not row.created_by_user:
                pairs.append((row, question))
        return pairs

    async def read_spending(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Spending | None]:
        """For transactions by `_id`: the whole spending each belongs to, None where a chat has it."""
        fields = {"conversationId": 1, "messageId": 1, "user": 1}
        found = await self._find("transactions", {"_id": {"$in": [from_key(key) for key in keys]}}, fields)
        conversation_ids = {filled_string(document.get("conversationId")) for document in found} - {None}
        query = {"conversationId": {"$in": list(conversation_ids)}}
        in_chats = {
            document.get("conversationId")
            for collection in ("conversations", "messages")
            for document in await self._find(collection, query, {"conversationId": 1})
        }
        everything = await self._find(
            "transactions", {"conversationId": {"$in": list(conversation_ids - in_chats)}}, {}
        )
        grouped: dict[tuple[str, str], list[Transaction]] = defaultdict(list)
        for document in sorted(everything, key=lambda document: str(document["_id"])):
            entry = read_transaction(document)
            if entry is not None and entry.conversation_id is not None:
                grouped[entry.conversation_id, entry.message_id or entry.conversation_id].append(entry)
        spending: dict[DocumentKey, Spending | None] = {}
        for document in found:
            conversation_id = filled_string(document.get("conversationId")) or ""
            reference = filled_string(document.get("messageId")) or conversation_id
            key, entries = to_key(document["_id"]), grouped.get((conversation_id, reference))
            user_id = identifier(document.get("user"))
            spending[key] = (
                Spending(key, reference, conversation_id, user_id, tuple(entries)) if entries else None
            )
        return spending

    async def read_turns(self, rows: Sequence[Row]) -> AsyncIterator[Sequence[tuple[Row, TurnRecord | None]]]:
        """The records of rows, in groups of at most `GROUP_BYTES`; None for a row that vanished meanwhile."""
        if not rows:
            return
        skeletons = await self._read_skeletons(rows)
        selections = [
            select_rows(row, skeletons[row.conversation_id, row.user_id], byte_limit=self._history_bytes)
            for row in rows
        ]
        for group in group_selections(selections, byte_limit=GROUP_BYTES):
            yield await self._read_group(group, skeletons)

    async def _read_skeletons(self, rows: Sequence[Row]) -> _Conversations:
        """The rows of the conversations concerned, without content, by owner and message id.

        Two users may own a conversation of the same id: ids are unique only together with the user.
        """
        wanted = list({row.conversation_id for row in rows})
        grouped: dict[tuple[str, str | None], dict[str, Row]] = defaultdict(dict)
        for document in await self._find("messages", {"conversationId": {"$in": wanted}}, _SKELETON):
            row = self._to_row(document)
            if row is not None:
                grouped[row.conversation_id, row.user_id][row.message_id] = row
        return grouped

    async def _read_group(
        self, group: Sequence[RowSelection], skeletons: _Conversations
    ) -> Sequence[tuple[Row, TurnRecord | None]]:
        conversation_ids = list({selection.row.conversation_id for selection in group})
        messages, conversations, transactions = await gather(
            self.read_messages({key for selection in group for key in selection.keys}),
            self._read_conversations(conversation_ids),
            self._read_transactions(group, skeletons),
        )
        ledgers = await self._find_ledgers([selection.row for selection in group], transactions)
        records = [
            make_record(
                selection,
                messages,
                conversations.get((selection.row.conversation_id, selection.row.user_id)),
                transactions.get(selection.row.message_id, ()),
                ledger_kept=selection.row.conversation_id in ledgers,
            )
            for selection in group
        ]
        agents = await self._read_agents(
            {agent for record in records if (agent := saved_agent_id(record)) is not None}
        )
        users = await self._read_users({selection.row.user_id for selection in group})
        return [
            (selection.row, add_user(add_agent(record, agents), users.get(selection.row.user_id or "")))
            for selection, record in zip(group, records, strict=True)
        ]

    async def read_messages(self, keys: Iterable[DocumentKey]) -> Mapping[DocumentKey, Message]:
        """Whole rows by `_id`; a row that is no message is reported and left out."""
        found = await self._find("messages", {"_id": {"$in": [from_key(key) for key in keys]}}, _CONTENT)
        messages = {}
        for document in found:
            key = to_key(document["_id"])
            try:
                messages[key] = read_message(key, document)
            except MalformedDocument as error:
                self._emit(RowUnreadable(error.collection, error.key, error.field))
        return messages

    async def _read_conversations(
        self, conversation_ids: Sequence[str]
    ) -> Mapping[tuple[str, str | None], Conversation]:
        found = await self._find(
            "conversations", {"conversationId": {"$in": conversation_ids}}, {"messages": 0}
        )
        read = (read_conversation(to_key(document["_id"]), document) for document in found)
        return {(item.conversation_id, item.user_id): item for item in read if item is not None}

    async def _read_transactions(
        self, group: Sequence[RowSelection], conversations: _Conversations
    ) -> Mapping[str, tuple[Transaction, ...]]:
        """The transactions of each response: those that name it, and unnamed ones by their times."""
        owners = {(selection.row.conversation_id, selection.row.user_id) for selection in group}
        # A missing messageId equals null here.
        query = {
            "conversationId": {"$in": [conversation_id for conversation_id, _ in owners]},
            "messageId": {"$in": [*(selection.row.message_id for selection in group), None]},
        }
        grouped: dict[str, list[Transaction]] = defaultdict(list)
        unnamed: dict[tuple[str, str | None], list[Transaction]] = defaultdict(list)
        for document in sorted(
            await self._find("transactions", query, {}), key=lambda found: str(found["_id"])
        ):
            entry = read_transaction(document)
            if entry is not None and entry.message_id is not None:
                grouped[entry.message_id].append(entry)
            elif entry is not None and entry.conversation_id is not None:
                unnamed[entry.conversation_id, entry.user_id].append(entry)
        for owner in owners & unnamed.keys():
            for message_id, entries in assign_by_time(unnamed[owner], conversations[owner]).items():
                grouped[message_id].extend(entries)
        return {message_id: tuple(entries) for message_id, entries in grouped.items()}

    async def _find_ledgers(
        self, rows: Sequence[Row], transactions: Mapping[str, tuple[Transaction, ...]]
    ) -> frozenset[str]:
        """The conversations for which LibreChat wrote transactions at all."""
        kept = {row.conversation_id for row in rows if row.message_id in transactions}
        unsure = {row.conversation_id for row in rows} - kept
        for conversation_id in unsure:
            if await self._find("transactions", {"conversationId": conversation_id}, {"_id": 1}, limit=1):
                kept.add(conversation_id)
        return frozenset(kept)

    async def _read_agents(self, agent_ids: Iterable[str]) -> Mapping[str, Agent]:
        wanted = list(agent_ids)
        if not wanted:
            return {}
        fields = {"id": 1, "name": 1, "provider": 1, "model": 1, "instructions": 1, "model_parameters": 1}
        found = (
            read_agent(document) for document in await self._find("agents", {"id": {"$in": wanted}}, fields)
        )
        return {agent.agent_id: agent for agent in found if agent is not None}

    async def _read_users(self, user_ids: Iterable[str | None]) -> Mapping[str, User]:
        """Users by id, each read once in a while: names and roles seldom change."""
        wanted = [user_id for user_id in user_ids if user_id is not None] if self._with_users else []
        missing = [user_id for user_id in wanted if user_id not in self._users]
        if missing:
            keys = [ObjectId(user_id) if ObjectId.is_valid(user_id) else user_id for user_id in missing]
            fields = dict.fromkeys(USER_FIELDS, 1)
            for document in await self._find("users", {"_id": {"$in": keys}}, fields):
                user = read_user(str(document["_id"]), document)
                self._users[user.user_id] = user
        known = ((user_id, self._users.get(user_id)) for user_id in wanted)
        return {user_id: user for user_id, user in known if user is not None}

    async def _find(
        self, collection: str, query: Mapping[str, object], fields: Mapping[str, object], *, limit: int = 0
    ) -> list[dict[str, Any]]:
        if collection in self._denied:
            return []

        async def fetch() -> list[dict[str, Any]]:
            cursor = self._database[collection].find(query, fields or None, batch_size=2000, limit=limit)
            found: list[dict[str, Any]] = await cursor.to_list(None)
            return found

        try:
            return await keep_trying(fetch, lambda failure: self._emit(ReadFailed(collection, failure)))
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED or collection in ("messages", "conversations"):
                raise
            self._denied.add(collection)
            self._emit(CollectionDenied(collection))
            return []

    def _to_row(self, document: Mapping[str, Any]) -> Row | None:
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
        )
