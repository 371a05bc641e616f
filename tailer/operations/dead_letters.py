"""Looks at dead letters and asks for them to be sent again. The work of `tailer dead-letters`.

A request is a mark on the letter: the active instance sees to it, within seconds, or as soon as there is one.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tailer.errors import RequestRefused
from tailer.events import Event
from tailer.flow.leadership import has_active_instance
from tailer.mongo.connection import QUERY_SOCKET_MILLISECONDS, connect
from tailer.mongo.state import MongoLease, StateDatabase
from tailer.mongo.state.dead_letters import ASKED
from tailer.settings import Settings

_SHORTEST_PREFIX = 6
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter without its content. `stored_bytes` is the size of the trace that was refused, None where none was
    built; `replay` is "asked", or what came of the last replay, or None."""

    record_id: str
    message_id: str
    document_key: str
    reason: str
    first_failed_at: datetime
    last_failed_at: datetime
    tries: int
    stored_bytes: int | None
    replay: str | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay: how many were sent, still wait, and failed or had nothing to send."""

    sent: int
    waiting: int
    kept: Sequence[StoredLetter]


class LetterDesk:
    """The dead letters of one tailer."""

    def __init__(self, state: StateDatabase, lease: MongoLease, lease_time: timedelta) -> None:
        self._state = state
        self._lease = lease
        self._lease_time = lease_time

    async def list_letters(self) -> Sequence[StoredLetter]:
        """All of them, the latest failure first."""
        return await self._find({})

    async def choose(self, names: Sequence[str]) -> Sequence[StoredLetter]:
        """The letters with these ids, or beginnings of ids; raises RequestRefused where one is not clear."""
        letters = await self.list_letters()
        chosen = {name: [letter for letter in letters if _is_named(letter, name)] for name in names}
        for name, found in chosen.items():
            if len(found) != 1:
                several = "there is none" if not found else f"there are {len(found)}"
                raise RequestRefused(
                    operation="choosing a dead letter",
                    subject=name,
                    hint=f"{several} with this id; `tailer dead-letters list` shows the ids, of which the first "
                    f"{_SHORTEST_PREFIX} characters or more may be given",
                )
        return list({found[0].record_id: found[0] for found in chosen.values()}.values())

    async def ask(self, letters: Sequence[StoredLetter]) -> None:
        """Mark letters to be sent again."""
        query = {"_id": {"$in": [letter.record_id for letter in letters]}}
        await self._state.attempt(
            "ask_for_replay",
            lambda: self._state["dead_letters"].update_many(query, {"$set": {"replay": ASKED}}),
        )

    async def drop(self, letters: Sequence[StoredLetter]) -> int:
        """Forget letters; how many there were."""
        query = {"_id": {"$in": [letter.record_id for letter in letters]}}
        dropped = await self._state.attempt(
            "drop_dead_letters", lambda: self._state["dead_letters"].delete_many(query)
        )
        return int(dropped.deleted_count)

    async def has_sender(self) -> bool:
        """Whether an instance is active."""
        return await has_active_instance(self._lease, self._lease_time)

    async def follow(self, letters: Sequence[StoredLetter], patience: timedelta) -> Replayed:
        """Wait until every letter is done with, or the patience ends."""
        query = {"_id": {"$in": [letter.record_id for letter in letters]}}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience.total_seconds()
        while True:
            left = await self._find(query)
            waiting = [letter for letter in left if letter.replay == ASKED]
            if not waiting or loop.time() > deadline:
                kept = [letter for letter in left if letter.replay != ASKED]
                return Replayed(len(letters) - len(left), len(waiting), kept)
            await asyncio.sleep(_POLL_SECONDS)

    async def _find(self, query: Mapping[str, object]) -> Sequence[StoredLetter]:
        # The size is reckoned by the server: the trace itself may be megabytes, and is nothing to look at here.
        pipeline: list[dict[str, object]] = [
            {"$match": dict(query)},
            {"$sort": {"last_failed_at": -1, "_id": 1}},
            {
                "$set": {
                    "stored_bytes": {"$cond": [{"$eq": ["$chunk", None]}, None, {"$binarySize": "$chunk"}]}
                }
            },
            {"$project": {"chunk": 0, "item": 0}},
        ]
        found = await self._state.attempt(
            "list_dead_letters", lambda: self._state["dead_letters"].aggregate(pipeline).to_list(None)
        )
        return [_read(document) for document in found]


@asynccontextmanager
async def open_letters(settings: Settings) -> AsyncIterator[LetterDesk]:
    """The desk over a connection of its own."""
    client = connect(
        settings.state_uri.get_secret_value(),
        application="librechat-tailer-dead-letters",
        socket_milliseconds=QUERY_SOCKET_MILLISECONDS,
    )
    try:
        state = StateDatabase(client, settings.state_database, _unheard)
        yield LetterDesk(state, MongoLease(state, lease_time=settings.lease_time), settings.lease_time)
    finally:
        client.close()


def _is_named(letter: StoredLetter, name: str) -> bool:
    is_prefix = len(name) >= _SHORTEST_PREFIX and letter.record_id.startswith(name)
    return name in (letter.record_id, letter.message_id) or is_prefix


def _read(document: Mapping[str, Any]) -> StoredLetter:
    return StoredLetter(
        record_id=str(document["_id"]),
        message_id=str(document["message_id"]),
        document_key=str(document["document_key"]),
        reason=str(document["reason"]),
        first_failed_at=document["first_failed_at"].replace(tzinfo=UTC),
        last_failed_at=document["last_failed_at"].replace(tzinfo=UTC),
        tries=int(document["tries"]),
        stored_bytes=document.get("stored_bytes"),
        replay=document.get("replay"),
    )


def _unheard(event: Event) -> None:
    """A command has no log: it waits while the database is away."""
    del event
