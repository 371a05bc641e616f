"""Reads `transactions`: those of turns, and spending that belongs to no chat."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from tailer.core.identity import DocumentKey
from tailer.core.librechat.bson_values import filled_string, identifier
from tailer.core.librechat.documents import Transaction, read_transaction
from tailer.core.trace.spending import Spending
from tailer.core.turn.readback import ConversationRows, Row, RowSelection
from tailer.core.turn.transactions_by_time import assign_by_time
from tailer.mongo.collections import Collections
from tailer.mongo.document_keys import from_key, to_key


async def read_transactions(
    collections: Collections, group: Sequence[RowSelection], conversations: ConversationRows
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
        await collections.find("transactions", query, {}), key=lambda found: str(found["_id"])
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


async def find_ledgers(
    collections: Collections, rows: Sequence[Row], transactions: Mapping[str, tuple[Transaction, ...]]
) -> frozenset[str]:
    """The conversations for which LibreChat wrote transactions at all."""
    kept = {row.conversation_id for row in rows if row.message_id in transactions}
    unsure = {row.conversation_id for row in rows} - kept
    for conversation_id in unsure:
        if await collections.find("transactions", {"conversationId": conversation_id}, {"_id": 1}, limit=1):
            kept.add(conversation_id)
    return frozenset(kept)


async def read_spending(
    collections: Collections, keys: Sequence[DocumentKey]
) -> Mapping[DocumentKey, Spending | None]:
    """For transactions by `_id`: the whole spending each belongs to, None where a chat has it."""
    fields = {"conversationId": 1, "messageId": 1, "user": 1}
    found = await collections.find("transactions", {"_id": {"$in": [from_key(key) for key in keys]}}, fields)
    conversation_ids = {filled_string(document.get("conversationId")) for document in found} - {None}
    query = {"conversationId": {"$in": list(conversation_ids)}}
    in_chats = {
        document.get("conversationId")
        for collection in ("conversations", "messages")
        for document in await collections.find(collection, query, {"conversationId": 1})
    }
    everything = await collections.find(
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
