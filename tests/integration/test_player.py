"""The player against a real MongoDB: what it leaves behind, what a change stream sees of it, and its pace."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo.errors import DuplicateKeyError

from tailer.demo.stage.player import MAJORITY, apply, play
from tailer.demo.stage.recording import Document, RecordedEvent, Recording, UpdateDescription
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import TailerError
from tests.recordings import NAMES, load


@pytest.fixture(scope="module")
def server() -> Iterator[ReplicaSet]:
    with ReplicaSet() as replica_set:
        yield replica_set


@pytest.fixture
async def database(server: ReplicaSet) -> AsyncIterator[AsyncIOMotorDatabase[Document]]:
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(server.uri, tz_aware=True)
    name = f"played_{ObjectId()}"
    yield client[name]
    await client.drop_database(name)
    client.close()


def last_documents(recording: Recording) -> dict[str, dict[Any, Document]]:
    """Collection → `_id` → document after the last event; emptied collections included."""
    documents: dict[str, dict[Any, Document]] = {}
    for event in recording.events:
        collection = documents.setdefault(event.collection, {})
        if event.operation == "delete":
            collection.pop(event.document_key["_id"], None)
        else:
            assert event.full_document is not None
            collection[event.document_key["_id"]] = event.full_document
    return documents


async def stored_documents(database: AsyncIOMotorDatabase[Document]) -> dict[str, dict[Any, Document]]:
    return {
        name: {document["_id"]: document async for document in database[name].find()}
        for name in await database.list_collection_names()
    }


def update_event(document_key: Document, update: UpdateDescription) -> RecordedEvent:
    return RecordedEvent(
        offset=timedelta(),
        database="LibreChat",
        collection="messages",
        operation="update",
        document_key=document_key,
        update=update,
    )


@pytest.mark.parametrize("name", NAMES)
async def test_a_played_recording_leaves_the_documents_of_its_last_events(
    name: str, database: AsyncIOMotorDatabase[Document]
) -> None:
    """Replaying the updates alone gives what LibreChat's own database held in the end."""
    count = await play(load(name), database, speed=None)

    assert count == len(load(name).events)
    assert await stored_documents(database) == last_documents(load(name))


@pytest.mark.parametrize("name", ["06-abort", "12-temporary"])
async def test_a_change_stream_sees_the_recorded_events_again(
    name: str, database: AsyncIOMotorDatabase[Document]
) -> None:
    """The same operations on the same documents with the same changed fields, in the same order."""

    def recorded(event: RecordedEvent) -> tuple[object, ...]:
        fields = event.update.updated_fields if event.update else None
        return (event.operation, event.collection, event.document_key, fields)

    recording = load(name)
    async with database.watch() as stream:
        await play(recording, database, speed=None)
        changes = [await stream.next() for _ in recording.events]

    assert [
        (
            change["operationType"],
            change["ns"]["coll"],
            change["documentKey"],
            change["updateDescription"]["updatedFields"] if "updateDescription" in change else None,
        )
        for change in changes
    ] == [recorded(event) for event in recording.events]


async def test_a_recording_plays_many_times_side_by_side_under_other_names(
    database: AsyncIOMotorDatabase[Document],
) -> None:
    """Renamed copies share no document."""
    copies = [load("09-agent-tools").rename(salt).shift(datetime.now(UTC)) for salt in ("a", "b", "c")]

    await play(copies, database, speed=None, write_concern=MAJORITY)

    assert await database["messages"].count_documents({}) == 3 * 10
    assert len(await database["messages"].distinct("messageId")) == 3 * 10
    assert len(await database["messages"].distinct("user")) == 3
    assert len(await database["agents"].distinct("id")) == 3


async def test_the_same_recording_twice_is_refused_by_the_database(
    database: AsyncIOMotorDatabase[Document],
) -> None:
    """Documents keep their `_id`, so a forgotten rename shows at once instead of doubling every token."""
    await play(load("01-single-turn"), database, speed=None)

    with pytest.raises(DuplicateKeyError):
        await play(load("01-single-turn"), database, speed=None)


async def test_no_event_is_applied_before_its_time(database: AsyncIOMotorDatabase[Document]) -> None:
    """At twice the speed an event waits for half its offset."""
    clock = asyncio.get_running_loop()
    started = clock.time()
    lateness: list[float] = []

    def note(event: RecordedEvent) -> None:
        lateness.append(clock.time() - started - event.offset.total_seconds() / 2)

    await play(load("01-single-turn"), database, speed=2.0, on_applied=note)

    assert len(lateness) == len(load("01-single-turn").events)
    # The event loop's timers may fire early by the resolution of its clock.
    assert min(lateness) > -0.001


async def test_long_silences_can_be_cut(database: AsyncIOMotorDatabase[Document]) -> None:
    """07-errors waits 206 s for retries inside LibreChat; nobody has to."""
    async with asyncio.timeout(30):
        await play(load("07-errors"), database, speed=1.0, max_gap=timedelta(milliseconds=10))


async def test_a_speed_of_zero_is_refused(database: AsyncIOMotorDatabase[Document]) -> None:
    """It would never end."""
    with pytest.raises(ValueError, match="above 0"):
        await play(load("01-single-turn"), database, speed=0)


async def test_removed_fields_and_shortened_arrays_are_applied(
    database: AsyncIOMotorDatabase[Document],
) -> None:
    """An array is cut to its new size before a field inside it is set."""
    identifier = ObjectId()
    await database["messages"].insert_one(
        {"_id": identifier, "parts": [{"n": 1}, {"n": 2}, {"n": 3}], "feedback": 1}
    )
    update = UpdateDescription(
        updated_fields={"parts.0.n": 9, "text": ""},
        removed_fields=("feedback",),
        truncated_arrays=(("parts", 2),),
    )

    await apply(update_event({"_id": identifier}, update), database)

    assert await database["messages"].find_one() == {
        "_id": identifier,
        "parts": [{"n": 9}, {"n": 2}],
        "text": "",
    }


async def test_an_update_of_a_document_that_nobody_has_cannot_be_played(
    database: AsyncIOMotorDatabase[Document],
) -> None:
    """Without an earlier insert and without a full document there is nothing to write, and that is said."""
    with pytest.raises(TailerError, match="does not hold"):
        await apply(update_event({"_id": ObjectId()}, UpdateDescription(updated_fields={"a": 1})), database)
