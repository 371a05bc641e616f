"""LibreChat as the oracle knows it: turns in several writes, each acknowledged by a majority, whatever the servers
do."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from bson import ObjectId, Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from tailer.core.identity import turn_trace_id

_PAUSE_SECONDS = 0.2
_CHATS = 12
_RATED = 0.3
"""The share of answers that get a thumb."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WrittenTurn:
    """A turn whose last write was acknowledged, and the cluster time of that write."""

    message_id: str
    question: str
    answer: str
    written: Timestamp
    endpoint: str


@dataclass(slots=True)
class Writer:
    """Writes turns until it is told to end; a write that fails is made again under the same ids. `skew` is how far its
    clock is ahead of MongoDB's."""

    client: "AsyncIOMotorClient[Row]"
    database: str
    dice: Random
    turns_a_second: float
    skew: timedelta = timedelta()
    endpoints: Sequence[str] = ("openAI",)
    written: dict[str, WrittenTurn] = field(default_factory=dict)
    failures: int = 0
    _ending: bool = False

    async def run(self) -> None:
        """Write turn after turn; those that are begun are finished before it returns."""
        async with asyncio.TaskGroup() as group:
            number = 0
            while not self._ending:
                group.create_task(self._write_turn(number), name=f"turn {number}")
                number += 1
                await asyncio.sleep(1 / self.turns_a_second)

    def end(self) -> None:
        """Begin no more turns."""
        self._ending = True

    async def _write_turn(self, number: int) -> None:
        dice = self.dice
        question_id, response_id = str(UUID(int=dice.getrandbits(128))), str(UUID(int=dice.getrandbits(128)))
        chat = _name_chat(dice.randrange(_CHATS), number // 200)
        question, answer = f"question {number}", f"answer {number} " + "word " * dice.randrange(200)
        endpoint = self.endpoints[number % len(self.endpoints)]
        shared = {"conversationId": f"{chat}-{endpoint}", "user": "6" * 24, "endpoint": endpoint}
        asked = ObjectId()
        await self._store(
            "messages",
            asked,
            {
                **shared,
                "messageId": question_id,
                "parentMessageId": None,
                "isCreatedByUser": True,
                "text": question,
            },
        )
        # LibreChat stores a conversation after its first question and before its first answer.
        await self._store(
            "conversations",
            ObjectId(),
            {**shared, "title": "A chat"},
            {"conversationId": shared["conversationId"]},
        )
        response: Row = {
            **shared,
            "messageId": response_id,
            "parentMessageId": question_id,
            "isCreatedByUser": False,
            "model": "gpt-4o",
            "text": "",
            "content": [],
        }
        key = ObjectId()
        if dice.random() < 0.5:
            await self._store("messages", key, {**response, "unfinished": True})
            await asyncio.sleep(dice.uniform(0, 0.5))
        final = {**response, "unfinished": False, "content": [{"type": "text", "text": answer}]}
        written = await self._store("messages", key, final)
        if dice.random() < _RATED:
            await asyncio.sleep(dice.uniform(0, 1))
            written = await self._store("messages", key, {"feedback": {"rating": "thumbsUp"}})
        self.written[turn_trace_id(response_id)] = WrittenTurn(
            response_id, question, answer, written, endpoint
        )

    async def _store(
        self, collection: str, key: ObjectId, fields: Row, query: Mapping[str, object] | None = None
    ) -> Timestamp:
        """Store a row as Mongoose does, by its id or another key; the cluster time of the write that was
        acknowledged."""
        now = datetime.now(UTC) + self.skew
        change = {"$set": {**fields, "updatedAt": now}, "$setOnInsert": {"createdAt": now}}
        if query is not None:
            change["$setOnInsert"]["_id"] = key

        async def write() -> Timestamp:
            async with await self.client.start_session() as session:
                rows = self.client[self.database][collection]
                await rows.update_one(dict(query or {"_id": key}), change, upsert=True, session=session)
                written: Timestamp = session.delegate.operation_time
                return written

        return await self._until_acknowledged(write)

    async def _until_acknowledged(self, write: Callable[[], Awaitable[Timestamp]]) -> Timestamp:
        while True:
            try:
                return await write()
            except PyMongoError:
                self.failures += 1
                await asyncio.sleep(_PAUSE_SECONDS)


def _name_chat(number: int, generation: int) -> str:
    """A UUID, as LibreChat makes them; of every fourth chat another id, as imports may have."""
    name = f"chat-{number}-{generation}"
    return name if number % 4 == 0 else str(UUID(int=Random(name).getrandbits(128), version=4))
