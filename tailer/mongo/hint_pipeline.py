"""The server-side projection that turns a change event into a hint, and the decoding of the result.

Documents stay on the server: some 300 bytes travel for a row of any size, and the projection runs before the server's
own size check. No `$match` hides anything but updates, and rows of other shards, because an `invalidate` must arrive.
"""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256

import bson

from tailer.core.identity import DocumentKey
from tailer.core.librechat.bson_values import milliseconds, string, strings
from tailer.core.librechat.conversations import SETTINGS_FIELDS
from tailer.core.stream.hints import ChangeHint, Operation, Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.turn.temporary import ASSISTANTS
from tailer.mongo.document_keys import to_key

_ID_BYTES = 400
"""Longer ids are left out. The row is read by its `_id`, and a hint must stay small whatever a client wrote. They are
not cut, because the server refuses to cut broken UTF-8 (code 34459), and one such row would end the stream for ever."""
_TEXT_BYTES = 4_000
"""The bytes of a question: a longer one is not remembered as it was first written."""
_SETTINGS_BYTES = 8_000


def _short_text(path: str, *, limit: int = _ID_BYTES) -> dict[str, object]:
    is_text = {"$eq": [{"$type": path}, "string"]}
    is_short = {"$lte": [{"$strLenBytes": path}, limit]}
    return {"$cond": [{"$and": [is_text, is_short]}, path, None]}


def _date(path: str, *, otherwise: str) -> dict[str, object]:
    return {"$cond": [{"$eq": [{"$type": path}, "date"]}, path, otherwise]}


_UPDATED_NAMES = {
    "$map": {
        "input": {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}},
        "in": {"$arrayElemAt": [{"$split": ["$$this.k", "."]}, 0]},
    }
}
_REMOVED_NAMES = {
    "$map": {
        "input": {"$ifNull": ["$updateDescription.removedFields", []]},
        "in": {"$arrayElemAt": [{"$split": ["$$this", "."]}, 0]},
    }
}
_SHORTENED_NAMES = {
    "$map": {
        "input": {"$ifNull": ["$updateDescription.truncatedArrays", []]},
        "in": {"$arrayElemAt": [{"$split": ["$$this.field", "."]}, 0]},
    }
}
"""An update by a pipeline that shortens an array names it only here."""

_EVERYWHERE: dict[str, object] = {
    "operationType": 1,
    "documentKey._id": 1,
    "changed": {"$setUnion": [_UPDATED_NAMES, _REMOVED_NAMES, _SHORTENED_NAMES]},
    "written": _date("$updateDescription.updatedFields.updatedAt", otherwise="$wallTime"),
    "message": _short_text("$fullDocument.messageId"),
    "parent": _short_text("$fullDocument.parentMessageId"),
    "conversation": _short_text("$fullDocument.conversationId"),
    "byUser": {"$eq": ["$fullDocument.isCreatedByUser", True]},
}
_STOPPED: dict[str, object] = {
    "$and": [
        {"$eq": ["$fullDocument.unfinished", True]},
        {"$eq": [{"$type": "$fullDocument.text"}, "string"]},
        {
            "$or": [
                {"$ne": ["$fullDocument.text", ""]},
                {"$eq": [{"$type": "$fullDocument.langfuseSampled"}, "missing"]},
            ]
        },
    ]
}
"""The shape in which the abort route stores an answer. A pause stores an empty text and, since it exists, the sampling
decision; an answer whose reader went away has no `text`."""
_TEMPORARY: dict[str, object] = {
    "$or": [
        {"$eq": ["$fullDocument.isTemporary", True]},
        {
            "$and": [
                {"$eq": [{"$type": "$fullDocument.isTemporary"}, "missing"]},
                {"$ne": [{"$ifNull": ["$fullDocument.expiredAt", None]}, None]},
            ]
        },
        _STOPPED,
        {"$in": ["$fullDocument.endpoint", list(ASSISTANTS)]},
    ]
}
"""Until 0.8.5 an expiry date is the only sign of a temporary chat. Stopped answers (until 0.8.7) and the rows of
assistants do not say what their chat is, so it may be one."""
_OF_MESSAGES: dict[str, object] = {
    **_EVERYWHERE,
    "unfinished": {"$eq": ["$fullDocument.unfinished", True]},
    "stopped": _STOPPED,
    "temporary": _TEMPORARY,
    "text": {
        "$cond": [
            {"$eq": ["$fullDocument.isCreatedByUser", True]},
            _short_text("$fullDocument.text", limit=_TEXT_BYTES),
            "$$REMOVE",
        ]
    },
}
_SET = {
    name: {"$ifNull": [f"$fullDocument.{name}", f"$updateDescription.updatedFields.{name}"]}
    for name in sorted(SETTINGS_FIELDS)
}
_OF_CONVERSATIONS: dict[str, object] = {
    **_EVERYWHERE,
    "title": _short_text("$updateDescription.updatedFields.title"),
    "settings": {
        "$let": {
            "vars": {"set": _SET},
            "in": {"$cond": [{"$lte": [{"$bsonSize": "$$set"}, _SETTINGS_BYTES]}, "$$set", None]},
        }
    },
}
_READ_OF_CONVERSATIONS: dict[str, object] = {
    "$match": {
        "$or": [
            {"operationType": {"$ne": "update"}},
            *(
                {f"updateDescription.updatedFields.{name}": {"$exists": True}}
                for name in ("title", *sorted(SETTINGS_FIELDS))
            ),
            {"updateDescription.removedFields": {"$in": sorted(SETTINGS_FIELDS)}},
        ]
    }
}
"""A turn writes its conversation several times, and only its title and settings are ever read from it. Everything that
is not an update passes, including an `invalidate`."""

