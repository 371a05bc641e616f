"""Reads rows back in batches: what a turn needs, by indexed queries only, in groups of bounded size.

Queries use the indexes that LibreChat itself creates: `_id`, `messageId` and `conversationId` of `messages`,
`conversationId` of `conversations` and `transactions`, `id` of `agents`. Collections that the user may not read
(`transactions`, `agents`) are asked once and then left alone.
"""

from asyncio import gather
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from bson import ObjectId

from tailer.core.identity import DocumentKey
from tailer.core.librechat.bson_values import filled_string, identifier
from tailer.core.librechat.conversations import Agent, Conversation, read_agent, read_conversation
from tailer.core.librechat.documents import MalformedDocument, Message, Transaction, read_message
from tailer.core.trace.followup import SentTurn
from tailer.core.trace.spending import Spending
from tailer.core.turn.readback import (
    ConversationRows,
    DeletedRow,
    Row,
    RowSelection,
    add_agent,
    add_answers,
    add_rows_elsewhere,
    add_user,
    group_selections,
    make_record,
    named_agent_ids,
    needs_rows_elsewhere,
    rows_to_compare,
    select_rows,
)
from tailer.core.turn.turns import TurnRecord
from tailer.core.turn.usage import TITLE_CONTEXT
from tailer.events import Emit, RowUnreadable
from tailer.mongo.collections import ROW_FIELDS, Collections
from tailer.mongo.connection import Database
from tailer.mongo.document_keys import from_key, to_key
from tailer.mongo.transactions import (
    read_deleted,
    read_ledgers,
    read_spending,
    read_transactions,
    read_transactions_by_key,
)
from tailer.mongo.users import Users

