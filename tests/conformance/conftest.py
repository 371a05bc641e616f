"""Each case twice: over a real server, which starts only where one is asked for, and in memory."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tailer.demo.stage.replica_set import ReplicaSet
from tailer.flow.stores import StateStore
from tailer.mongo.connection import SOCKET_MILLISECONDS, connect
from tests.conformance.destinations import (
    DestinationWorld,
    LangfuseWorld,
    MemoryDestinationWorld,
)
from tests.conformance.worlds import (
    LibreChatWorld,
    MemoryLibreChatWorld,
    MemoryStateWorld,
    MongoLibreChatWorld,
    MongoStateWorld,
    StateWorld,
)
from tests.fakes.langfuse import FakeLangfuse


@pytest.fixture(params=["memory", "mongodb"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[StateWorld]:
    if request.param == "memory":
        yield MemoryStateWorld()
        return
    replica_set: ReplicaSet = request.getfixturevalue("replica_set")
    client = connect(replica_set.uri, application="conformance", socket_milliseconds=30_000)
    name = f"tailer_{uuid.uuid4().hex}"
    world = MongoStateWorld(client, name)
    await world.prepare()
    yield world
    await client.drop_database(name)
    client.close()


@pytest.fixture
async def state(database: StateWorld) -> StateStore:
    return await database.lead()


@pytest.fixture(params=["memory", "mongodb"])
async def librechat(request: pytest.FixtureRequest) -> AsyncIterator[LibreChatWorld]:
    if request.param == "memory":
        yield MemoryLibreChatWorld()
        return
    replica_set: ReplicaSet = request.getfixturevalue("replica_set")
    client = connect(replica_set.uri, application="conformance", socket_milliseconds=SOCKET_MILLISECONDS)
    name = f"librechat_{uuid.uuid4().hex}"
    yield MongoLibreChatWorld(client, name)
    await client.drop_database(name)
    client.close()


@pytest.fixture(params=["memory", "langfuse"])
async def destination(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DestinationWorld]:
    if request.param == "memory":
        yield MemoryDestinationWorld()
        return
    async with FakeLangfuse() as fake, LangfuseWorld(fake, tmp_path) as world:
        yield world
        fake.release()
        assert fake.violations == []
