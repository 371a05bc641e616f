"""The change stream of a real replica set: what becomes a hint, and where reading goes on."""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from types import AsyncGeneratorType
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import OperationFailure

from tailer.core.stream.hints import Operation, Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.shard import Shard
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import SourceAway, SourceError
from tailer.events import StreamEnded, StreamFailed, StreamOpened
from tailer.flow.ports import ChangeSource
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import (
    SOCKET_MILLISECONDS,
    Client,
    Database,
    connect,
    inspect_source,
    tolerant_database,
)
from tailer.mongo.hint_pipeline import HINT_PIPELINES
from tailer.mongo.quiet import Quiet
from tests.evidence import Events, Reading
from tests.integration.commands import Commands

SECRET = "a secret of the user "


@pytest.fixture
async def database(replica_set: ReplicaSet) -> AsyncIterator[Database]:
    """A database that no other test has used."""
    client = connect(replica_set.uri, application="test", socket_milliseconds=SOCKET_MILLISECONDS)
    name = f"librechat_{uuid.uuid4().hex}"
    yield tolerant_database(client, name)
    await client.drop_database(name)
    client.close()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def messages(database: Database, events: Events) -> ChangeSource:
    return MongoChangeStream(database, Stream.MESSAGES, events)


def holds_of(commands: Commands, stream: Stream) -> list[int]:
    """How many milliseconds the server was asked to hold each request of a stream."""
    return [command["maxTimeMS"] for command in commands.sent if command.get("collection") == stream.value]


async def number_rows(database: Database, first: int, last: int) -> list[str]:
    """Insert rows with the message ids `m<first>` to `m<last>`; gives the ids."""
    ids = [f"m{number}" for number in range(first, last + 1)]
    await database["messages"].insert_many([{"messageId": message_id} for message_id in ids])
    return ids


async def test_every_kind_of_change_becomes_a_hint_with_the_fields_it_has(
    database: Database, messages: ChangeSource
) -> None:
    """Insert and replace know the row's ids, an update the names of what changed, a delete the `_id` alone."""
    key = ObjectId()
    row = {
        "_id": key, "messageId": "m1", "parentMessageId": "p1", "isCreatedByUser": False, "text": SECRET,
    }  # fmt: skip
    async with Reading(messages) as reading:
        await database["messages"].insert_one(dict(row))
        await database["messages"].update_one(
            {"_id": key},
            {"$set": {"text": f"{SECRET}!", "unfinished": False}, "$unset": {"parentMessageId": 1}},
        )
        await database["messages"].replace_one({"_id": key}, {**row, "isCreatedByUser": True})
        await database["messages"].delete_one({"_id": key})
        inserted, updated, replaced, deleted = await reading.until_read(4)

    assert [hint.operation for hint in reading.hints] == list(Operation)
    assert {hint.document_key for hint in reading.hints} == {str(key)}
    assert (inserted.message_id, inserted.parent_message_id, inserted.created_by_user) == ("m1", "p1", False)
    assert inserted.changed == frozenset()
    assert updated.changed == {"text", "unfinished", "parentMessageId"}
    assert (updated.message_id, updated.parent_message_id, updated.created_by_user) == (None, None, None)
    assert (replaced.message_id, replaced.created_by_user) == ("m1", True)
    assert (deleted.message_id, deleted.created_by_user, deleted.changed) == (None, None, frozenset())
    assert all(hint.cluster_seconds >= key.generation_time.timestamp() - 1 for hint in reading.hints)
    assert all(hint.written_milliseconds is not None for hint in reading.hints)
    assert SECRET not in repr(reading.hints)


async def test_a_hint_carries_librechats_own_time_of_the_write_where_an_update_has_one(
    database: Database, messages: ChangeSource
) -> None:
    """`updatedAt` of the write, not the time at which the server saw it."""
    key = (await database["messages"].insert_one({"messageId": "m1"})).inserted_id
    async with Reading(messages) as reading:
        await database["messages"].update_one(
            {"_id": key}, {"$set": {"updatedAt": bson.DatetimeMS(1_700_000_000_123)}}
        )
        (hint,) = await reading.until_read(1)

    assert hint.written_milliseconds == 1_700_000_000_123


