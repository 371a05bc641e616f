"""Rows read back from a LibreChat in memory, by the same pure rules as from a real one."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import bson

from tailer.core.identity import DocumentKey, inserted_seconds
from tailer.core.librechat.bson_values import filled_string, identifier
from tailer.core.librechat.conversations import Conversation, read_agent, read_conversation
from tailer.core.librechat.messages import MalformedDocument, Message, read_message
from tailer.core.librechat.transactions import Transaction, read_transaction
from tailer.core.policy.users import User, read_user
from tailer.core.trace.followup import SentTurn
from tailer.core.trace.spending import Spending, make_spending, names_chat_message
from tailer.core.turn.assembly import Draft, make_draft, make_record
from tailer.core.turn.readback import DeletedRow, Excerpts, Owner, Row, make_excerpt, owner_of
from tailer.core.turn.selection import HistoryLimits, RowSelection, group_selections, select_rows
from tailer.core.turn.temporary import is_temporary
from tailer.core.turn.transactions_by_time import assign_by_time
from tailer.core.turn.turns import TurnRecord
from tailer.core.turn.usage import TITLE_CONTEXT
from tailer.mongo.document_keys import to_key
from tailer.mongo.message_rows import read_row
from tests.memory.librechat import Document, MemoryLibreChat

_NEARBY_SECONDS = 3600
_NEARBY_ROWS = 30
_Item = TypeVar("_Item")


class MemoryReader:
    """A `DocumentReader`. `group_bytes` bounds one group of records; `latency_seconds` is what a call takes."""

    def __init__(
        self,
        librechat: MemoryLibreChat,
        *,
        history_bytes: int = 64_000,
        group_bytes: int = 2_000_000,
        with_users: bool = False,
    ) -> None:
        self._librechat = librechat
        self._history_bytes = history_bytes * 4
        self._group_bytes = group_bytes
        self._with_users = with_users
        self.latency_seconds = 0.0
        self.titles_located = 0

    async def locate(self, keys: Sequence[DocumentKey]) -> Sequence[Row]:
        await asyncio.sleep(self.latency_seconds)
        return _present(map(read_stored_row, self._librechat.find("messages", keys)))

    async def find_existing(self, keys: Sequence[DocumentKey]) -> frozenset[DocumentKey]:
        await asyncio.sleep(self.latency_seconds)
        return frozenset(to_key(document["_id"]) for document in self._librechat.find("messages", keys))

    async def locate_titled(self, keys: Sequence[DocumentKey]) -> Sequence[tuple[DocumentKey, Row]]:
        self.titles_located += len(keys)
        await asyncio.sleep(self.latency_seconds)
        titled = {
            (document.get("conversationId"), identifier(document.get("user"))): to_key(document["_id"])
            for document in self._librechat.find("conversations", keys)
        }
        billed = {
            document.get("messageId")
            for document in self._librechat.find("transactions")
            if document.get("context") == TITLE_CONTEXT
        }
        for owner in titled:
            rows = {row.message_id: row for row in self._rows() if owner_of(row) == owner}
            unnamed = [
                entry
                for entry in self._transactions()
                if (entry.conversation_id, entry.user_id) == owner and entry.context == TITLE_CONTEXT
            ]
            billed |= assign_by_time([entry for entry in unnamed if entry.message_id is None], rows).keys()
        return [
            (titled[row.conversation_id, row.user_id], row)
            for row in self._rows()
            if row.message_id in billed and (row.conversation_id, row.user_id) in titled
        ]

    async def locate_answers(self, questions: Sequence[Row]) -> Sequence[tuple[Row, Row]]:
        await asyncio.sleep(self.latency_seconds)
        return [
            (row, question)
            for question in questions
            for row in self._rows()
            if (row.conversation_id, row.user_id) == (question.conversation_id, question.user_id)
            and row.parent_message_id == question.message_id
            and not row.created_by_user
        ]

    async def read_messages(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Message]:
        await asyncio.sleep(self.latency_seconds)
        found = {}
        for document in self._librechat.find("messages", list(keys)):
            key = to_key(document["_id"])
            try:
                message = read_message(key, document)
            except MalformedDocument:
                continue
            conversation = self._conversation_of((message.conversation_id, message.user_id))
            found[key] = replace(message, temporary=is_temporary(message, conversation))
        return found

    async def read_ledgers(
        self, turns: Sequence[SentTurn], *, only_news: bool = False
    ) -> Mapping[str, Sequence[Transaction]]:
        await asyncio.sleep(self.latency_seconds)
        found = {}
        for turn in turns:
            own = [entry for entry in self._transactions() if entry.message_id == turn.message_id]
            if only_news:
                counted = turn.transactions or ()
                own = [entry for entry in own if entry.key not in counted and entry.context != TITLE_CONTEXT]
            if own:
                found[turn.message_id] = tuple(own)
        return found

    async def read_unnamed(
        self, conversation_id: str, user_id: str | None, since_seconds: int
    ) -> Sequence[Transaction]:
        await asyncio.sleep(self.latency_seconds)
        return [
            entry
            for entry in self._transactions()
            if (entry.message_id, entry.conversation_id, entry.user_id) == (None, conversation_id, user_id)
            and (inserted_seconds(DocumentKey(entry.key)) or 0) >= since_seconds - 5
        ]

    async def read_transactions(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Transaction]:
        await asyncio.sleep(self.latency_seconds)
        found = {
            to_key(item["_id"]): read_transaction(item) for item in self._librechat.find("transactions", keys)
        }
        return {key: entry for key, entry in found.items() if entry is not None}

    async def read_spending(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Spending | None]:
        await asyncio.sleep(self.latency_seconds)
        calls: dict[Owner, list[Transaction]] = defaultdict(list)
        for entry in self._transactions():
            if entry.conversation_id is not None:
                calls[entry.conversation_id, entry.message_id or entry.conversation_id].append(entry)
        spending: dict[DocumentKey, Spending | None] = {}
        for document in self._librechat.find("transactions", keys):
            conversation_id = filled_string(document.get("conversationId")) or ""
            reference = filled_string(document.get("messageId")) or conversation_id
            in_chat = self._is_in_chat(document, reference)
            key, user_id = to_key(document["_id"]), identifier(document.get("user"))
            entries = () if in_chat else calls.get((conversation_id, reference), ())
            made = make_spending(key, reference, conversation_id, user_id, entries)
            spending[key] = None if made is None else replace(made, user=self._user_of(user_id))
        return spending

    async def read_deleted(self, rows: Mapping[DocumentKey, DeletedRow]) -> Mapping[DocumentKey, Spending]:
        await asyncio.sleep(self.latency_seconds)
        spent = {
            key: [
                entry
                for entry in self._transactions()
                if (entry.conversation_id, entry.message_id) == (row.conversation_id, row.message_id)
            ]
            for key, row in rows.items()
        }
        return {
            key: Spending(
                key,
                rows[key].message_id,
                rows[key].conversation_id,
                entries[0].user_id,
                tuple(entries),
                is_deleted_turn=True,
                may_be_temporary=rows[key].may_be_temporary
                or self._may_be_temporary((rows[key].conversation_id, entries[0].user_id)),
            )
            for key, entries in spent.items()
            if entries
        }

    def _may_be_temporary(self, owner: Owner) -> bool:
        conversation = self._conversation_of(owner)
        return conversation is not None and conversation.temporary is not False

    def _is_in_chat(self, document: Document, reference: str) -> bool:
        """Its message is stored, or will be; or it names none, and its conversation is one."""
        messages = self._librechat.find("messages")
        conversation_id = document.get("conversationId")
        is_used = any(message.get("conversationId") == conversation_id for message in messages)
        if filled_string(document.get("messageId")) is None:
            conversations = self._librechat.find("conversations")
            is_kept = any(found.get("conversationId") == conversation_id for found in conversations)
            return is_used or is_kept
        is_stored = any(message.get("messageId") == reference for message in messages)
        return is_stored or (is_used and names_chat_message(reference))

    async def read_turns(self, rows: Sequence[Row]) -> AsyncIterator[Sequence[tuple[Row, TurnRecord | None]]]:
        await asyncio.sleep(self.latency_seconds)
        conversations: dict[Owner, list[Row]] = defaultdict(list)
        for row in self._rows():
            conversations[owner_of(row)].append(row)
        excerpts = {owner_of(row): make_excerpt(conversations[owner_of(row)], complete=True) for row in rows}
        limits = HistoryLimits(self._history_bytes)
        selections = [select_rows(row, excerpts[owner_of(row)], limits) for row in rows]
        for group in group_selections(selections, byte_limit=self._group_bytes):
            messages = await self.read_messages([key for selection in group for key in selection.keys])
            yield [(selection.row, self._make_record(selection, messages, excerpts)) for selection in group]

    def _make_record(
        self, selection: RowSelection, messages: Mapping[DocumentKey, Message], excerpts: Excerpts
    ) -> TurnRecord | None:
        row = selection.row
        own = [entry for entry in self._transactions() if entry.conversation_id == row.conversation_id]
        unnamed = [entry for entry in own if entry.message_id is None and entry.user_id == row.user_id]
        by_time = assign_by_time(unnamed, excerpts[owner_of(row)].rows)
        named = [entry for entry in own if entry.message_id == row.message_id]
        draft = make_draft(
            selection,
            messages,
            self._conversation_of(owner_of(row)),
            (*named, *by_time.get(row.message_id, ())),
            now_seconds=self._librechat.seconds,
        )
        if draft is None:
            return None
        agents = _present(map(read_agent, self._librechat.find("agents")))
        user = self._user_of(row.user_id)
        named_agents = {agent.agent_id: agent for agent in agents}
        return make_record(self._compare(draft), messages, named_agents, user)

    def _user_of(self, user_id: str | None) -> User | None:
        users = self._librechat.find("users") if self._with_users else []
        owner = next((item for item in users if str(item["_id"]) == user_id), None)
        return None if owner is None else read_user(str(owner["_id"]), owner)

    def _compare(self, draft: Draft) -> Draft:
        """The draft with what only other rows tell: whether it is a copy, and where it was billed."""
        others = self._librechat.find("messages", [row.key for row in draft.rows_to_compare])
        if others:
            draft = draft.with_answers([read_message(to_key(other["_id"]), other) for other in others])
        if draft.needs_rows_elsewhere:
            draft = draft.with_rows_elsewhere(self._rows_nearby(draft.selection.row))
        counted = self._librechat.find("messages", [row.key for row in draft.rows_to_count])
        if counted:
            draft = draft.with_counts([document.get("tokenCount") for document in counted])
        parent = draft.parent_turn
        if parent is not None:
            ledger = [item for item in self._transactions() if item.message_id == parent.message_id]
            draft = draft.with_ledger_of(parent, ledger)
        return draft

    def _rows_nearby(self, row: Row) -> list[Row]:
        """Rows of other conversations that were inserted up to an hour before or after, thirty each way at most."""
        own = inserted_seconds(row.key)
        if own is None:
            return []
        others = sorted(self._rows(), key=lambda other: other.key)
        near = [
            other
            for other in others
            if other.conversation_id != row.conversation_id
            and abs((inserted_seconds(other.key) or 0) - own) <= _NEARBY_SECONDS
        ]
        before = [other for other in near if other.key < row.key]
        return [*before[-_NEARBY_ROWS:], *near[len(before) :][:_NEARBY_ROWS]]

    def _conversation_of(self, owner: Owner) -> Conversation | None:
        stored = (
            read_conversation(to_key(document["_id"]), document)
            for document in self._librechat.find("conversations")
        )
        return next(
            (item for item in _present(stored) if (item.conversation_id, item.user_id) == owner), None
        )

    def _transactions(self) -> list[Transaction]:
        stored = sorted(self._librechat.find("transactions"), key=lambda document: str(document["_id"]))
        return _present(map(read_transaction, stored))

    def _rows(self) -> list[Row]:
        return _present(map(read_stored_row, self._librechat.find("messages")))


def read_stored_row(document: Document) -> Row | None:
    """A message as `MongoDocuments` reads it; its length is that of the stored document."""
    return read_row(document, len(bson.encode(document)))


def _present(items: Iterable[_Item | None]) -> list[_Item]:
    return [item for item in items if item is not None]
