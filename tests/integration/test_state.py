"""The tailer's own database on a real server: what survives, what is refused, what is counted."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.turn.turns import Wait
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import StateError
from tailer.events import StateFailed
from tailer.flow.letter_reasons import LetterReason
from tailer.flow.records import Batch, Checkpoint, DeadLetter, Gap, ParkedTurn
from tailer.mongo.connection import Client, connect
from tailer.mongo.state import MongoState, StateDatabase
from tailer.mongo.state.checkpoints import was_delivered_before
from tests.evidence import Events, make_item, make_trace, trace_ids
from tests.integration.commands import Commands
from tests.integration.leading import lead

LIFETIME = timedelta(days=90)
HERE, THERE = "https://langfuse.example", "https://elsewhere.example"
KEYS = [DocumentKey(f"{number:024x}") for number in range(5)]
APPLICATION = "state"
WRITES = ("insert", "update", "delete", "findAndModify")


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
def name() -> str:
    return f"tailer_{uuid.uuid4().hex}"


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def state(client: Client, name: str, events: Events) -> MongoState:
    return await start(client, name, events)


async def start(client: Client, name: str, events: Events, *, destination: str = HERE) -> MongoState:
    """What each start of a tailer comes to."""
    return await lead(client, name, events, destination=destination, lifetime=LIFETIME)


def checkpoint(second: int) -> Checkpoint:
    return Checkpoint(StreamPosition(f"82{second:08X}", second), ((KEYS[0], (1, 2)),))


def make_batch(batch_id: str, *message_ids: str) -> Batch:
    items = [make_item(make_trace(message_id), bytes(10)) for message_id in message_ids]
    return Batch(batch_id, tuple(items), bytes(range(256)))


async def test_a_dead_letter_counts_its_tries_and_keeps_when_it_first_failed(
    client: Client, name: str, state: MongoState
) -> None:
    """Once without a chunk, because it could not be built, then with the chunk that was refused."""
    (trace_id,) = trace_ids("m1")
    letter = DeadLetter(trace_id, "m1", KEYS[0], LetterReason.parse("build_failed: ValueError"), None)
    await state.add_dead_letters([letter])
    (first,) = await client[name]["dead_letters"].find().to_list(None)
    await state.add_dead_letters(
        [replace(letter, reason=LetterReason.parse("rejected: http_400"), chunk=b"\x12\x00")]
    )
    (second,) = await client[name]["dead_letters"].find().to_list(None)

    assert (first["tries"], first["chunk"]) == (1, None)
    assert (second["tries"], second["chunk"], second["reason"]) == (2, b"\x12\x00", "rejected: http_400")
    assert second["_id"] == trace_id
    assert second["first_failed_at"] == first["first_failed_at"]
    assert second["last_failed_at"] >= first["last_failed_at"]


async def test_a_gap_is_kept_once(client: Client, name: str, state: MongoState) -> None:
    """Declared again after a crash it is the same gap."""
    gap = Gap(Stream.MESSAGES, 100, 200, "code_286")
    await state.add_gap(gap)
    await state.add_gap(gap)

    (stored,) = await client[name]["gaps"].find().to_list(None)
    assert (stored["from_seconds"], stored["to_seconds"], stored["filled"]) == (100, 200, False)


async def test_the_mask_key_is_made_once(client: Client, name: str, events: Events) -> None:
    """Equal values stay equal over restarts, and for all who ask at once."""
    first = await start(client, name, events)
    keys = await asyncio.gather(*(first.mask_key() for _ in range(9)))
    later = await start(client, name, events)

    assert {*keys, await later.mask_key()} == {keys[0]}
    assert len(keys[0]) == 32


async def test_only_a_destination_that_was_written_to_counts_as_proven(
    client: Client, name: str, events: Events
) -> None:
    """A change of LANGFUSE_HOST is a first start for the new host."""
    here, database = await start(client, name, events), StateDatabase(client, name, events)
    assert not await was_delivered_before(database, HERE)
    await here.save_checkpoint(Stream.MESSAGES, checkpoint(1))

    assert await was_delivered_before(database, HERE)
    assert not await was_delivered_before(database, THERE)


async def test_export_records_expire_after_the_time_of_the_settings(
    client: Client, name: str, state: MongoState
) -> None:
    """A changed setting changes the index."""

    async def lifetime() -> int:
        indexes = await client[name]["exports"].index_information()
        return int(indexes["sent_at_1"]["expireAfterSeconds"])

    assert await lifetime() == LIFETIME.total_seconds()
    await state.prepare(lifetime=timedelta(days=7))
    assert await lifetime() == timedelta(days=7).total_seconds()


async def test_every_write_waits_for_a_majority_and_is_fenced(
    faulty_set: ReplicaSet, name: str, events: Events
) -> None:
    """As the driver sends the commands: what was acknowledged survives the loss of a primary. A batch begins with one
    write of a slot that names the epoch; all else is a transaction, which begins with such a write."""
    commands = Commands()
    client: Client = AsyncIOMotorClient(faulty_set.uri, event_listeners=[commands])
    state = await start(client, name, events)
    commands.sent.clear()
    batch = make_batch("b", "m1")
    await state.mask_key()
    await state.save_checkpoint(Stream.MESSAGES, checkpoint(1))
    await state.begin_batch(batch)
    await state.finish_batch(batch, batch.items)
    await state.record_feedback(batch.items[0].probe.trace_id, None)
    await state.record_deleted([batch.items[0].probe.trace_id])
    await state.park([ParkedTurn(KEYS[0], "m1", Wait.RESPONSE, 100, 900)])
    await state.unpark(KEYS)
    await state.add_gap(Gap(Stream.MESSAGES, 100, 200, "code_286"))
    await state.add_dead_letters(
        [DeadLetter(batch.items[0].record_id, "m1", KEYS[0], LetterReason.parse("x"), None)]
    )
    client.close()

    writes = [command for command in commands.sent if next(iter(command)) in WRITES]
    assert {command[next(iter(command))] for command in writes} == {
        "lease", "keys", "checkpoints", "slots", "exports", "parked", "gaps", "dead_letters",
    }  # fmt: skip
    (alone,) = [command for command in writes if command.get("autocommit") is not False]
    assert (alone["update"], alone["writeConcern"]) == ("slots", {"w": "majority"})
    begun = [command for command in writes if command.get("startTransaction")]
    # The slots are made once, fenced as the rest is.
    assert [command["update"] for command in begun] == [*["lease"] * 3, "slots", *["lease"] * 6]
    assert all(command["updates"][0]["q"]["epoch"] == 1 for command in (alone, *begun))
    commits = [command for command in commands.sent if "commitTransaction" in command]
    assert [command["writeConcern"] for command in commits] == [{"w": "majority"}] * 10


@pytest.mark.parametrize(
    "fault",
    [
        {"writeConcernError": {"code": 91, "errmsg": "shutting down"}},
        {"writeConcernError": {"code": 64, "errmsg": "timed out"}},
        {"errorCode": 10107},
        {"closeConnection": True},
    ],
)
async def test_a_write_that_no_majority_has_yet_is_written_again(
    client: Client, state: MongoState, events: Events, fault: dict[str, Any]
) -> None:
    """Three times in a row, so that the driver's own single retry is not enough."""
    batch = make_batch("b", "m1", "m2")
    await state.begin_batch(batch)
    data = {"failCommands": ["commitTransaction"], "appName": APPLICATION, **fault}
    await client.admin.command("configureFailPoint", "failCommand", mode={"times": 3}, data=data)

    await state.finish_batch(batch, batch.items)

    assert {failed.operation for failed in events.of(StateFailed)} == {"finish_batch"}
    assert await state.find_exported(trace_ids("m1", "m2")) == frozenset(trace_ids("m1", "m2"))
    assert await state.pending_batches() == []