HINT_PIPELINES: Mapping[Stream, list[dict[str, object]]] = {
    Stream.MESSAGES: [{"$project": _OF_MESSAGES}],
    Stream.CONVERSATIONS: [_READ_OF_CONVERSATIONS, {"$project": _OF_CONVERSATIONS}],
    Stream.TRANSACTIONS: [{"$project": _EVERYWHERE}],
}


def hint_pipeline(stream: Stream, shard: Shard = WHOLE) -> list[dict[str, object]]:
    """The pipeline of one shard: the server leaves out the rows that were inserted for other shards, as far as it can
    tell. An update or a deletion names only the row, so it always passes."""
    if shard.is_whole:
        return HINT_PIPELINES[stream]
    inserted_elsewhere: dict[str, object] = {
        "operationType": {"$in": [Operation.INSERT.value, Operation.REPLACE.value]},
        "fullDocument.conversationId": {"$regex": shard.foreign_ids()},
    }
    return [{"$match": {"$nor": [inserted_elsewhere]}}, *HINT_PIPELINES[stream]]


PIPELINE_FINGERPRINTS = {
    stream: sha256(bson.encode({"pipeline": pipeline})).hexdigest()[:16]
    for stream, pipeline in HINT_PIPELINES.items()
}
"""Stored with every token, because a token that was read under another pipeline may not be found again (code 280)."""

_NO_NAMES: frozenset[str] = frozenset()
_OPERATIONS = {operation.value: operation for operation in Operation}


def decode_hint(event: Mapping[str, object], position: StreamPosition) -> ChangeHint | None:
    """The hint in a projected event; None for an event without a document (drop, rename, invalidate).

    `position` is the event's own: its resume token begins with the cluster time.
    """
    get = event.get
    operation = _OPERATIONS.get(str(get("operationType")))
    document_key = get("documentKey")
    if operation is None or not isinstance(document_key, dict):
        return None
    key, changed = to_key(document_key.get("_id")), get("changed")
    names = _name_set(strings(changed)) if changed else _NO_NAMES
    settings = get("settings")
    if operation is not Operation.INSERT and operation is not Operation.REPLACE:
        # Most events are updates, and an update brings no document along.
        return ChangeHint(
            operation,
            key,
            position.cluster_seconds,
            milliseconds(get("written")),
            names,
            None,
            None,
            None,
            title=string(get("title")),
            settings=settings if isinstance(settings, dict) else None,
        )
    return ChangeHint(
        operation=operation,
        document_key=key,
        cluster_seconds=position.cluster_seconds,
        written_milliseconds=milliseconds(get("written")),
        changed=names,
        message_id=string(get("message")),
        parent_message_id=string(get("parent")),
        created_by_user=get("byUser") is True,
        conversation_id=string(get("conversation")),
        stopped=get("stopped") is True,
        unfinished=get("unfinished") is True,
        temporary=get("temporary") is True,
        text=string(get("text")),
        settings=settings if isinstance(settings, dict) else None,
    )


@lru_cache(maxsize=512)
def _name_set(names: tuple[str, ...]) -> frozenset[str]:
    """The same few sets of fields change again and again, so one copy of each is kept."""
    return frozenset(names)


def cluster_seconds(timestamp: object) -> int:
    """The seconds of a BSON timestamp; 0 without one."""
    return timestamp.time if isinstance(timestamp, bson.Timestamp) else 0


def event_key(event: Mapping[str, object]) -> DocumentKey | None:
    """The key of the row that an event concerns, None where it concerns none."""
    document_key = event.get("documentKey")
    return to_key(document_key.get("_id")) if isinstance(document_key, dict) else None
