"""Reads `transactions`: those of turns, and spending that belongs to no chat."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson import ObjectId

from tailer.core.identity import DocumentKey
from tailer.core.librechat.bson_values import filled_string, identifier
from tailer.core.librechat.conversations import read_conversation
from tailer.core.librechat.transactions import Transaction, read_transaction
from tailer.core.trace.followup import SentTurn
from tailer.core.trace.spending import Spending, make_spending, names_chat_message
from tailer.core.turn.assembly import ParentTurn
from tailer.core.turn.ledgers import entries_of_user
from tailer.core.turn.readback import DeletedRow, Excerpt, Excerpts, Owner, Row, owner_of
from tailer.core.turn.selection import RowSelection, began_seconds
from tailer.core.turn.transactions_by_time import assign_by_time
from tailer.core.turn.usage import TITLE_CONTEXT
from tailer.mongo.collections import Collections
from tailer.mongo.document_keys import from_key, to_key
from tailer.mongo.message_rows import ROW_FIELDS
from tailer.mongo.reading import Reading
from tailer.mongo.recent_transactions import read_recent

TRANSACTION_FIELDS: Final[Mapping[str, object]] = dict.fromkeys(
    (
        "messageId",
        "conversationId",
        "user",
        "tokenType",
        "rawAmount",
        "tokenValue",
        "context",
        "model",
        "inputTokens",
        "writeTokens",
        "readTokens",
        "rate",
        "createdAt",
        "tenantId",
    ),
    1,
)
"""What `read_transaction` reads."""
_EARLIER_SECONDS: Final = 5
"""How much earlier than its question a turn's transactions may seem to have been written: clocks differ."""
_RECENT_SECONDS: Final = 3_600
_SHARED_MILLISECONDS: Final = 15_000
"""An entry that names no message belongs to a response of at most so much earlier (`transactions_by_time`)."""


def read_transactions(
    reading: Reading, group: Sequence[RowSelection], excerpts: Excerpts
) -> Mapping[str, tuple[Transaction, ...]]:
    """The transactions of each response: those that name it, and unnamed ones by their times."""
    owners = {owner_of(selection.row) for selection in group}
    grouped: dict[str, list[Transaction]] = defaultdict(list)
    unnamed: dict[Owner, list[Transaction]] = defaultdict(list)
    for document in sorted(_find_entries(reading, group, excerpts), key=_by_id):
        entry = read_transaction(document)
        if entry is not None and entry.message_id is not None:
            grouped[entry.message_id].append(entry)
        elif entry is not None and entry.conversation_id is not None:
            unnamed[entry.conversation_id, entry.user_id].append(entry)
    for owner in owners & unnamed.keys():
        rows = _rows_around(reading, owner, group, excerpts[owner])
        for message_id, entries in assign_by_time(unnamed[owner], rows).items():
            grouped[message_id].extend(entries)
    return {message_id: tuple(entries) for message_id, entries in grouped.items()}


def read_ledger_of(reading: Reading, turn: ParentTurn) -> Sequence[Transaction]:
    """The transactions that name the response of one turn."""
    query = {"conversationId": turn.conversation_id, "messageId": turn.message_id}
    found = map(read_transaction, reading.find("transactions", query, TRANSACTION_FIELDS))
    return [entry for entry in found if entry is not None]


def _rows_around(
    reading: Reading, owner: Owner, group: Sequence[RowSelection], excerpt: Excerpt
) -> Mapping[str, Row]:
    """The rows among which the entries that name none are shared out: all that may have been answered when these turns
    were, or else the whole conversation."""
    questions = [item.question for item in group if owner_of(item.row) == owner]
    if excerpt.complete or all(excerpt.reaches_behind(row, _SHARED_MILLISECONDS) for row in questions):
        return excerpt.rows
    found = reading.find("messages", {"conversationId": owner[0]}, ROW_FIELDS)
    rows = (reading.read_row(document, document.get("bytes")) for document in found)
    return {row.message_id: row for row in rows if row is not None and owner_of(row) == owner}


