"""The backlog fed by a real change stream: what it opens, what answers what, and where a restart would begin."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from bson import ObjectId

from tailer.core.stream.hints import Interest, Stream
from tailer.core.stream.open_turns import EntryKey, OpenTurns
from tailer.core.stream.positions import StreamPosition
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.events import HintsRead, ReadingPaused, StreamGapFound
from tailer.flow.backlog import Backlog
from tailer.flow.intake import Intake
from tailer.flow.parking import Parking
from tailer.flow.records import Checkpoint
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import Database, connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.state import MongoState
from tests.evidence import Events
from tests.integration.leading import lead
from tests.integration.shipping import PATIENCE


class Reader:
    """A backlog and the intake that fills it."""

    def __init__(self, database: Database, state: MongoState, *, limit: int = 1000) -> None:
        self.events = Events()
        self.state = state
        self.parking = Parking(state, PATIENCE)
        turns = OpenTurns(settle_seconds=0, park_seconds=60)
        self.backlog = Backlog(turns, self.parking, limit=limit, monotonic=time.monotonic)
        self.source = MongoChangeStream(database, Stream.MESSAGES, self.events)
        self.intake = Intake(self.backlog, state, self.events, open_limit=limit)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.intake.read(self.source))
        try:
            await self.events.until(lambda: bool(self.events.of(HintsRead)))
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until_inserted(self, count: int) -> None:
        await self.events.until(lambda: sum(event.inserts for event in self.events.of(HintsRead)) >= count)


@pytest.fixture
async def database(replica_set: ReplicaSet) -> AsyncIterator[Database]:
    client = connect(replica_set.uri, application="test", socket_milliseconds=30_000)
    name = f"librechat_{uuid.uuid4().hex}"
    yield tolerant_database(client, name)
    await client.drop_database(name)
    await client.drop_database(f"{name}_state")
    client.close()


@pytest.fixture
async def state(database: Database) -> MongoState:
    return await lead(database.client, f"{database.name}_state", Events())


async def insert(
    database: Database, message_id: str, parent: str | None = None, *, by_user: bool = False
) -> EntryKey:
    row = {"_id": ObjectId(), "messageId": message_id, "parentMessageId": parent, "isCreatedByUser": by_user}
    await database["messages"].insert_one(row)
    return EntryKey(Interest.QUESTION if by_user else Interest.RESPONSE, to_key(row["_id"]))


async def test_a_response_opens_an_entry_and_answers_its_question(
    database: Database, state: MongoState
) -> None:
    """The question waits for as long as nothing answers it, and is not due before its time."""
    reader = Reader(database, state)
    async with reader.reading():
        await insert(database, "q1", by_user=True)
        waiting = await insert(database, "q2", by_user=True)
        answer = await insert(database, "a1", "q1")
        await reader.until_inserted(3)

    (due,) = await reader.backlog.take_due(limit=10, gather_seconds=0)
    assert due.key == answer
    assert len(reader.backlog) == 2
    reader.backlog.close(answer)
    assert reader.backlog.turns.count(Interest.QUESTION) == 1
    assert reader.backlog.turns.next_due() is not None
    reader.backlog.close(waiting)
    assert len(reader.backlog) == 0


@pytest.mark.parametrize(
    ("closed", "told_again"),
    [((3, 1), {0, 1, 2, 3}), ((1, 0), {2, 3}), ((2, 0, 1), {3}), ((3, 2, 1, 0), set())],
)
async def test_the_checkpoint_waits_for_the_oldest_open_entry(
    database: Database, state: MongoState, closed: tuple[int, ...], told_again: set[int]
) -> None:
    """Closed in any order; a reader that begins there is told of everything that is open."""
    reader = Reader(database, state)
    async with reader.reading():
        keys = [await insert(database, f"a{number}", "q") for number in range(4)]
        await reader.until_inserted(4)
    await reader.backlog.take_due(limit=10, gather_seconds=0)
    for number in closed:
        reader.backlog.close(keys[number])
    await state.save_checkpoint(Stream.MESSAGES, reader.backlog.checkpoint(Stream.MESSAGES))
    stored = await state.load_checkpoint(Stream.MESSAGES)
    assert stored is not None

    again = Reader(database, state)
    again.backlog.start(Stream.MESSAGES, stored)
    async with again.reading():
        # The marker comes after all that the position brings back.
        marker = await insert(database, "marker", "q")
        await again.until_inserted(len(told_again) + 1)
    reopened = {entry.key for entry in await again.backlog.take_due(limit=100, gather_seconds=0)}
    assert reopened == {marker, *(keys[number] for number in told_again)}


async def test_a_row_that_changes_while_it_is_worked_on_becomes_due_again(
    database: Database, state: MongoState
) -> None:
    """Closing it does not close it."""
    reader = Reader(database, state)
    async with reader.reading():
        key = await insert(database, "a1", "q1")
        (taken,) = await reader.backlog.take_due(limit=10, gather_seconds=0)
        await database["messages"].update_one({"messageId": "a1"}, {"$set": {"text": "more"}})
        await reader.events.until(lambda: any(event.updates for event in reader.events.of(HintsRead)))
    reader.backlog.close(key)

    assert taken.key == key
    assert len(reader.backlog) == 1
    (again,) = await reader.backlog.take_due(limit=10, gather_seconds=0)
    assert again.key == key
    reader.backlog.close(key)
    assert len(reader.backlog) == 0


async def test_reading_pauses_while_too_much_is_open(database: Database, state: MongoState) -> None:
    """The oplog is the buffer; a paused stream is not a silent one, and nothing is lost when it goes on."""
    reader = Reader(database, state, limit=5)
    async with reader.reading():
        for number in range(5):
            await insert(database, f"a{number}", "q")
        await reader.events.until(lambda: bool(reader.events.of(ReadingPaused)))
        assert reader.backlog.silent_seconds(Stream.MESSAGES) is None
        for number in range(5, 9):
            await insert(database, f"a{number}", "q")
        for entry in await reader.backlog.take_due(limit=10, gather_seconds=0):
            reader.backlog.close(entry.key)
        await reader.until_inserted(9)
        assert reader.backlog.silent_seconds(Stream.MESSAGES) is not None

    assert len(reader.backlog) == 4


async def test_titles_are_read_no_sooner_than_the_turns_before_them(
    database: Database, state: MongoState
) -> None:
    """In a backlog the smaller stream would run ahead, and each title would be sent before its turn, on its own."""
    reader = Reader(database, state)
    backlog = reader.backlog
    before = StreamPosition(None, (await database.command("ping"))["operationTime"].time)
    backlog.start(Stream.MESSAGES, Checkpoint(before))
    backlog.start(Stream.CONVERSATIONS, Checkpoint(before))
    turn = await insert(database, "a1", "q1")
    await database["conversations"].insert_one({"conversationId": "c"})
    await database["conversations"].update_one({"conversationId": "c"}, {"$set": {"title": "A chat"}})
    source = MongoChangeStream(database, Stream.CONVERSATIONS, reader.events)
    titles = asyncio.create_task(reader.intake.read(source))
    try:
        async with asyncio.timeout(20):
            while not backlog.is_paused(Stream.CONVERSATIONS):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        assert len(backlog) == 0
        assert backlog.silent_seconds(Stream.CONVERSATIONS) is None
        async with reader.reading():
            await reader.events.until(
                lambda: any(event.updates for event in reader.events.of(HintsRead)), seconds=20
            )
        assert not backlog.is_paused(Stream.CONVERSATIONS)
    finally:
        titles.cancel()
        await asyncio.gather(titles, return_exceptions=True)

    due = await backlog.take_due(limit=10, gather_seconds=0)
    assert [entry.key.interest for entry in due] == [Interest.RESPONSE, Interest.TITLE]
    assert due[0].key == turn


async def test_lost_history_becomes_a_gap_and_reading_goes_on(database: Database, state: MongoState) -> None:
    """From now; the gap is in the database with its beginning and its end."""
    reader = Reader(database, state)
    reader.backlog.start(Stream.MESSAGES, Checkpoint(StreamPosition("damaged", 17)))
    async with reader.reading():
        await insert(database, "a1", "q1")
        await reader.until_inserted(1)

    (told,) = reader.events.of(StreamGapFound)
    (stored,) = await database.client[f"{database.name}_state"]["gaps"].find().to_list(None)
    assert (told.from_seconds, stored["from_seconds"]) == (17, 17)
    assert told.to_seconds == stored["to_seconds"] > 17
    assert len(reader.backlog) == 1
    assert reader.backlog.checkpoint(Stream.MESSAGES).position.cluster_seconds >= told.to_seconds


async def test_touches_are_stored_with_the_checkpoint(database: Database, state: MongoState) -> None:
    """The moment a question was saved again is known after a restart, which would not see it."""
    reader = Reader(database, state)
    async with reader.reading():
        key = await insert(database, "q1", by_user=True)
        await database["messages"].update_one({"messageId": "q1"}, {"$currentDate": {"updatedAt": True}})
        await reader.events.until(lambda: any(event.updates for event in reader.events.of(HintsRead)))
    await state.save_checkpoint(Stream.MESSAGES, reader.backlog.checkpoint(Stream.MESSAGES))
    stored = await state.load_checkpoint(Stream.MESSAGES)
    assert stored is not None

    again = Reader(database, state)
    again.backlog.start(Stream.MESSAGES, stored)

    touches = reader.backlog.touches_of(key.document_key)
    assert touches
    assert again.backlog.touches_of(key.document_key) == touches