async def test_a_first_start_reads_what_was_written_since_it_asked(
    database: Database, events: Events
) -> None:
    """What LibreChat writes while the daemon still starts belongs to it, and what came before does not."""
    await number_rows(database, 1, 2)
    facts = await inspect_source(database)
    await number_rows(database, 3, 4)

    async with Reading(MongoChangeStream(database, Stream.MESSAGES, events, facts.now)) as reading:
        found = await reading.until_read(2)

    assert [hint.message_id for hint in found] == ["m3", "m4"]


async def test_an_update_is_named_by_its_top_level_fields(database: Database, messages: ChangeSource) -> None:
    """Dotted paths, pipelines, arrays that grow and arrays that shrink: `content` is what changed."""
    rows = database["messages"]
    key = (await rows.insert_one({"content": [{"a": 1}, {"a": 2}, {"a": 3}], "n": 1})).inserted_id
    async with Reading(messages) as reading:
        await rows.update_one({"_id": key}, {"$set": {"content.1.a": 9, "metadata.usage.cost": 0.1}})
        await rows.update_one({"_id": key}, [{"$set": {"n": {"$add": ["$n", 1]}}}])
        await rows.update_one({"_id": key}, [{"$set": {"content": {"$slice": ["$content", 2]}}}])
        await rows.update_one({"_id": key}, {"$push": {"content": {"a": 4}}})
        await rows.update_one({"_id": key}, {"$unset": {"metadata.usage.cost": 1}})
        hints = await reading.until_read(5)

    assert [set(hint.changed) for hint in hints] == [
        {"content", "metadata"},
        {"n"},
        {"content"},
        {"content"},
        {"metadata"},
    ]


async def test_a_row_of_fifteen_megabytes_is_a_small_hint(database: Database, messages: ChangeSource) -> None:
    """The projection leaves the document on the server: some hundred bytes travel, and no size check fails."""
    text = "x" * 15_000_000
    collection = database["messages"]
    opening = {
        "aggregate": "messages",
        "pipeline": [{"$changeStream": {}}, *HINT_PIPELINES[Stream.MESSAGES]],
        "cursor": {},
    }
    async with await database.client.start_session() as session, Reading(messages) as reading:
        opened = await database.command(opening, session=session)
        key = (await collection.insert_one({"messageId": "large", "text": text})).inserted_id
        await collection.update_one({"_id": key}, {"$set": {"text": text + "y"}})
        await collection.replace_one({"_id": key}, {"messageId": "large", "text": text})
        hints = await reading.until_read(3)
        getting = {"getMore": bson.Int64(opened["cursor"]["id"]), "collection": "messages"}
        reply = await database.command(getting, session=session)

    assert [hint.operation for hint in hints] == [Operation.INSERT, Operation.UPDATE, Operation.REPLACE]
    assert reading.ids() == ["large", None, "large"]
    sizes = [len(bson.encode(event)) for event in reply["cursor"]["nextBatch"]]
    assert sizes
    assert max(sizes) < 600


async def test_ids_of_the_wrong_type_length_or_encoding_do_not_stop_the_stream(
    database: Database, messages: ChangeSource
) -> None:
    """Any program may write there: a number, a novel, broken UTF-8. The row is read by its `_id` anyway."""
    broken = bson.encode({"_id": 3, "messageId": "QQQQ"}).replace(b"QQQQ", b"\xff\xfe\xff\xc3")
    async with Reading(messages) as reading:
        await database["messages"].insert_one({"_id": 1, "messageId": 7, "parentMessageId": {"a": 1}})
        await database["messages"].insert_one({"_id": 2, "messageId": "ü" * 100_000})
        await database["messages"].insert_one(RawBSONDocument(broken))
        await database["messages"].insert_one({"_id": 4, "messageId": "sound", "parentMessageId": "ü" * 200})
        hints = await reading.until_read(4)

    assert [hint.message_id for hint in hints] == [None, None, "\ufffd" * 4, "sound"]
    assert hints[3].parent_message_id == "ü" * 200


async def test_each_stream_tells_of_its_own_collection_only(database: Database, events: Events) -> None:
    """Users, keys and tokens next door are never seen."""
    conversations = MongoChangeStream(database, Stream.CONVERSATIONS, events)
    async with Reading(conversations) as reading:
        await database["users"].insert_one({"_id": "user"})
        await database["messages"].insert_one({"_id": "message"})
        key = (await database["conversations"].insert_one({"title": "New Chat"})).inserted_id
        await database["conversations"].update_one({"_id": key}, {"$set": {"title": "Clocks"}})
        hints = await reading.until_read(2)

    assert {hint.document_key for hint in hints} == {str(key)}
    assert hints[1].changed == {"title"}


