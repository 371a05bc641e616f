"""Reads rows back in batches: what a turn needs, by indexed queries only, in groups of bounded size.

Queries use the indexes that LibreChat itself creates: `_id`, `messageId` and `conversationId` of `messages`,
`conversationId` of `conversations` and `transactions`, `id` of `agents`. Collections that the user may not read
(`transactions`, `agents`) are asked once and then left alone.
"""

from asyncio import gather
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

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
from tailer.core.rows import (
    Row,
    RowSelection,
    add_agent,
    group_selections,
    make_record,
    saved_agent_id,
    select_rows,
)
from tailer.core.turns import TurnRecord
from tailer.core.usage import TITLE_CONTEXT
from tailer.core.values import count, filled_string, identifier, milliseconds, strings
from tailer.events import CollectionDenied, Emit, ReadFailed, RowUnreadable
from tailer.mongo.connection import Database
from tailer.mongo.keys import from_key, to_key
from tailer.mongo.persistence import keep_trying

GROUP_BYTES = 2_000_000
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
    "metadata.contextUsage.breakdown": 0,
}
"""Large fields that no trace shows."""
_HISTORY = {"messageId": 1, "conversationId": 1, "isCreatedByUser": 1, "text": 1, "content": 1}
"""What an earlier row adds to a prompt: most rows that are read are only history, and their bookkeeping is as much work
as their text."""


class MongoDocuments:
    """A `DocumentReader` over LibreChat's database."""

    def __init__(self, database: Database, emit: Emit, *, history_bytes: int) -> None:
        self._database = database
        self._emit = emit
        self._history_bytes = history_bytes * _HISTORY_FACTOR
        self._denied: set[str] = set()

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
            yield await self._read_group(group)

    async def _read_skeletons(
        self, rows: Sequence[Row]
    ) -> Mapping[tuple[str, str | None], Mapping[str, Row]]:
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

    async def _read_group(self, group: Sequence[RowSelection]) -> Sequence[tuple[Row, TurnRecord | None]]:
        conversation_ids = list({selection.row.conversation_id for selection in group})
        message_ids = [selection.row.message_id for selection in group]
        asked = {selection.row.key for selection in group}
        own = asked | {selection.question.key for selection in group if selection.question is not None}
        earlier = {row.key for selection in group for row in selection.ancestors} - own
        messages, history, conversations, transactions = await gather(
            self._read_messages(own, _CONTENT),
            self._read_messages(earlier, _HISTORY),
            self._read_conversations(conversation_ids),
            self._read_transactions(conversation_ids, message_ids),
        )
        rows_read = {**history, **messages}
        ledgers = await self._find_ledgers([selection.row for selection in group], transactions)
        records = [
            make_record(
                selection,
                rows_read,
                conversations.get((selection.row.conversation_id, selection.row.user_id)),
                transactions.get(selection.row.message_id, ()),
                ledger_kept=selection.row.conversation_id in ledgers,
            )
            for selection in group
        ]
        agents = await self._read_agents(
            {agent for record in records if (agent := saved_agent_id(record)) is not None}
        )
        return [
            (selection.row, add_agent(record, agents))
            for selection, record in zip(group, records, strict=True)
        ]

    async def _read_messages(
        self, keys: Iterable[DocumentKey], fields: Mapping[str, object]
    ) -> Mapping[DocumentKey, Message]:
        wanted = [from_key(key) for key in keys]
        if not wanted:
            return {}
        found = await self._find("messages", {"_id": {"$in": wanted}}, fields)
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
        self, conversation_ids: Sequence[str], message_ids: Sequence[str]
    ) -> Mapping[str, tuple[Transaction, ...]]:
        query = {"conversationId": {"$in": conversation_ids}, "messageId": {"$in": message_ids}}
        grouped: dict[str, list[Transaction]] = defaultdict(list)
        for document in sorted(
            await self._find("transactions", query, {}), key=lambda found: str(found["_id"])
        ):
            entry = read_transaction(document)
            if entry is not None and entry.message_id is not None:
                grouped[entry.message_id].append(entry)
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
