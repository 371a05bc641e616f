"""A change stream over the death of a primary, and of all nodes: nothing is lost, repeated or reordered."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from bson import ObjectId
from pymongo.errors import PyMongoError

from tailer.core.stream.hints import Stream
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.events import StreamFailed
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import SOCKET_MILLISECONDS, Database, connect, tolerant_database
from tests.evidence import Events, Reading

PACE_SECONDS = 0.02


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[ReplicaSet]:
    with ReplicaSet(size=3) as started:
        yield started


class Writer:
    """Inserts numbered rows one after another, each until a majority has it; `acknowledged` says when each was."""

    def __init__(self, database: Database) -> None:
        self._collection = database["messages"]
        self.acknowledged: dict[str, float] = {}
        self.moved = asyncio.Event()

    async def run(self) -> None:
        while True:
            message_id = f"m{len(self.acknowledged)}"
            # The `_id` is ours: a row whose acknowledgement was lost is found and not written twice.
            key = ObjectId()
            while message_id not in self.acknowledged:
                try:
                    found = {"_id": key}
                    values = {"$setOnInsert": {"messageId": message_id}}
                    await self._collection.update_one(found, values, upsert=True)
                    self.acknowledged[message_id] = time.monotonic()
                    self.moved.set()
                except PyMongoError:
                    await asyncio.sleep(PACE_SECONDS)
            await asyncio.sleep(PACE_SECONDS)


@asynccontextmanager
async def writing(replica_set: ReplicaSet) -> AsyncIterator[tuple[Writer, Reading, Events]]:
    """A writer and a reader at work on an empty collection; at the end everything acknowledged has been read."""
    uri = f"{replica_set.uri}&w=majority"
    database = tolerant_database(connect(uri, application="writer", socket_milliseconds=5000), "LibreChat")
    streams = connect(replica_set.uri, application="streaming", socket_milliseconds=SOCKET_MILLISECONDS)
    await database["messages"].drop()
    events, writer = Events(), Writer(database)
    source = MongoChangeStream(tolerant_database(streams, "LibreChat"), Stream.MESSAGES, events)
    async with Reading(source, open_seconds=60) as reading:
        task = asyncio.create_task(writer.run())
        try:
            await reading.until_read(10)
            yield writer, reading, events
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await reading.until_read(len(writer.acknowledged), seconds=60)
    streams.close()
    database.client.close()
    assert reading.ids()[: len(writer.acknowledged)] == list(writer.acknowledged)


async def until_written(writer: Writer) -> None:
    """Return once the next rows were acknowledged."""
    goal = len(writer.acknowledged) + 5
    async with asyncio.timeout(60):
        while len(writer.acknowledged) < goal:
            writer.moved.clear()
            await writer.moved.wait()


def longest_pause(writer: Writer) -> float:
    """The longest time between two acknowledged writes: how long there was no primary."""
    times = list(writer.acknowledged.values())
    return max(after - before for before, after in itertools.pairwise(times))


def farthest_behind(writer: Writer, reading: Reading) -> float:
    """How long after its acknowledgement an event was read, at worst."""
    read = dict(zip(reading.ids(), reading.read_at, strict=True))
    return max(read[message_id] - at for message_id, at in writer.acknowledged.items())


@pytest.mark.parametrize("fault", ["terminate", "kill"])
async def test_events_flow_again_soon_after_the_loss_of_the_primary(
    three_nodes: ReplicaSet, fault: str
) -> None:
    """A rolling restart hands over in order; a power cut takes an election. The reader is back with the writer."""
    async with writing(three_nodes) as (writer, reading, events):
        primary = await three_nodes.primary()
        await (primary.terminate() if fault == "terminate" else primary.kill())
        await until_written(writer)
        await primary.restart()
    behind = farthest_behind(writer, reading)
    print(f"{fault}: no write for {longest_pause(writer):.2f} s, events at most {behind:.2f} s behind")

    # The driver's own reader takes 31 s after an orderly shutdown.
    assert behind < 10
    assert events.of(StreamFailed)


async def test_a_set_that_is_gone_altogether_is_waited_for(three_nodes: ReplicaSet) -> None:
    """All nodes killed, some seconds of nothing, all back: the stream goes on where it was."""
    async with writing(three_nodes) as (writer, reading, events):
        for member in three_nodes.members:
            await member.kill()
        await events.until(lambda: len(events.of(StreamFailed)) >= 3, seconds=60)
        for member in three_nodes.members:
            await member.restart()
        await until_written(writer)
    behind = farthest_behind(writer, reading)
    print(f"all gone: no write for {longest_pause(writer):.2f} s, events at most {behind:.2f} s behind")

    assert behind < 20
    assert {failed.reaction for failed in events.of(StreamFailed)} == {"reopen"}