async def test_reading_goes_on_with_exactly_what_follows_a_position(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """Each position, that of every single event and that of a batch, is a place to start from."""
    async with Reading(messages) as first:
        ids = await number_rows(database, 1, 6)
        await first.until_read(6)
    assert first.ids() == ids

    for count, position in enumerate(first.positions, start=1):
        async with Reading(messages, position) as again:
            await again.until_read(6 - count)
        assert again.ids() == ids[count:]
    async with Reading(messages, first.last) as after:
        more = await number_rows(database, 7, 8)
        await after.until_read(2)
    assert after.ids() == more
    assert events.of(StreamFailed) == []
    assert events.of(StreamOpened)[1].resumed_from_seconds == first.positions[0].cluster_seconds


@pytest.mark.parametrize("ending", ["drop", "rename", "rename over", "drop database"])
async def test_an_invalidated_stream_goes_on_with_the_next_collection(
    database: Database, messages: ChangeSource, events: Events, ending: str
) -> None:
    """The server closes the cursor; the token after the invalidate opens the successor and nothing is missed."""
    async with Reading(messages) as reading:
        await number_rows(database, 1, 2)
        match ending:
            case "drop":
                await database["messages"].drop()
            case "rename":
                await database["messages"].rename("messages_old")
            case "rename over":
                await database["restored"].insert_one({"messageId": "restored"})
                await database["restored"].rename("messages", dropTarget=True)
            case _:
                await database.client.drop_database(database.name)
        await number_rows(database, 3, 4)
        await reading.until_read(4)

        assert reading.ids() == ["m1", "m2", "m3", "m4"]
        assert [ended.cause for ended in events.of(StreamEnded)] == ["invalidate"]

    async with Reading(messages, reading.positions[1]) as again:
        await again.until_read(2)
    assert again.ids() == ["m3", "m4"]


async def test_a_collection_that_does_not_exist_yet_is_watched(
    database: Database, messages: ChangeSource
) -> None:
    """A LibreChat that was just installed has no messages."""
    assert await database.list_collection_names() == []
    async with Reading(messages) as reading:
        await number_rows(database, 1, 1)
        await reading.until_read(1)
    assert reading.ids() == ["m1"]


async def test_a_standalone_server_is_named_with_the_remedy() -> None:
    """As LibreChat's compose file starts it: the start says how to make a replica set of it."""
    with ReplicaSet(standalone=True) as server:
        client = connect(server.uri, application="test", socket_milliseconds=SOCKET_MILLISECONDS)
        database = tolerant_database(client, "LibreChat")
        with pytest.raises(SourceError, match="--replSet rs0") as inspected:
            await inspect_source(database)
        events = Events()
        for start in (None, StreamPosition("82" + "00" * 8, 0)):
            with pytest.raises(SourceError, match=r"rs\.initiate") as opened:
                async with Reading(MongoChangeStream(database, Stream.MESSAGES, events), start):
                    pass
            assert "LibreChat.messages" in str(opened.value)
            assert isinstance(opened.value.__cause__, OperationFailure)
        client.close()

    assert not isinstance(inspected.value, SourceAway)
    assert [failed.failure for failed in events.of(StreamFailed)] == ["code_40573"] * 2


async def test_a_replica_set_is_described_by_name_and_version(
    replica_set: ReplicaSet, database: Database
) -> None:
    """What the start says it watches."""
    facts = await inspect_source(database)

    assert facts.replica_set == replica_set.name
    assert facts.version.split(".")[0].isdigit()


def unfinished(generators: Iterable[AsyncGenerator[Any, Any]]) -> list[AsyncGenerator[Any, Any]]:
    return [
        generator
        for generator in generators
        if isinstance(generator, AsyncGeneratorType) and generator.ag_frame is not None
    ]


async def test_a_reader_that_stops_ends_the_session_at_once(messages: ChangeSource) -> None:
    """Everything that was opened for it is closed with it, not when the garbage is collected."""
    opened: list[AsyncGenerator[Any, Any]] = []
    loops = sys.get_asyncgen_hooks()
    followed = messages.follow(None)
    assert isinstance(followed, AsyncGenerator)
    # Kept in a list, none of them can be collected.
    sys.set_asyncgen_hooks(firstiter=opened.append)
    try:
        await anext(followed)
    finally:
        sys.set_asyncgen_hooks(loops.firstiter, loops.finalizer)
    assert len(unfinished(opened)) >= 2

    await followed.aclose()

    assert unfinished(opened) == []


@pytest.mark.parametrize(
    ("stream", "field", "pause_seconds", "most"),
    [
        (Stream.MESSAGES, "text", 0.0, 15),
        (Stream.MESSAGES, "text", 0.05, 9),
        (Stream.CONVERSATIONS, "title", 0.0, 5),
        (Stream.CONVERSATIONS, "updates", 0.0, 5),
    ],
)
async def test_a_busy_collection_is_not_asked_more_often_than_its_pace(
    replica_set: ReplicaSet, stream: Stream, field: str, pause_seconds: float, most: int
) -> None:
    """Messages are asked sooner where hundreds are written a second. The pace holds too where every answer is empty,
    because the events are none of the stream's business."""
    client = connect(replica_set.uri, application="paced", socket_milliseconds=SOCKET_MILLISECONDS)
    source = tolerant_database(client, f"librechat_{uuid.uuid4().hex}")

    async def count() -> int:
        status = await client.admin.command("serverStatus")
        return int(status["metrics"]["commands"]["getMore"]["total"])

    try:
        key = (await source[stream.value].insert_one({"n": 0})).inserted_id
        async with Reading(MongoChangeStream(source, stream, Events())):
            before, until = await count(), time.monotonic() + 3
            while time.monotonic() < until:
                await source[stream.value].update_one({"_id": key}, {"$set": {field: str(time.monotonic())}})
                await asyncio.sleep(pause_seconds)
            asked = await count() - before
        await client.drop_database(source.name)
    finally:
        client.close()

    assert 1 <= asked <= most


async def test_while_messages_arrive_the_server_holds_no_request_for_conversations(
    replica_set: ReplicaSet,
) -> None:
    """Otherwise every write of anybody, to any collection, would wake it to look whether it can answer."""
    commands = Commands()
    client: Client = AsyncIOMotorClient(replica_set.uri, event_listeners=[commands])
    source = tolerant_database(client, f"librechat_{uuid.uuid4().hex}")
    quiet = Quiet()
    try:
        async with (
            Reading(MongoChangeStream(source, Stream.MESSAGES, Events(), quiet=quiet)) as reading,
            Reading(MongoChangeStream(source, Stream.CONVERSATIONS, Events(), quiet=quiet)),
        ):
            async with asyncio.timeout(20):
                while len(holds_of(commands, Stream.CONVERSATIONS)) < 4:
                    await source["messages"].insert_one({"messageId": uuid.uuid4().hex})
                    await asyncio.sleep(0.01)
        await client.drop_database(source.name)
    finally:
        client.close()

    assert reading.hints
    assert min(holds_of(commands, Stream.CONVERSATIONS)) < 300
    assert min(holds_of(commands, Stream.MESSAGES)) >= 500


@pytest.mark.parametrize("shard", Shard(0, 3).all(), ids=str)
async def test_the_server_leaves_out_rows_of_other_shards(
    database: Database, events: Events, shard: Shard
) -> None:
    """Of ids that LibreChat makes; every other event arrives: updates and deletions name only the row."""
    own_ids = [str(UUID(int=number, version=4)) for number in range(12)]
    others = ["thread_1", own_ids[0] + "\n", "5F8B9A60-0000-4000-8000-0000000000FF", "", None, 7]
    source = MongoChangeStream(database, Stream.MESSAGES, events, shard=shard)
    async with Reading(source) as reading:
        rows = [{"messageId": f"m{n}", "conversationId": each} for n, each in enumerate([*own_ids, *others])]
        await database["messages"].insert_many(rows)
        await database["messages"].update_one({"_id": rows[0]["_id"]}, {"$set": {"text": "x"}})
        await database["messages"].update_one({"_id": rows[1]["_id"]}, {"$set": {"text": "x"}})
        await database["messages"].delete_one({"_id": rows[2]["_id"]})
        await reading.until(lambda: Operation.DELETE in {hint.operation for hint in reading.hints})

    inserted = [hint.conversation_id for hint in reading.hints if hint.operation is Operation.INSERT]
    assert inserted == [
        *(each for each in own_ids if shard.owns(each)),
        *(each if isinstance(each, str) else None for each in others),
    ]
    assert [hint.operation for hint in reading.hints][-3:] == [
        Operation.UPDATE,
        Operation.UPDATE,
        Operation.DELETE,
    ]
