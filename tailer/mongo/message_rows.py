"""What is asked of a row of `messages`, and how a row without its content is read."""

from collections.abc import Mapping, Sequence
from typing import Any

from tailer.core.librechat.bson_values import count, filled_string, identifier, milliseconds, strings
from tailer.core.turn.readback import Row
from tailer.mongo.document_keys import to_key

SMALL_BYTES = 8_192
"""A row that is smaller comes whole with the rows of its conversation; a larger one is read by itself if needed."""

_NAMES = (
    "messageId",
    "conversationId",
    "parentMessageId",
    "user",
    "isCreatedByUser",
    "createdAt",
    "model",
    "langfuseDestinationIds",
    "error",
)
_HISTORY_NAMES = ("text", "quotes", "content", "isTemporary")
_STORED_BYTES = {"$bsonSize": "$$ROOT"}


def _values_of(*names: str) -> Mapping[str, str]:
    """An object with these fields of a message, without those that it does not have."""
    return {name: f"${name}" for name in names}


ROW_FIELDS: Mapping[str, object] = {**dict.fromkeys(_NAMES, 1), "bytes": _STORED_BYTES}
"""A message without its content."""

WHOLE_IF_SMALL: Mapping[str, object] = {
    "_id": 0,
    "bytes": _STORED_BYTES,
    "row": {
        "$cond": [
            {"$lt": [_STORED_BYTES, SMALL_BYTES]},
            "$$ROOT",
            _values_of("_id", *_NAMES),
        ]
    },
}
"""A small message as it is stored, a larger one without its content: half of what a list of fields costs the server."""


def whole_if_own(message_ids: Sequence[str]) -> Mapping[str, object]:
    """As `WHOLE_IF_SMALL`, but as it is stored only for these ids: of other small messages what a history shows.

    For the server it is as much work as all fields, but a third less to receive and to decode. With many ids it would
    be more, as each row is compared with each.
    """
    is_small = {"$lt": [_STORED_BYTES, SMALL_BYTES]}
    return {
        "_id": 0,
        "bytes": _STORED_BYTES,
        "row": {
            "$switch": {
                "branches": [
                    {
                        "case": {
                            "$and": [{"$in": ["$messageId", {"$literal": list(message_ids)}]}, is_small]
                        },
                        "then": "$$ROOT",
                    },
                    {"case": is_small, "then": _values_of("_id", *_NAMES, *_HISTORY_NAMES)},
                ],
                "default": _values_of("_id", *_NAMES),
            }
        },
    }


CONTENT_FIELDS: Mapping[str, object] = {
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
"""A large message without the large fields that no trace shows."""

HISTORY_FIELDS: Mapping[str, object] = dict.fromkeys(
    ("messageId", "conversationId", "isCreatedByUser", *_HISTORY_NAMES), 1
)
"""What a large earlier row adds to a prompt."""


def read_row(document: Mapping[str, Any], stored_bytes: object) -> Row | None:
    """A message without its content; None for one without its ids."""
    get = document.get
    message_id, conversation_id = filled_string(get("messageId")), filled_string(get("conversationId"))
    if message_id is None or conversation_id is None:
        return None
    traced = get("langfuseDestinationIds")
    # In the order of the fields: there are a hundred rows for a turn, and names take time.
    return Row(
        to_key(document["_id"]),
        message_id,
        conversation_id,
        filled_string(get("parentMessageId")),
        identifier(get("user")),
        get("isCreatedByUser") is True,
        traced is not None and bool(strings(traced)),
        milliseconds(get("createdAt")),
        count(stored_bytes) or 0,
        get("error") is True,
        filled_string(get("model")),
    )


def missing_id(document: Mapping[str, Any]) -> str:
    """The field for which a message cannot be read."""
    return "messageId" if filled_string(document.get("messageId")) is None else "conversationId"
