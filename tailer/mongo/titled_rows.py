"""Finds the responses on which titles were billed, from the ledger: a title itself names no message."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tailer.core.identity import NO_PARENT, DocumentKey
from tailer.core.librechat.bson_values import filled_string, identifier
from tailer.core.librechat.transactions import Transaction, read_transaction
from tailer.core.turn.readback import Owner, Row, owner_of
from tailer.core.turn.transactions_by_time import assign_by_time
from tailer.core.turn.usage import TITLE_CONTEXT
from tailer.mongo.document_keys import from_key, to_key
from tailer.mongo.message_rows import ROW_FIELDS
from tailer.mongo.reading import Reading
from tailer.mongo.transactions import TRANSACTION_FIELDS


def find_titled(reading: Reading, keys: Sequence[DocumentKey]) -> Sequence[tuple[DocumentKey, Row]]:
    """The response row of each conversation's title, by the `_id` of the conversation; none where no title was billed.

    Entries that name no message (until 0.8.2, and of assistants) are those of the first answer.
    """
    conversations = reading.find(
        "conversations", {"_id": {"$in": [from_key(key) for key in keys]}}, {"conversationId": 1, "user": 1}
    )
    # By owner too, because ids are unique only together with the user.
    by_owner: dict[Owner, DocumentKey] = {
        (conversation_id, identifier(document.get("user"))): to_key(document["_id"])
        for document in conversations
        if (conversation_id := filled_string(document.get("conversationId"))) is not None
    }
    titles = reading.find(
        "transactions",
        {"conversationId": {"$in": [item for item, _ in by_owner]}, "context": TITLE_CONTEXT},
        TRANSACTION_FIELDS,
    )
    message_ids = {filled_string(document.get("messageId")) for document in titles} - {None}
    found = reading.find("messages", {"messageId": {"$in": list(message_ids)}}, ROW_FIELDS)
    rows = [row for row in _read(reading, found) if owner_of(row) in by_owner]
    unnamed: dict[Owner, list[Transaction]] = defaultdict(list)
    for entry in map(read_transaction, titles):
        if entry is not None and entry.message_id is None and entry.conversation_id is not None:
            owner = (entry.conversation_id, entry.user_id)
            if owner in by_owner:
                unnamed[owner].append(entry)
    if unnamed:
        rows += _find_unnamed(reading, unnamed)
    return [(by_owner[owner_of(row)], row) for row in rows]


def _find_unnamed(reading: Reading, entries: Mapping[Owner, Sequence[Transaction]]) -> Iterator[Row]:
    """The first answers of conversations from which titles were made."""
    query: dict[str, object] = {
        "conversationId": {"$in": [conversation_id for conversation_id, _ in entries]}
    }
    # Nothing equals null here too.
    asked = list(
        _read(
            reading,
            reading.find("messages", query | {"parentMessageId": {"$in": [NO_PARENT, None]}}, ROW_FIELDS),
        )
    )
    asked_ids = [row.message_id for row in asked]
    answered = _read(
        reading, reading.find("messages", query | {"parentMessageId": {"$in": asked_ids}}, ROW_FIELDS)
    )
    known: dict[Owner, dict[str, Row]] = defaultdict(dict)
    for row in (*asked, *answered):
        known[owner_of(row)][row.message_id] = row
    for owner, of_titles in entries.items():
        for message_id in assign_by_time(of_titles, known[owner]):
            yield known[owner][message_id]


def _read(reading: Reading, documents: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    rows = (reading.read_row(document, document.get("bytes")) for document in documents)
    return (row for row in rows if row is not None)