GROUP_BYTES = 2_000_000
"""Stored bytes of the rows that are in memory at once; a single larger row is a group of its own."""
_HISTORY_FACTOR = 4
"""A stored row is larger than its text by ids, usage and tool results, so this many times the limit is read."""
_NEARBY_SECONDS = 3_600
_NEARBY_ROWS = 30
"""How far around a row others are looked at, and how many each way, where only they can tell what it is."""
_CONTENT = {
    **{
        f"attachments.web_search.{group}.{field}": 0
        for group in ("organic", "topStories", "news")
        for field in ("content", "snippet", "highlights", "references", "processed")
    },
    **{
        f"attachments.web_search.{group}": 0
        for group in (
            "images",
            "videos",
            "places",
            "shopping",
            "relatedSearches",
            "peopleAlsoAsk",
            "knowledgeGraph",
            "answerBox",
            "references",
        )
    },
    "attachments.file_search.sources.content": 0,
    "attachments.ui_resources": 0,
    "subagentTranscript": 0,
    "metadata.thoughtSignatures": 0,
    "metadata.contextUsage.breakdown.toolTokenCounts": 0,
    "metadata.contextUsage.breakdown.deferredToolNames": 0,
}
"""Large fields that no trace shows."""
_HISTORY = {"messageId": 1, "conversationId": 1, "isCreatedByUser": 1, "text": 1, "quotes": 1, "content": 1}
"""What an earlier row adds to a prompt: most rows that are read are only history, and their bookkeeping is as much work
as their text."""


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
    ) -> None:
        self._emit = emit
        self._collections = Collections(database, emit, proven=proven)
        self._users = Users(self._collections, wanted=with_users, with_groups=with_groups)
        self._history_bytes = history_bytes * _HISTORY_FACTOR

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
        conversations = await self._collections.find(
            "conversations",
            {"_id": {"$in": [from_key(key) for key in keys]}},
            {"conversationId": 1, "user": 1},
        )
        # By owner too, because ids are unique only together with the user.
        by_conversation = {
            (conversation_id, identifier(document.get("user"))): to_key(document["_id"])
            for document in conversations
            if (conversation_id := filled_string(document.get("conversationId"))) is not None
        }
        titles = await self._collections.find(
            "transactions",
            {"conversationId": {"$in": [item for item, _ in by_conversation]}, "context": TITLE_CONTEXT},
            {"messageId": 1, "conversationId": 1},
        )
        message_ids = {filled_string(document.get("messageId")) for document in titles} - {None}
        found = await self._collections.find(
            "messages", {"messageId": {"$in": list(message_ids)}}, ROW_FIELDS
        )
        rows = [row for row in map(self._collections.read_row, found) if row is not None]
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
        found = await self._collections.find("messages", query, ROW_FIELDS)
        pairs = []
        for row in filter(None, map(self._collections.read_row, found)):
            question = by_id.get((row.conversation_id, row.user_id, row.parent_message_id or ""))
            if question is not None and not row.created_by_user:
                pairs.append((row, question))
        return pairs

    async def read_ledgers(self, turns: Sequence[SentTurn]) -> Mapping[str, Sequence[Transaction]]:
        """The transactions that name the responses of turns, by message id."""
        return await read_ledgers(self._collections, turns)

    async def read_transactions(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Transaction]:
        """Transactions by `_id`."""
        return await read_transactions_by_key(self._collections, keys)

    async def read_spending(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Spending | None]:
        """For transactions by `_id`: the whole spending each belongs to, None where a chat has it."""
        return await read_spending(self._collections, keys)

    async def read_deleted(self, rows: Mapping[DocumentKey, DeletedRow]) -> Mapping[DocumentKey, Spending]:
        """What was spent on responses that are not stored any more."""
        return await read_deleted(self._collections, rows)

    async def read_turns(self, rows: Sequence[Row]) -> AsyncIterator[Sequence[tuple[Row, TurnRecord | None]]]:
        """The records of rows, in groups of at most `GROUP_BYTES`; None for a row that has vanished."""
        if not rows:
            return
        skeletons = await self._read_skeletons(rows)
        selections = [
            select_rows(row, skeletons[row.conversation_id, row.user_id], byte_limit=self._history_bytes)
            for row in rows
        ]
        for group in group_selections(selections, byte_limit=GROUP_BYTES):
            yield await self._read_group(group, skeletons)

    async def _read_skeletons(self, rows: Sequence[Row]) -> ConversationRows:
        """The rows of the conversations concerned, without content, by owner and message id.

        Two users may own a conversation of the same id: ids are unique only together with the user.
        """
        wanted = list({row.conversation_id for row in rows})
        grouped: dict[tuple[str, str | None], dict[str, Row]] = defaultdict(dict)
        for document in await self._collections.find(
            "messages", {"conversationId": {"$in": wanted}}, ROW_FIELDS
        ):
            row = self._collections.read_row(document)
            if row is not None:
                grouped[row.conversation_id, row.user_id][row.message_id] = row
        return grouped

    async def _read_group(
        self, group: Sequence[RowSelection], skeletons: ConversationRows
    ) -> Sequence[tuple[Row, TurnRecord | None]]:
        conversation_ids = list({selection.row.conversation_id for selection in group})
        asked = {selection.row.key for selection in group}
        own = asked | {selection.question.key for selection in group if selection.question is not None}
        earlier = {row.key for selection in group for row in selection.ancestors} - own
        messages, history, conversations, transactions = await gather(
            self.read_messages(own),
            self._read_rows(earlier, _HISTORY),
            self._read_conversations(conversation_ids),
            read_transactions(self._collections, group, skeletons),
        )
        rows_read = {**history, **messages}
        records = [
            make_record(
                selection,
                rows_read,
                conversations.get((selection.row.conversation_id, selection.row.user_id)),
                transactions.get(selection.row.message_id, ()),
            )
            for selection in group
        ]
        records = [
            await self._compare(record, selection) for record, selection in zip(records, group, strict=True)
        ]
        agents = await self._read_agents(
            {agent_id for record in records for agent_id in named_agent_ids(record)}
        )
        users = await self._users.read({selection.row.user_id for selection in group})
        return [
            (selection.row, add_user(add_agent(record, agents), users.get(selection.row.user_id or "")))
            for selection, record in zip(group, records, strict=True)
        ]

    async def _compare(self, record: TurnRecord | None, selection: RowSelection) -> TurnRecord | None:
        """The record with what only other rows tell: whether it is a copy. Most records need nothing more."""
        answers = rows_to_compare(record, selection)
        if answers:
            read = await self._read_rows((row.key for row in answers), _HISTORY)
            record = add_answers(record, read.values())
        if needs_rows_elsewhere(record):
            record = add_rows_elsewhere(record, await self._read_nearby(selection.row))
        return record

    async def _read_nearby(self, row: Row) -> Sequence[Row]:
        """Rows of other conversations that were inserted shortly before and after a row."""
        own = from_key(row.key)
        if not isinstance(own, ObjectId):
            return []
        found: list[Mapping[str, Any]] = []
        for operator, order, seconds in (("$lt", -1, -_NEARBY_SECONDS), ("$gt", 1, _NEARBY_SECONDS)):
            bound = ObjectId(f"{max(0, int(row.key[:8], 16) + seconds):08x}" + "00" * 8)
            limits = {operator: own, "$gte" if order < 0 else "$lt": bound}
            query = {"_id": limits, "conversationId": {"$ne": row.conversation_id}}
            found += await self._collections.find(
                "messages", query, ROW_FIELDS, limit=_NEARBY_ROWS, sort=[("_id", order)]
            )
        return [item for item in map(self._collections.read_row, found) if item is not None]

    async def read_messages(self, keys: Iterable[DocumentKey]) -> Mapping[DocumentKey, Message]:
        """Whole rows by `_id`. A row that is not a message is reported and left out."""
        return await self._read_rows(keys, _CONTENT)

    async def _read_rows(
        self, keys: Iterable[DocumentKey], fields: Mapping[str, object]
    ) -> Mapping[DocumentKey, Message]:
        wanted = [from_key(key) for key in keys]
        if not wanted:
            return {}
        found = await self._collections.find("messages", {"_id": {"$in": wanted}}, fields)
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
        found = await self._collections.find(
            "conversations", {"conversationId": {"$in": conversation_ids}}, {"messages": 0}
        )
        read = (read_conversation(to_key(document["_id"]), document) for document in found)
        return {(item.conversation_id, item.user_id): item for item in read if item is not None}

    async def _read_agents(self, agent_ids: Iterable[str]) -> Mapping[str, Agent]:
        wanted = list(agent_ids)
        if not wanted:
            return {}
        own = ("name", "provider", "model", "instructions", "model_parameters", "updatedAt")
        fields = {"id": 1, **dict.fromkeys(own, 1), **{f"versions.{name}": 1 for name in own}}
        found = (
            read_agent(document)
            for document in await self._collections.find("agents", {"id": {"$in": wanted}}, fields)
        )
        return {agent.agent_id: agent for agent in found if agent is not None}