def _find_entries(
    reading: Reading, group: Sequence[RowSelection], excerpts: Excerpts
) -> Sequence[Mapping[str, Any]]:
    """What the ledger has for turns, and what names no message in their conversations."""
    found: list[Mapping[str, Any]] = []
    left: dict[str, list[RowSelection]] = defaultdict(list)
    for selection in group:
        left[selection.row.conversation_id].append(selection)
    for conversation_id, selections in list(left.items()):
        began = min(began_seconds(item) for item in selections)
        # A restore may have written old entries in any order.
        is_recent = began > time.time() - _RECENT_SECONDS
        if not is_recent or any(excerpts[owner_of(item.row)].complete for item in selections):
            continue
        responses = [(item.row.message_id, item.row.user_id) for item in selections]
        recent = read_recent(reading, conversation_id, responses, _first_id(began))
        if recent is not None:
            found += recent
            del left[conversation_id]
    if left:
        message_ids = [item.row.message_id for selections in left.values() for item in selections]
        # A missing messageId equals null here.
        query = {"conversationId": {"$in": list(left)}, "messageId": {"$in": [*message_ids, None]}}
        found += reading.find("transactions", query, TRANSACTION_FIELDS)
    return found


def _first_id(seconds: int) -> ObjectId:
    """The first `_id` of what was written for something that began at a second of LibreChat's clock."""
    return ObjectId(f"{max(0, seconds - _EARLIER_SECONDS):08x}" + "00" * 8)


async def read_ledgers(
    collections: Collections, turns: Sequence[SentTurn], *, only_news: bool
) -> Mapping[str, tuple[Transaction, ...]]:
    """The transactions that name the responses of turns and were written since these began, by message id; none below
    0.8.3, where they name no message. `only_news` leaves out what the records of the turns count, and titles: nearly
    always that is everything, and then the server sends nothing."""
    if not turns:
        return {}
    began = min(turn.start_milliseconds for turn in turns) // 1000
    query: dict[str, object] = {
        "conversationId": {"$in": [turn.session_id for turn in turns]},
        "messageId": {"$in": [turn.message_id for turn in turns]},
        "_id": {"$gte": _first_id(began)},
    }
    if only_news:
        # An `_id` of any other type is not among the ids that are asked for.
        counted = [
            ObjectId(key) for turn in turns for key in turn.transactions or () if ObjectId.is_valid(key)
        ]
        # Not as `$nin`, from which the server would make thousands of ranges of another index.
        query |= {"context": {"$ne": TITLE_CONTEXT}, "$nor": [{"_id": {"$in": counted}}]}
    found = await collections.find("transactions", query, TRANSACTION_FIELDS)
    grouped: dict[str, list[Transaction]] = defaultdict(list)
    for document in sorted(found, key=_by_id):
        entry = read_transaction(document)
        if entry is not None and entry.message_id is not None:
            grouped[entry.message_id].append(entry)
    return {message_id: tuple(entries) for message_id, entries in grouped.items()}


async def read_unnamed(
    collections: Collections, conversation_id: str, user_id: str | None, since_seconds: int
) -> Sequence[Transaction]:
    """The transactions of a user's conversation that name no message and were written since a second of LibreChat's
    clock."""
    # A missing messageId equals null here.
    query = {
        "conversationId": conversation_id,
        "messageId": None,
        "_id": {"$gte": _first_id(since_seconds)},
    }
    found = await collections.find("transactions", query, TRANSACTION_FIELDS)
    read = (read_transaction(document) for document in sorted(found, key=_by_id))
    return entries_of_user(user_id, tuple(entry for entry in read if entry is not None))


async def read_transactions_by_key(
    collections: Collections, keys: Sequence[DocumentKey]
) -> Mapping[DocumentKey, Transaction]:
    """Transactions by `_id`, those left out that vanished or state no tokens."""
    found = await collections.find(
        "transactions", {"_id": {"$in": [from_key(key) for key in keys]}}, TRANSACTION_FIELDS
    )
    entries = {to_key(document["_id"]): read_transaction(document) for document in found}
    return {key: entry for key, entry in entries.items() if entry is not None}


async def read_spending(
    collections: Collections, keys: Sequence[DocumentKey]
) -> Mapping[DocumentKey, Spending | None]:
    """For transactions by `_id`: the whole spending each belongs to, None where a chat has it or will have it."""
    fields = {"conversationId": 1, "messageId": 1, "user": 1}
    found = await collections.find("transactions", {"_id": {"$in": [from_key(key) for key in keys]}}, fields)
    in_chats = await _find_in_chats(collections, found)
    free = [document for document in found if _reference_of(document) not in in_chats]
    conversation_ids = {filled_string(document.get("conversationId")) for document in free} - {None}
    everything = await collections.find(
        "transactions", {"conversationId": {"$in": list(conversation_ids)}}, {}
    )
    grouped: dict[tuple[str, str], list[Transaction]] = defaultdict(list)
    for document in sorted(everything, key=_by_id):
        entry = read_transaction(document)
        if entry is not None and entry.conversation_id is not None:
            grouped[entry.conversation_id, entry.message_id or entry.conversation_id].append(entry)
    spending: dict[DocumentKey, Spending | None] = {to_key(document["_id"]): None for document in found}
    for document in free:
        conversation_id = filled_string(document.get("conversationId")) or ""
        reference = _reference_of(document)
        key, entries = to_key(document["_id"]), grouped.get((conversation_id, reference), ())
        user_id = identifier(document.get("user"))
        spending[key] = make_spending(key, reference, conversation_id, user_id, entries)
    return spending


