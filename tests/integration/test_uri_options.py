"""Options of the URI on a real server: limits for a slow network, read preferences, retries."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tailer.core.stream.hints import Stream
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import SourceAway
from tailer.events import StateOperation
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import connect, inspect_source, longest_hold_milliseconds, tolerant_database
from tailer.mongo.state import StateDatabase
from tests.e2e.databases import Databases
from tests.evidence import Events, Reading
from tests.integration.leading import seize

SLOW_SECONDS = 4.0
"""Longer than the tailer gives a connection where the URI says nothing."""


@asynccontextmanager
async def slow_proxy(port: int) -> AsyncIterator[int]:
    """A port that takes every connection and begins to pass its bytes on after a while."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        with suppress(asyncio.CancelledError, OSError):
            await asyncio.sleep(SLOW_SECONDS)
            onward, back = await asyncio.open_connection("127.0.0.1", port)
            writers.append(back)
            await asyncio.gather(pump(reader, back), pump(onward, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_connection_that_takes_long_succeeds_where_the_uri_gives_it_the_time(
    replica_set: ReplicaSet,
) -> None:
    """As over a VPN: LibreChat connects with the same URI."""
    port = (await replica_set.primary()).port
    async with slow_proxy(port) as slow:
        uri = f"mongodb://127.0.0.1:{slow}/LibreChat?directConnection=true"
        patient = connect(
            f"{uri}&connectTimeoutMS=20000&serverSelectionTimeoutMS=30000", application="slow", socket_milliseconds=30_000
        )  # fmt: skip
        hasty = connect(uri, application="slow", socket_milliseconds=30_000)
        try:
            facts = await inspect_source(tolerant_database(patient, "LibreChat"))
            with pytest.raises(SourceAway):
                await inspect_source(tolerant_database(hasty, "LibreChat"))
        finally:
            # Closing says good-bye over the proxy, which is served by this loop.
            await asyncio.to_thread(patient.close)
            await asyncio.to_thread(hasty.close)

    assert facts.replica_set == "rs0"


@pytest.mark.parametrize(
    "options",
    [
        "retryWrites=false&retryReads=false",
        "readPreference=secondary&readPreferenceTags=dc:east&maxStalenessSeconds=90",
        "readConcernLevel=linearizable",
        "w=0",
        "readPreference=secondaryPreferred&w=1&journal=false&tz_aware=true&appName=LibreChat",
    ],
)
async def test_streams_and_state_work_whatever_the_uri_asks_for(databases: Databases, options: str) -> None:
    """The state needs its own concerns: a transaction takes no preference for a secondary."""
    client = connect(f"{databases.uri}&{options}", application="options", socket_milliseconds=30_000)
    try:
        lease = await seize(StateDatabase(client, databases.state.name, Events()))
        await lease.fence.write(StateOperation.PARK, lambda _: None)
        await lease.release(lease.fence.epoch)
        await lease.fence.close()
        source = tolerant_database(client, databases.source.name)
        async with Reading(MongoChangeStream(source, Stream.MESSAGES, Events())) as reading:
            await databases.source["messages"].insert_one({"messageId": "m1"})
            await reading.until_read(1)
        found: Any = await source["messages"].find_one({})
        assert found["messageId"] == "m1"
        assert client.delegate.options.retry_writes is ("retryWrites=false" not in options)
    finally:
        client.close()


async def test_a_stream_answers_within_the_patience_that_the_uri_gives_a_connection(
    databases: Databases,
) -> None:
    """Without that an idle stream would be cut off before each answer."""
    client = connect(f"{databases.uri}&socketTimeoutMS=600", application="hasty", socket_milliseconds=30_000)
    events = Events()
    try:
        assert longest_hold_milliseconds(client) == 300
        source = tolerant_database(client, databases.source.name)
        async with Reading(MongoChangeStream(source, Stream.MESSAGES, events)) as reading:
            await reading.beyond(batches=3)
    finally:
        client.close()

    assert [event for event in events.all if event.name == "stream_failed"] == []


async def test_a_node_that_is_not_the_primary_is_told_and_not_read() -> None:
    """`directConnection=true` to a secondary, which lags."""
    async with ReplicaSet(size=2) as pair:
        (secondary,) = await pair.secondaries()
        client = connect(secondary.uri, application="direct", socket_milliseconds=30_000)
        try:
            with pytest.raises(SourceAway, match="not the primary"):
                await inspect_source(tolerant_database(client, "LibreChat"))
        finally:
            client.close()


async def test_a_wrong_name_of_the_replica_set_is_told_with_the_hosts_of_the_uri(
    replica_set: ReplicaSet,
) -> None:
    """The driver drops servers of another set, and knows no host then."""
    uri = replica_set.uri.replace(f"replicaSet={replica_set.name}", "replicaSet=another")
    client = connect(f"{uri}&serverSelectionTimeoutMS=500", application="test", socket_milliseconds=30_000)
    try:
        for _ in range(2):
            with pytest.raises(SourceAway, match="the set may have another name") as raised:
                await inspect_source(tolerant_database(client, "LibreChat"))
    finally:
        client.close()

    assert raised.value.subject == (await replica_set.primary()).address