@pytest.mark.parametrize("code", [11602, 11601, 43, 237])
async def test_reads_and_single_writes_outlast_a_passing_failure(
    client: Client, state: MongoState, events: Events, code: int
) -> None:
    """An election in the middle of whatever the state is asked for; somebody who ends operations, sessions, cursors."""
    data = {"failCommands": ["find", "update"], "appName": APPLICATION, "errorCode": code}
    for call in (
        lambda: state.save_checkpoint(Stream.MESSAGES, checkpoint(5)),
        lambda: state.load_checkpoint(Stream.MESSAGES),
        state.pending_batches,
    ):
        await client.admin.command("configureFailPoint", "failCommand", mode={"times": 3}, data=data)
        await call()

    assert {failed.operation for failed in events.of(StateFailed)} == {
        "save_checkpoint", "load_checkpoint", "pending_batches",
    }  # fmt: skip
    assert await state.load_checkpoint(Stream.MESSAGES) == checkpoint(5)


async def test_a_database_that_may_not_be_written_is_an_error_with_the_remedy(
    client: Client, state: MongoState
) -> None:
    """Code 13 does not pass: better the exit code of the state than an endless attempt."""
    data = {"failCommands": ["update"], "appName": APPLICATION, "errorCode": 13}
    await client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)

    with pytest.raises(StateError, match="readWrite"):
        await state.save_checkpoint(Stream.MESSAGES, checkpoint(1))


async def test_a_password_that_is_refused_is_an_error_that_names_the_setting(
    faulty_set: ReplicaSet, name: str, events: Events
) -> None:
    """Code 18, with the first command; the password is not shown."""
    uri = faulty_set.uri.replace("mongodb://", "mongodb://tailer:wr0ng-secret@")
    client = connect(f"{uri}&authSource=admin", application="refused", socket_milliseconds=30_000)
    with pytest.raises(StateError, match="TAILER_STATE_URI") as refused:
        await start(client, name, events)
    client.close()

    assert "user or password" in str(refused.value)
    assert "wr0ng-secret" not in f"{refused.value} {refused.value!r}"
