"""Reads what the turns of a round need, in one job on the driver's thread where nothing is large: the rows that
`RowChoice` finds, then what they name (the conversation, transactions, agents), and makes the turns' records of it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bson import ObjectId

from tailer.core.identity import DocumentKey
from tailer.core.librechat.bson_values import count
from tailer.core.librechat.conversations import Agent, Conversation, read_agent, read_conversation
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.policy.users import User
from tailer.core.turn.assembly import Draft, make_draft, make_record
from tailer.core.turn.readback import Owner, Row, owner_of
from tailer.core.turn.selection import RowSelection, group_selections
from tailer.core.turn.temporary import is_temporary
from tailer.core.turn.turns import TurnRecord
from tailer.mongo.document_keys import from_key, to_key
from tailer.mongo.message_rows import CONTENT_FIELDS, HISTORY_FIELDS, ROW_FIELDS, SMALL_BYTES
from tailer.mongo.reading import Reading
from tailer.mongo.row_choice import Found, RowChoice
from tailer.mongo.transactions import read_ledger_of, read_transactions

_NEARBY_SECONDS: Final = 3_600
_NEARBY_ROWS: Final = 30
"""How far around a row others are looked at, and how many each way, where only they can tell what it is."""

Records = Sequence[tuple[Row, TurnRecord | None]]
Group = Sequence[RowSelection]


@dataclass(frozen=True, slots=True)
class Begun:
    """The records of the first group, the groups that follow it with what was read for them, and rows that were not
    looked at."""

    records: Records
    later: Sequence[Group]
    found: Found
    unread: Sequence[Row]


class TurnReading:
    """The jobs. `history_bytes` is how much text of earlier rows a trace shows, `stored_bytes` how much of them is read
    at most, `group_bytes` how much is in memory at once."""

    def __init__(self, *, history_bytes: int, stored_bytes: int, group_bytes: int) -> None:
        self._group_bytes = group_bytes
        self._choice = RowChoice(
            history_bytes=history_bytes, stored_bytes=stored_bytes, most_bytes=group_bytes
        )

    def begin(self, rows: Sequence[Row], users: Mapping[str, User], reading: Reading) -> Begun:
        """Choose what to read for rows, which come in the order of their conversations, and read the first group."""
        found = Found()
        large = [row.key for row in rows if row.stored_bytes >= SMALL_BYTES]
        found.messages.update(read_messages(reading, large, CONTENT_FIELDS))
        unread = self._choice.choose(rows, found, reading)
        groups = list(group_selections(found.selections, byte_limit=self._group_bytes))
        records = self.finish(groups[0], found, users, reading) if groups else ()
        return Begun(records, groups[1:], found, unread)

    def finish(self, group: Group, found: Found, users: Mapping[str, User], reading: Reading) -> Records:
        """Read what is missing for a group, and make its records."""
        own = {selection.row.key for selection in group}
        own |= {selection.question.key for selection in group if selection.question is not None}
        earlier = {row.key for selection in group for row in selection.ancestors} - own
        messages = {
            **found.earlier,
            **_read_earlier(reading, earlier - found.messages.keys() - found.earlier.keys()),
            **found.messages,
            **read_messages(reading, own - found.messages.keys(), CONTENT_FIELDS),
        }
        conversations = _read_conversations(
            reading, list({selection.row.conversation_id for selection in group})
        )
        transactions = read_transactions(reading, group, found.excerpts)
        drafts = [
            self._make_draft(
                reading,
                selection,
                messages,
                conversations.get(owner_of(selection.row)),
                transactions.get(selection.row.message_id, ()),
            )
            for selection in group
        ]
        named = {agent_id for draft in drafts if draft is not None for agent_id in draft.agent_ids}
        agents = _read_agents(reading, named)
        return [
            (
                selection.row,
                None
                if draft is None
                else make_record(draft, messages, agents, users.get(selection.row.user_id or "")),
            )
            for selection, draft in zip(group, drafts, strict=True)
        ]

    def _make_draft(
        self,
        reading: Reading,
        selection: RowSelection,
        messages: Mapping[DocumentKey, Message],
        conversation: Conversation | None,
        transactions: tuple[Transaction, ...],
    ) -> Draft | None:
        """The draft with what only other rows tell: whether it is a copy, and where it was billed. Most need nothing
        more."""
        draft = make_draft(selection, messages, conversation, transactions, now_seconds=time.time())
        if draft is None:
            return None
        answers = draft.rows_to_compare
        if answers:
            keys = (row.key for row in answers)
            draft = draft.with_answers(_read_earlier(reading, keys).values())
        if draft.needs_rows_elsewhere:
            draft = draft.with_rows_elsewhere(_read_nearby(reading, selection.row))
        counted = draft.rows_to_count
        if counted:
            draft = draft.with_counts(_read_counts(reading, [row.key for row in counted]))
        parent = draft.parent_turn
        if parent is not None:
            draft = draft.with_ledger_of(parent, read_ledger_of(reading, parent))
        return draft


def read_settled_messages(
    reading: Reading, keys: Iterable[DocumentKey], fields: Mapping[str, object]
) -> dict[DocumentKey, Message]:
    """As `read_messages`, each temporary where its conversation says so, whatever the row itself says."""
    messages = read_messages(reading, keys, fields)
    conversations = _read_conversations(
        reading, list({message.conversation_id for message in messages.values()})
    )
    return {
        key: replace(
            message,
            temporary=is_temporary(message, conversations.get((message.conversation_id, message.user_id))),
        )
        for key, message in messages.items()
    }


def read_messages(
    reading: Reading, keys: Iterable[DocumentKey], fields: Mapping[str, object]
) -> dict[DocumentKey, Message]:
    """Whole messages by `_id`. A row that is not a message is reported and left out."""
    found = map(reading.read_message, _find_messages(reading, keys, fields))
    return {message.key: message for message in found if message is not None}


def _read_earlier(reading: Reading, keys: Iterable[DocumentKey]) -> dict[DocumentKey, Message]:
    """Messages by `_id`, as far as a history shows them."""
    documents = _find_messages(reading, keys, HISTORY_FIELDS)
    found = [reading.read_message(document, earlier=True) for document in documents]
    return {message.key: message for message in found if message is not None}


def _read_counts(reading: Reading, keys: Iterable[DocumentKey]) -> Sequence[int | None]:
    """What LibreChat counted of messages, as far as they are still stored, in any order."""
    return [
        count(document.get("tokenCount")) for document in _find_messages(reading, keys, {"tokenCount": 1})
    ]


def _find_messages(
    reading: Reading, keys: Iterable[DocumentKey], fields: Mapping[str, object]
) -> list[dict[str, Any]]:
    wanted = [from_key(key) for key in keys]
    return reading.find("messages", {"_id": {"$in": wanted}}, fields) if wanted else []


def _read_nearby(reading: Reading, row: Row) -> Sequence[Row]:
    """Rows of other conversations that were inserted shortly before and after a row."""
    own = from_key(row.key)
    if not isinstance(own, ObjectId):
        return []
    found: list[Mapping[str, Any]] = []
    for operator, order, seconds in (("$lt", -1, -_NEARBY_SECONDS), ("$gt", 1, _NEARBY_SECONDS)):
        bound = ObjectId(f"{max(0, int(row.key[:8], 16) + seconds):08x}" + "00" * 8)
        limits = {operator: own, "$gte" if order < 0 else "$lt": bound}
        query = {"_id": limits, "conversationId": {"$ne": row.conversation_id}}
        found += reading.find("messages", query, ROW_FIELDS, limit=_NEARBY_ROWS, sort=[("_id", order)])
    rows = (reading.read_row(item, item.get("bytes")) for item in found)
    return [row for row in rows if row is not None]


def _read_conversations(reading: Reading, conversation_ids: Sequence[str]) -> Mapping[Owner, Conversation]:
    query = {"conversationId": {"$in": conversation_ids}}
    found = reading.find("conversations", query, {"messages": 0})
    read = (read_conversation(to_key(document["_id"]), document) for document in found)
    return {(item.conversation_id, item.user_id): item for item in read if item is not None}


def _read_agents(reading: Reading, agent_ids: Iterable[str]) -> Mapping[str, Agent]:
    wanted = list(agent_ids)
    if not wanted:
        return {}
    own = ("name", "provider", "model", "instructions", "model_parameters", "updatedAt")
    fields = {"id": 1, **dict.fromkeys(own, 1), **{f"versions.{name}": 1 for name in own}}
    found = map(read_agent, reading.find("agents", {"id": {"$in": wanted}}, fields))
    return {agent.agent_id: agent for agent in found if agent is not None}
