"""Every code of the table on a server that is told to fail with it: streams and reads, at the first start and later."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
from bson import ObjectId

from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import FailureCause
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import SourceError
from tailer.events import ReadFailed, StreamFailed
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import SOCKET_MILLISECONDS, Database, connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.error_codes import ERROR_CODES, LISTED_CODES, Reaction
from tests.evidence import Events, Reading
from tests.rows import answer

STREAMING, QUERYING = "streaming", "querying"
_CLOSES = 303
"""This server ends the connection when it is told to fail so."""
_WAITING = [code for code in LISTED_CODES if ERROR_CODES[code].reaction is Reaction.WAIT and code != _CLOSES]
_LATER = (2, 13, 46, 166, 8000, 123_456)
"""Some of each kind: each takes seconds."""


@pytest.fixture(scope="module")
def faulty_set() -> Iterator[ReplicaSet]:
    with ReplicaSet(mongod_arguments=["--setParameter", "enableTestCommands=1"]) as started:
        yield started


@pytest.fixture
async def database(faulty_set: ReplicaSet) -> AsyncIterator[Database]:
    """For the test itself; no fault meets it."""
    client = connect(faulty_set.uri, application="test", socket_milliseconds=30_000)
    yield tolerant_database(client, f"librechat_{uuid.uuid4().hex}")
    await client.admin.command("configureFailPoint", "failCommand", mode="off")
    client.close()


@pytest.fixture
async def streamed(faulty_set: ReplicaSet, database: Database) -> AsyncIterator[Database]:
    client = connect(faulty_set.uri, application=STREAMING, socket_milliseconds=SOCKET_MILLISECONDS)
    yield tolerant_database(client, database.name)
    client.close()


@pytest.fixture
async def queried(faulty_set: ReplicaSet, database: Database) -> AsyncIterator[Database]:
    client = connect(faulty_set.uri, application=QUERYING, socket_milliseconds=30_000)
    yield tolerant_database(client, database.name)
    client.close()


async def fail_next(database: Database, command: str, application: str, code: int, times: int = 1) -> None:
    await database.client.admin.command(
        "configureFailPoint",
        "failCommand",
        mode={"times": times},
        data={"failCommands": [command], "appName": application, "errorCode": code},
    )


async def test_a_source_that_can_never_stream_ends_the_first_start_with_the_remedy(
    database: Database, streamed: Database
) -> None:
    for code in [*_WAITING, 123_456]:
        await fail_next(database, "aggregate", STREAMING, code)
        with pytest.raises(SourceError) as refused:
            async with Reading(MongoChangeStream(streamed, Stream.MESSAGES, Events())):
                pass
        known = ERROR_CODES.get(code)
        assert refused.value.hint.endswith(known.remedy or "" if known is not None else "the server's log"), (
            code
        )


def has_more(events: Events, told: int) -> bool:
    return len(events.of(StreamFailed)) > told


async def test_the_same_failures_later_are_waited_for_and_nothing_is_missed(
    database: Database, streamed: Database
) -> None:
    events = Events()
    async with Reading(MongoChangeStream(streamed, Stream.MESSAGES, events)) as reading:
        for number, code in enumerate(_LATER):
            told = len(events.of(StreamFailed))
            await fail_next(database, "getMore", STREAMING, code)
            await events.until(partial(has_more, events, told))
            await database["messages"].insert_one({"messageId": f"m{number}"})
            await reading.until_read(number + 1)
            await reading.beyond()
            failed, known = events.of(StreamFailed)[told], ERROR_CODES.get(code)
            assert failed.reaction == (Reaction.WAIT if known is None else known.reaction), code
            assert failed.cause == (FailureCause.OTHER if known is None else known.cause), code
            assert (failed.hint is None) == (failed.reaction != "wait"), code

    assert reading.ids() == [f"m{number}" for number in range(len(_LATER))]


async def test_a_stream_that_opens_and_cannot_be_resumed_ends_the_first_start(
    database: Database, streamed: Database
) -> None:
    """As on servers without `startAfter`: the opening succeeds, the one after its token does not."""
    await database.client.admin.command(
        "configureFailPoint",
        "failCommand",
        mode={"skip": 1},
        data={"failCommands": ["aggregate"], "appName": STREAMING, "errorCode": 40415},
    )
    with pytest.raises(SourceError, match="startAfter"):
        async with Reading(MongoChangeStream(streamed, Stream.MESSAGES, Events())):
            pass


async def test_a_view_ends_the_first_start_with_the_remedy(database: Database, streamed: Database) -> None:
    await database.command({"create": "messages", "viewOn": "others", "pipeline": []})

    with pytest.raises(SourceError, match="is a view"):
        async with Reading(MongoChangeStream(streamed, Stream.MESSAGES, Events())):
            pass


@pytest.mark.parametrize("code", [13, 123_456])
async def test_rows_that_may_not_be_read_any_more_are_waited_for_with_the_remedy(
    database: Database, queried: Database, code: int
) -> None:
    """A privilege that is revoked can be granted again: the turns come afterwards."""
    events = Events()
    reader = MongoDocuments(queried, events, history_bytes=64_000, with_users=False)
    row = answer("a1", "q1")
    await database["messages"].insert_one(row)
    assert await reader.locate([to_key(row["_id"])])
    await fail_next(database, "find", QUERYING, code, times=3)
    found = await asyncio.wait_for(reader.locate([to_key(row["_id"])]), 20)

    assert [item.message_id for item in found] == ["a1"]
    failed = events.of(ReadFailed)
    assert [event.failure for event in failed] == [f"code_{code}"] * 3
    assert all(event.hint for event in failed)


async def test_rows_that_could_never_be_read_are_an_error_with_the_remedy(
    database: Database, queried: Database
) -> None:
    for code in [*_WAITING, 123_456]:
        await fail_next(database, "find", QUERYING, code)
        reader = MongoDocuments(queried, Events(), history_bytes=64_000, with_users=False)
        with pytest.raises(SourceError) as refused:
            await reader.locate([to_key(ObjectId())])
        known = ERROR_CODES.get(code)
        assert refused.value.hint.endswith(known.remedy or "" if known is not None else "the server's log"), (
            code
        )