async def read_deleted(
    collections: Collections, rows: Mapping[DocumentKey, DeletedRow]
) -> Mapping[DocumentKey, Spending]:
    """What was spent on responses that are no longer stored; transactions that name no message cannot be found."""
    if not rows:
        return {}
    query = {
        "conversationId": {"$in": list({row.conversation_id for row in rows.values()})},
        "messageId": {"$in": [row.message_id for row in rows.values()]},
    }
    grouped: dict[tuple[str | None, str | None], list[Transaction]] = defaultdict(list)
    for document in sorted(await collections.find("transactions", query, TRANSACTION_FIELDS), key=_by_id):
        entry = read_transaction(document)
        if entry is not None:
            grouped[entry.conversation_id, entry.message_id].append(entry)
    spent = {key: grouped.get((row.conversation_id, row.message_id), []) for key, row in rows.items()}
    temporary = await _find_temporary(
        collections, {rows[key].conversation_id for key, entries in spent.items() if entries}
    )
    return {
        key: Spending(
            key,
            rows[key].message_id,
            rows[key].conversation_id,
            entries[0].user_id,
            tuple(entries),
            is_deleted_turn=True,
            may_be_temporary=rows[key].may_be_temporary
            or (rows[key].conversation_id, entries[0].user_id) in temporary,
        )
        for key, entries in spent.items()
        if entries
    }


async def _find_temporary(collections: Collections, conversation_ids: set[str]) -> set[Owner]:
    """The conversations that may be temporary ones. A deleted row may not have said it, see `is_temporary`."""
    if not conversation_ids:
        return set()
    fields = {"conversationId": 1, "user": 1, "isTemporary": 1, "expiredAt": 1}
    found = await collections.find(
        "conversations", {"conversationId": {"$in": list(conversation_ids)}}, fields
    )
    read = (read_conversation(to_key(document["_id"]), document) for document in found)
    return {
        (item.conversation_id, item.user_id)
        for item in read
        if item is not None and item.temporary is not False
    }


async def _find_in_chats(collections: Collections, found: Sequence[Mapping[str, object]]) -> set[str]:
    """The references of transactions that belong to a chat.

    One that names a message does while that row is stored: the remote API stores an empty conversation, or none, and
    no message. A chat's own answer is named before it is stored (the title's rows come first), and the messages of its
    conversation tell. One that names no message is its conversation's.
    """
    named = {message_id for row in found if (message_id := filled_string(row.get("messageId"))) is not None}
    unnamed = [row for row in found if filled_string(row.get("messageId")) is None]
    pending = [row for row in found if names_chat_message(_reference_of(row))]
    conversations = {
        conversation_id
        for row in (*unnamed, *pending)
        if (conversation_id := filled_string(row.get("conversationId"))) is not None
    }
    stored = await _find_values(collections, "messages", "messageId", named)
    used = await _find_values(collections, "messages", "conversationId", conversations)
    kept = await _find_values(
        collections,
        "conversations",
        "conversationId",
        {filled_string(row.get("conversationId")) or "" for row in unnamed},
    )
    # A broken row may have anything there, also what has no hash.
    return {
        *stored,
        *(_reference_of(row) for row in pending if filled_string(row.get("conversationId")) in used),
        *(_reference_of(row) for row in unnamed if filled_string(row.get("conversationId")) in used | kept),
    }


async def _find_values(collections: Collections, collection: str, field: str, wanted: set[str]) -> set[str]:
    """Which of the values a field of a collection has."""
    if not wanted:
        return set()
    rows = await collections.find(collection, {field: {"$in": list(wanted)}}, {field: 1})
    return {value for row in rows if (value := filled_string(row.get(field))) is not None}


def _reference_of(document: Mapping[str, object]) -> str:
    """What a transaction is known by: its message, or its conversation where it names none."""
    return filled_string(document.get("messageId")) or filled_string(document.get("conversationId")) or ""


def _by_id(document: Mapping[str, Any]) -> str:
    return str(document["_id"])
