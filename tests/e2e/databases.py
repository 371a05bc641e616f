"""The two databases of a test: LibreChat's, which is played into, and the tailer's, which tells how far it is."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from tailer.core.stream.hints import Stream
from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.mongo.state.positions import StoredCheckpoint, find_positions

STREAMS: Final = ("messages", "conversations")
_NUMBERS: Final = itertools.count(1)
_POLL_SECONDS: Final = 0.05
_ABANDONED_SECONDS: Final = 1.0
"""No living run leaves a transaction alone for so long."""


@dataclass(frozen=True, slots=True)
class Databases:
    """`source` is LibreChat's, `state` the tailer's; `uri` leads to the source."""

    uri: str
    source: AsyncIOMotorDatabase[Document]
    state: AsyncIOMotorDatabase[Document]

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings of a tailer on these two."""
        return {
            "TAILER_MONGO_URI": self.uri,
            "TAILER_STATE_DATABASE": self.state.name,
            # What a start waits for after a killed one: little, so that a test may kill often.
            "TAILER_LEASE_SECONDS": "1",
        }

    async def last_write(self) -> Timestamp:
        """The time of the newest entry of the oplog."""
        # A read, because the driver repeats it when a server steps down, which it does not do for a command.
        async with await self.source.client.start_session() as session:
            await self.source["any"].find_one({}, session=session)
            written: Timestamp = session.delegate.operation_time
            return written

    async def checkpoint(self, stream: str) -> Timestamp | None:
        """The time of the stored position of a stream, None before the first."""
        found = (await self.positions()).get(Stream(stream))
        return None if found is None or found.position.token is None else token_time(found.position.token)

    async def positions(self) -> Mapping[Stream, StoredCheckpoint]:
        """The newest stored position of each stream, with everything stored beside it."""
        return await find_positions(self.state)

    async def pending_batches(self) -> frozenset[str]:
        """The ids of the batches that were begun and not finished."""
        # In this order, because a takeover moves a batch from a slot to a document of its own.
        on_their_way = await self.state["slots"].distinct("batch.batch_id")
        return frozenset([*on_their_way, *await self.state["batches"].distinct("_id")])

    async def wait_until_done(
        self, still_running: Callable[[], None], *, timeout_seconds: float = 30
    ) -> None:
        """Return once everything written so far was seen through.

        That is a fact of the state database: a checkpoint stays before everything that is open, so one behind the
        last write says that each turn was acknowledged, parked or closed. `still_running` raises when nobody is left
        to wait for.
        """
        written = await self.last_write()
        seen: dict[str, object] = {}
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    still_running()
                    batches = await self.pending_batches()
                    positions = {stream: await self.checkpoint(stream) for stream in STREAMS}
                    seen = {"positions": positions, "batches": batches}
                    if not batches and all(at is not None and at >= written for at in positions.values()):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            message = f"not done {timeout_seconds} s after the last write at {written}: {seen}"
            raise TimeoutError(message) from None


def token_time(token: str) -> Timestamp:
    """The cluster time that a resume token begins with, after one byte for its type."""
    return Timestamp(int(token[2:10], 16), int(token[10:18], 16))


@asynccontextmanager
async def open_databases(replica_set: ReplicaSet) -> AsyncIterator[Databases]:
    """A pair under names that no other test has; dropped at the end."""
    number = next(_NUMBERS)
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(replica_set.uri)
    pair = Databases(
        uri=replica_set.uri_of(f"LibreChat-{number}"),
        source=client[f"LibreChat-{number}"],
        state=client[f"tailer-{number}"],
    )
    try:
        yield pair
    finally:
        await _drop(client, pair.source.name, pair.state.name)
        client.close()


async def _drop(client: "AsyncIOMotorClient[dict[str, Any]]", *names: str) -> None:
    """Drop databases without waiting a minute for the transaction that a run which was cut off left open."""

    async def drop_all() -> None:
        for name in names:
            await client.drop_database(name)

    dropping = asyncio.create_task(drop_all(), name="drop databases")
    while not (await asyncio.wait({dropping}, timeout=_ABANDONED_SECONDS))[0]:
        # Only what nobody goes on with: other runs may be at work on the same server.
        abandoned = [
            {"lsid": {"id": found["lsid"]["id"], "uid": found["lsid"]["uid"]}}
            async for found in client.admin.aggregate(
                [
                    {"$currentOp": {"idleSessions": True}},
                    {"$match": {"transaction.timeInactiveMicros": {"$gt": _ABANDONED_SECONDS * 1_000_000}}},
                ]
            )
        ]
        if abandoned:
            await client.admin.command({"killAllSessionsByPattern": abandoned})
    await dropping
