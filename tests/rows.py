"""Rows as LibreChat stores them, as far as the tests need them."""

from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

ALICE, BOB = str(ObjectId()), str(ObjectId())
NOW = datetime.now(UTC).replace(microsecond=0)
"""A moment for times that are compared with each other only."""


def question(message_id: str, parent: str | None, user: str = ALICE, **fields: Any) -> dict[str, Any]:
    """What somebody asked, just now: a row that is older than its `_id` is a copy."""
    now = datetime.now(UTC)
    return {
        "_id": ObjectId(), "messageId": message_id, "conversationId": "c1", "parentMessageId": parent, "user": user,
        "isCreatedByUser": True, "text": f"text of {message_id} by {user}", "createdAt": now, "updatedAt": now, **fields,
    }  # fmt: skip


def answer(message_id: str, parent: str | None, user: str = ALICE, **fields: Any) -> dict[str, Any]:
    """A finished response."""
    return question(message_id, parent, user, **{"isCreatedByUser": False, "model": "gpt-5", **fields})


def transaction(user: str = ALICE, **fields: Any) -> dict[str, Any]:
    """A completion of three tokens."""
    return {
        "_id": ObjectId(), "conversationId": "c1", "user": ObjectId(user), "tokenType": "completion", "rawAmount": -3,
        "context": "message", "model": "gpt-5", "createdAt": NOW, **fields,
    }  # fmt: skip
