"""Slots on a real server: what a late write finds, what a takeover leaves, where a position stands."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from bson import Binary
from motor.motor_asyncio import AsyncIOMotorClient

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import LeaseLost, StateError
from tailer.flow.letter_reasons import LetterReason
from tailer.flow.records import Batch, Checkpoint, DeadLetter
from tailer.mongo.connection import Client, connect
from tailer.mongo.state import MongoState, StateDatabase
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.checkpoints import was_delivered_before
from tailer.mongo.state.records import write_item
from tailer.mongo.state.slots import SLOTS, Slot, Slots
from tailer.mongo.state.survey import count_pending, list_checkpoints
from tests.evidence import Events, make_item, make_trace, trace_ids
from tests.integration.commands import Commands
from tests.integration.leading import seize

APPLICATION = "slots"
HERE = "https://langfuse.example"
KEY = DocumentKey("0" * 24)


@pytest.fixture(scope="module")
def faulty_set() -> Iterator[ReplicaSet]:
    """A server that can be told to fail."""
    with ReplicaSet(mongod_arguments=["--setParameter", "enableTestCommands=1"]) as started:
        yield started


@pytest.fixture
async def client(faulty_set: ReplicaSet) -> AsyncIterator[Client]:
    connected = connect(faulty_set.uri, application=APPLICATION, socket_milliseconds=30_000)
    yield connected
    await connected.admin.command("configureFailPoint", "failCommand", mode="off")
    connected.close()


@pytest.fixture
async def database(client: Client) -> AsyncIterator[StateDatabase]:
    state = StateDatabase(client, f"tailer_{uuid.uuid4().hex}", Events())
    await state.prepare()
    yield state
    await client.drop_database(state.name)


async def lead(database: StateDatabase) -> MongoState:
    return MongoState(database, (await seize(database)).fence, destination=HERE)


def make_batch(batch_id: str, *message_ids: str) -> Batch:
    items = [make_item(make_trace(message_id), bytes(10)) for message_id in message_ids]
    return Batch(batch_id, tuple(items), batch_id.encode())


def at(second: int) -> Checkpoint:
    return Checkpoint(StreamPosition(f"82{second:08X}", second), ((KEY, (1, 2)),))


async def test_a_batch_costs_one_write_to_begin_and_one_transaction_to_finish(
    faulty_set: ReplicaSet, database: StateDatabase
) -> None:
    """Its positions and its records included."""
    commands = Commands()
    client: Client = AsyncIOMotorClient(faulty_set.uri, event_listeners=[commands])
    state = await lead(StateDatabase(client, database.name, Events()))
    first, second = make_batch("a", "m1", "m2"), make_batch("b", "m3")
    await state.begin_batch(first)
    await state.finish_batch(first, first.items, positions={Stream.MESSAGES: at(1)})
    commands.sent.clear()

    await state.begin_batch(second)
    await state.finish_batch(second, second.items, positions={Stream.MESSAGES: at(2)})
    sent = [(name := next(iter(command)), command[name]) for command in commands.sent]
    client.close()

    assert sent == [
        ("update", "slots"),
        ("update", "slots"),
        ("update", "exports"),
        ("commitTransaction", 1),
    ]
    assert await state_of(database, "slot-0") == {"epoch": 1, "steps": 4, "positions": {"messages": 2}}


async def state_of(database: StateDatabase, slot_id: str) -> Mapping[str, Any]:
    """A slot, with the seconds of its positions alone."""
    found = await database["slots"].find_one({"_id": slot_id}, {"_id": 0})
    assert found is not None
    positions = {name: fields["cluster_seconds"] for name, fields in found.get("positions", {}).items()}
    return {**found, "positions": positions}


async def test_a_late_write_of_an_earlier_epoch_misses_the_batch_that_has_its_slot_now(
    database: StateDatabase,
) -> None:
    """To begin another, to finish its own, with records and without."""
    earlier = await lead(database)
    old, own = make_batch("old", "m1"), make_batch("own", "m2")
    await earlier.begin_batch(old)
    later = await lead(database)
    await later.begin_batch(own)
    assert [batch.batch_id for batch in await later.pending_batches()] == ["old", "own"]
    stands = await state_of(database, "slot-0")

    for late in (
        earlier.begin_batch(make_batch("late", "m3")),
        earlier.finish_batch(old, old.items, positions={Stream.MESSAGES: at(9)}),
        earlier.finish_batch(old, ()),
    ):
        with pytest.raises(LeaseLost):
            await late

    assert await state_of(database, "slot-0") == stands
    assert stands["batch"]["batch_id"] == "own"
    assert await later.find_exported(trace_ids("m1", "m2", "m3")) == frozenset()
    assert await later.load_checkpoint(Stream.MESSAGES) is None
    assert [batch.batch_id for batch in await later.pending_batches()] == ["old", "own"]


async def test_a_command_that_arrives_after_its_own_repetition_misses_too(database: StateDatabase) -> None:
    """The slot holds the next batch by then, or none."""
    lease = await seize(database)
    state = MongoState(database, lease.fence, destination=HERE)
    first, second = make_batch("first", "m1"), make_batch("second", "m2")
    await state.begin_batch(first)
    await state.finish_batch(first, first.items)
    arriving = Slots(database, lease.fence, Belonging())

    for _ in range(2):
        with pytest.raises(LeaseLost):
            await arriving.fill(Slot(0, "slot-0", 0), {"batch_id": "first", "items": [], "payload": b""})
        assert "first" not in [batch.batch_id for batch in await state.pending_batches()]
        await state.begin_batch(second)

    assert await state.pending_batches() == [second]


@pytest.mark.parametrize(
    "fault", [{"writeConcernError": {"code": 91, "errmsg": "x"}}, {"closeConnection": True}]
)
async def test_a_batch_is_begun_once_where_the_answer_is_lost(
    client: Client, database: StateDatabase, fault: dict[str, Any]
) -> None:
    """The write was done and is repeated; the batch after it finds the slot as it should be."""
    state = await lead(database)
    for number in range(3):
        batch = make_batch(f"b{number}", f"m{number}")
        data = {"failCommands": ["update"], "appName": APPLICATION, **fault}
        await client.admin.command("configureFailPoint", "failCommand", mode={"times": 3}, data=data)
        await state.begin_batch(batch)
        assert await state.pending_batches() == [batch]
        await client.admin.command("configureFailPoint", "failCommand", mode={"times": 3}, data=data)
        await state.finish_batch(batch, batch.items)
        assert await state.pending_batches() == []

    assert await state.find_exported(trace_ids("m0", "m1", "m2")) == frozenset(trace_ids("m0", "m1", "m2"))


async def test_a_beginning_that_arrives_after_a_takeover_begins_nothing(
    client: Client, database: StateDatabase
) -> None:
    """It was on its way to the server meanwhile: nobody may send the batch, and nothing of it is found."""
    earlier = await lead(database)
    batch = make_batch("b", "m1")
    await earlier.begin_batch(batch)
    await earlier.finish_batch(batch, ())
    data = {
        "failCommands": ["update"], "namespace": f"{database.name}.slots",
        "blockConnection": True, "blockTimeMS": 3_000, "appName": APPLICATION,
    }  # fmt: skip
    await client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)
    beginning = asyncio.create_task(earlier.begin_batch(batch))
    await until_running(client, {"command.update": "slots"})

    later = await lead(database)

    assert not beginning.done()
    with pytest.raises(LeaseLost):
        await beginning
    assert await later.pending_batches() == []


async def until_running(client: Client, operation: Mapping[str, Any]) -> None:
    """Return once the server is at work on an operation."""
    async with asyncio.timeout(10):
        while not await client.admin.aggregate([{"$currentOp": {}}, {"$match": operation}]).to_list(None):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


HELD = {"update": "exports", "commitTransaction": None}
"""The commands of a finish, after the one of its slot, and their collections."""


@pytest.mark.parametrize("held", HELD)
async def test_a_takeover_during_a_finish_waits_for_nothing_and_one_of_the_two_counts(
    client: Client, database: StateDatabase, held: str
) -> None:
    """The next instance ends the session of the one before. What that one had not committed is pending then; a commit
    that was on its way may have been done, as a whole."""
    dead = await lead(database)
    batch = make_batch("b", "m1")
    await dead.begin_batch(batch)
    where = {} if HELD[held] is None else {"namespace": f"{database.name}.{HELD[held]}"}
    data = {
        "failCommands": [held], **where,
        "blockConnection": True, "blockTimeMS": 20_000, "appName": APPLICATION,
    }  # fmt: skip
    await client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)
    finishing = asyncio.create_task(dead.finish_batch(batch, batch.items, positions={Stream.MESSAGES: at(9)}))
    await until_running(client, {f"command.{held}": HELD[held] or {"$exists": True}})

    async with asyncio.timeout(8):
        later = await lead(database)
    await client.admin.command("configureFailPoint", "failCommand", mode="off")

    was_done = not await later.pending_batches()
    assert await later.find_exported(trace_ids("m1")) == frozenset(trace_ids("m1") if was_done else [])
    assert await later.load_checkpoint(Stream.MESSAGES) == (at(9) if was_done else None)
    assert not was_done or held == "commitTransaction"
    await later.finish_batch(batch, batch.items, positions={Stream.MESSAGES: at(10)})
    if was_done:
        await finishing
    else:
        with pytest.raises(LeaseLost):
            await finishing
    assert await later.pending_batches() == []
    assert await later.load_checkpoint(Stream.MESSAGES) == at(10)
    assert await later.find_exported(trace_ids("m1")) == frozenset(trace_ids("m1"))


async def test_however_many_instances_are_killed_in_a_row_no_batch_is_lost_and_no_slot(
    database: StateDatabase,
) -> None:
    """Each began batches and died before any was settled; the last finds all of them, oldest first."""
    left = []
    for life in range(2 * SLOTS):
        state = await lead(database)
        for number in range(3):
            left.append(make_batch(f"{life}-{number}", f"m{life}-{number}"))
            await state.begin_batch(left[-1])

    last = await lead(database)
    assert list(await last.pending_batches()) == left
    own = make_batch("own", "m")
    await last.begin_batch(own)
    assert await database["slots"].count_documents({}) == SLOTS
    assert await database["slots"].count_documents({"batch": {"$exists": True}}) == 1
    assert (await count_pending(database)).batches == len(left) + 1
    for batch in (*left, own):
        await last.finish_batch(batch, batch.items)
    assert (await count_pending(database)).batches == 0


async def test_a_candidate_that_dies_before_it_raises_the_slots_is_followed_like_any_other(
    database: StateDatabase,
) -> None:
    """The instance that was active goes on with its batches until the next takeover is complete."""
    first = await lead(database)
    batch, other = make_batch("b", "m1"), make_batch("c", "m2")
    await first.begin_batch(batch)
    await database["lease"].update_one({"_id": "writer"}, {"$set": {"epoch": 2, "holder": "dead", "beat": 0}})
    await database["lease"].update_one({"_id": "fence"}, {"$set": {"epoch": 2}})

    await first.finish_batch(batch, batch.items)
    await first.begin_batch(other)
    third = await lead(database)

    assert third.epoch == 3
    assert await third.pending_batches() == [other]
    assert await third.find_exported(trace_ids("m1")) == frozenset(trace_ids("m1"))
    with pytest.raises(LeaseLost):
        await first.finish_batch(other, other.items)


async def test_a_position_in_a_slot_is_seen_by_whoever_asks(database: StateDatabase) -> None:
    """The next start, the commands, the proof of a destination; the newest counts, wherever it stands."""
    state = await lead(database)
    await state.save_checkpoint(Stream.MESSAGES, at(1))
    for second in (2, 3):
        batch = make_batch(f"b{second}", f"m{second}")
        await state.begin_batch(batch)
        await state.finish_batch(batch, batch.items, positions={Stream.MESSAGES: at(second)})

    (listed,) = await list_checkpoints(database)
    assert (listed.stream, listed.checkpoint, listed.epoch) == (Stream.MESSAGES, at(3), 1)
    assert listed.saved_at is not None
    assert await was_delivered_before(database, HERE)
    assert not await was_delivered_before(database, "https://elsewhere.example")
    assert await (await lead(database)).load_checkpoint(Stream.MESSAGES) == at(3)


async def test_a_position_that_is_set_counts_although_it_lies_before_the_one_in_a_slot(
    database: StateDatabase,
) -> None:
    """The later epoch is newer. A reset forgets every position, in slots too."""
    state = await lead(database)
    batch = make_batch("b", "m")
    await state.begin_batch(batch)
    await state.finish_batch(batch, batch.items, positions={Stream.MESSAGES: at(8)})

    desk = await lead(database)
    await desk.save_checkpoint(Stream.MESSAGES, at(3))
    assert [found.checkpoint for found in await list_checkpoints(database)] == [at(3)]

    await desk.forget_checkpoints()
    assert await list_checkpoints(database) == []
    assert await (await lead(database)).load_checkpoint(Stream.MESSAGES) is None


async def test_a_batch_is_finished_as_a_whole_with_its_positions_or_not_at_all(
    client: Client, database: StateDatabase
) -> None:
    """Its record is refused by the server: nothing of it stands, and it can be finished later."""
    state = await lead(database)
    batch = make_batch("b", "m1", "m2")
    await state.begin_batch(batch)
    letter = DeadLetter(batch.items[1].record_id, "m2", KEY, LetterReason.parse("rejected: http_400"), b"x")
    validator = {"message_id": "nobody"}
    await client[database.name].command({"collMod": "exports", "validator": validator})
    with pytest.raises(StateError):
        await state.finish_batch(batch, batch.items[:1], letters=[letter], positions={Stream.MESSAGES: at(8)})

    assert await state.pending_batches() == [batch]
    assert await state.load_checkpoint(Stream.MESSAGES) is None
    assert (await count_pending(database)).dead_letters == 0
    await client[database.name].command({"collMod": "exports", "validator": {}})
    await state.finish_batch(batch, batch.items[:1], letters=[letter], positions={Stream.MESSAGES: at(8)})
    assert await state.pending_batches() == []
    assert await state.load_checkpoint(Stream.MESSAGES) == at(8)
    assert (await count_pending(database)).dead_letters == 1


async def test_what_a_release_without_slots_stored_is_taken_over(database: StateDatabase) -> None:
    """Its batch is pending, its position is read, and once a newer one is stored its touches in a list are gone."""
    batch = make_batch("b", "m1")
    await database["lease"].insert_many(
        [
            {"_id": "writer", "epoch": 4, "holder": "gone", "released": True},
            {"_id": "fence", "epoch": 4, "writes": 9},
        ]
    )
    await database["checkpoints"].insert_one(
        {
            "_id": "messages", "token": at(5).position.token, "cluster_seconds": 5, "epoch": 4, "pipeline": "x",
            "touches": [[KEY, [1, 2]]], "destination": HERE,
        }
    )  # fmt: skip
    await database["batches"].insert_one(
        {
            "_id": "b", "items": [write_item(item) for item in batch.items], "payload": Binary(batch.payload),
            "began_at": None,
        }
    )  # fmt: skip

    state = await lead(database)

    assert state.epoch == 5
    assert await state.load_checkpoint(Stream.MESSAGES) == at(5)
    assert await was_delivered_before(database, HERE)
    assert await state.pending_batches() == [batch]
    await state.finish_batch(batch, batch.items, positions={Stream.MESSAGES: at(6)})
    assert await state.pending_batches() == []
    assert await state.load_checkpoint(Stream.MESSAGES) == at(6)
    # As the earlier release would read it again.
    (stored,) = await database["checkpoints"].find().to_list(None)
    assert (stored["token"], stored["cluster_seconds"], "touches" in stored) == (
        at(6).position.token,
        6,
        False,
    )
