"""Reads the transactions of the last turns of a long conversation without looking at all of its transactions.

`transactions` has an index on `conversationId` and none on messages or times. Within one conversation that index keeps
the order of insertion, so read backwards it begins with what was written last.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from bson import ObjectId
from pymongo.errors import OperationFailure

from tailer.core.librechat.bson_values import identifier
from tailer.mongo.error_codes import NO_SUCH_INDEX
from tailer.mongo.reading import Reading

_NEWEST: Final = 100
"""Transactions that are looked at: a turn has two for each call of a model, and two for its title."""
_ENOUGH_OLDER: Final = 16
"""So many of them must be older than the turns, before the others are taken to be all that came since."""


def read_recent(
    reading: Reading, conversation_id: str, responses: Collection[tuple[str, str | None]], since: ObjectId
) -> Sequence[Mapping[str, Any]] | None:
    """The transactions of a conversation that name these responses (message id and user) or none; None where the newest
    do not tell for certain. `since` is an `_id` from before the first of them."""
    # A range, because with an equality the server may read the index in either direction.
    wanted = {"conversationId": {"$gte": conversation_id, "$lt": conversation_id + "\x00"}}
    # An id may begin with a dollar, and would be taken for the name of a field.
    names = {"$literal": [*(name for name, _ in responses), None]}
    is_wanted = {"$in": [{"$ifNull": ["$messageId", None]}, names]}
    pipeline: list[Mapping[str, Any]] = [
        {"$match": wanted},
        {"$sort": {"conversationId": -1}},
        {"$limit": _NEWEST},
        {
            "$group": {
                "_id": None,
                "read": {"$sum": 1},
                "older": {"$sum": {"$cond": [{"$lt": ["$_id", since]}, 1, 0]}},
                "entries": {"$push": {"$cond": [is_wanted, "$$ROOT", "$$REMOVE"]}},
            }
        },
    ]
    try:
        found = reading.aggregate("transactions", pipeline, hint=[("conversationId", 1)])
    except OperationFailure as error:
        if error.code != NO_SUCH_INDEX:
            raise
        return None
    if not found:
        return ()
    newest = found[0]
    entries: Sequence[Mapping[str, Any]] = newest["entries"]
    if newest["read"] < _NEWEST:
        return entries
    named = {(entry.get("messageId"), identifier(entry.get("user"))) for entry in entries}
    return entries if named.issuperset(responses) and newest["older"] >= _ENOUGH_OLDER else None
