"""Writes turns as LibreChat writes them: the same writes to the same collections in the same order.

Turns that happen at the same moment share a request to the server, which the oplog does not show. Balances and other
collections that nobody tails are left out.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, repeat
from typing import Any, Final

from bson import ObjectId
from pymongo import MongoClient, UpdateOne

from tests.benchmarks.rows import (
    agent_rows,
    conversation_row,
    question_row,
    response_row,
    transaction_rows,
)
from tests.benchmarks.turns import Chat, InventedTurn

DATABASE: Final = "LibreChat"
_ROUND_TURNS: Final = 250
TICK_SECONDS: Final = 0.05
THINKING_TICKS: Final = 40
"""Two seconds, of which a model takes as many as it likes."""
PAST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When the long conversations began."""

_INDEXES: Final = {
    "messages": (["messageId"], ["conversationId"], ["user"], ["conversationId", "user", "createdAt"]),
    "conversations": (["conversationId"], ["user"]),
    "transactions": (["user"], ["conversationId"]),
    "agents": (["id"],),
}
"""Those of LibreChat's own indexes that cost something here or that somebody reads by."""


class Writer:
    """LibreChat, as far as the database sees it."""

    def __init__(self, uri: str) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(uri)
        self._database = self._client[DATABASE]
        self.answered_at: dict[str, float] = {}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def prepare(self) -> None:
        """Collections, indexes and agents of an installation."""
        for collection, indexes in _INDEXES.items():
            for keys in indexes:
                self._database[collection].create_index([(key, 1) for key in keys])
        self._database["agents"].insert_many(agent_rows(_now()))

    def write_all(self, turns: Iterable[InventedTurn]) -> None:
        """Write turns as fast as the server takes them."""
        for together in _rounds(turns, _ROUND_TURNS):
            self.ask(together)
            self.answer(together)

    def write_live(self, ticks: Iterable[Sequence[InventedTurn]]) -> Iterator[int]:
        """Write the turns of each tick at its time, each answer two seconds after its question; yields the number of
        each tick that is done.

        When an answer was stored is in `answered_at` by the response's id, in seconds since 1970.
        """
        asked: deque[Sequence[InventedTurn]] = deque()
        began = time.monotonic()
        for number, turns in enumerate(chain(ticks, repeat((), THINKING_TICKS))):
            time.sleep(max(0.0, began + number * TICK_SECONDS - time.monotonic()))
            if turns:
                self.ask(turns)
            asked.append(turns)
            if len(asked) > THINKING_TICKS and (answered := asked.popleft()):
                self.answer(answered)
            yield number

    def store_past(self, chats: Sequence[Chat], turns: Iterable[InventedTurn]) -> None:
        """Store turns of long ago: their rows as they stand by now, with the ids and times of then."""
        for together in _rounds(turns, _ROUND_TURNS):
            self._store_messages_of_the_past(together)
        self._database["conversations"].insert_many([_past_conversation(chat) for chat in chats])

    def _store_messages_of_the_past(self, turns: Sequence[InventedTurn]) -> None:
        messages, bills = [], []
        for turn in turns:
            asked = PAST + timedelta(seconds=len(turn.chat.message_keys))
            question, response = question_row(turn, asked), response_row(turn, asked + timedelta(seconds=1))
            for row in (question, response):
                row["_id"] = _aged(row["_id"], row["createdAt"])
                turn.chat.message_keys.append(row["_id"])
                messages.append(row)
            for bill in transaction_rows(turn, response["createdAt"]):
                bill["_id"] = _aged(bill["_id"], bill["createdAt"])
                bills.append(bill)
        self._database["messages"].insert_many(messages)
        self._database["transactions"].insert_many(bills)

    def ask(self, turns: Sequence[InventedTurn]) -> None:
        """Store the questions, and the conversations of those that are first."""
        now = _now()
        rows = [question_row(turn, now) for turn in turns]
        for turn, row in zip(turns, rows, strict=True):
            turn.question_key = row["_id"]
            turn.chat.message_keys.append(row["_id"])
        self._database["messages"].insert_many(rows)
        first = [conversation_row(turn.chat, now) for turn in turns if turn.is_first]
        if first:
            self._database["conversations"].insert_many(first)
        self._update_conversations([turn for turn in turns if not turn.is_first], now)

    def answer(self, turns: Sequence[InventedTurn]) -> None:
        """Store bills and answers, touch what LibreChat touches, and give first turns their title."""
        now = _now()
        bills = [row for turn in turns for row in transaction_rows(turn, now)]
        self._database["transactions"].insert_many(bills)
        now = _now()
        rows = [response_row(turn, now) for turn in turns]
        for turn, row in zip(turns, rows, strict=True):
            turn.response_key = row["_id"]
            turn.chat.message_keys.append(row["_id"])
            self.answered_at[turn.response_id] = now.timestamp()
        self._database["messages"].insert_many(rows)
        self._update_conversations(turns, _now())
        touched = [key for turn in turns for key in (turn.question_key, turn.response_key)]
        self._database["messages"].bulk_write([_touch(key, _now()) for key in touched])
        titles = [_name(turn, _now()) for turn in turns if turn.is_first]
        if titles:
            self._database["conversations"].bulk_write(titles)

    def _update_conversations(self, turns: Sequence[InventedTurn], now: datetime) -> None:
        if turns:
            self._database["conversations"].bulk_write(
                [
                    UpdateOne(
                        {"conversationId": turn.chat.conversation_id, "user": str(turn.chat.user)},
                        {"$set": {"messages": list(turn.chat.message_keys), "updatedAt": now}},
                    )
                    for turn in turns
                ]
            )


def _past_conversation(chat: Chat) -> dict[str, Any]:
    row = conversation_row(chat, PAST)
    return {**row, "_id": _aged(ObjectId(), PAST), "title": "A long conversation"}


def _aged(key: ObjectId, made: datetime) -> ObjectId:
    """The id with the time of its making in it."""
    return ObjectId(int(made.timestamp()).to_bytes(4, "big") + key.binary[4:])


def _touch(key: ObjectId | None, now: datetime) -> UpdateOne:
    return UpdateOne({"_id": key}, {"$set": {"updatedAt": now}})


def _name(turn: InventedTurn, now: datetime) -> UpdateOne:
    return UpdateOne(
        {"conversationId": turn.chat.conversation_id, "user": str(turn.chat.user)},
        {"$set": {"title": turn.question[:40], "updatedAt": now}},
    )


def _rounds(turns: Iterable[InventedTurn], size: int) -> Iterator[list[InventedTurn]]:
    remaining = iter(turns)
    while together := list(islice(remaining, size)):
        yield together


def _now() -> datetime:
    # MongoDB keeps milliseconds: rounded down here, as it would be there.
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
