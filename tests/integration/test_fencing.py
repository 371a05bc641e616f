"""The fence on a real server: what an instance that lost the lease still tries, and who may take the lease."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.turn.turns import Wait
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import LeaseLost, StateError
from tailer.events import StateOperation
from tailer.flow.letter_reasons import LetterReason
from tailer.flow.records import Batch, Checkpoint, DeadLetter, Gap, ParkedTurn
from tailer.mongo.connection import Client, connect
from tailer.mongo.state import MongoState, StateDatabase
from tailer.mongo.state.database import Transaction
from tests.evidence import Events, make_item, make_trace
from tests.integration.leading import seize

KEY = DocumentKey("0" * 24)
LEASE = timedelta(seconds=8)
CHECKPOINT = Checkpoint(StreamPosition("8200000007", 7))


@pytest.fixture
async def client(replica_set: ReplicaSet) -> AsyncIterator[Client]:
    connected = connect(replica_set.uri, application="fencing", socket_milliseconds=30_000)
    yield connected
    connected.close()


@pytest.fixture
async def database(client: Client) -> AsyncIterator[StateDatabase]:
    name = f"tailer_{uuid.uuid4().hex}"
    state = StateDatabase(client, name, Events())
    await state.prepare()
    yield state
    await client.drop_database(name)


def make_batch(batch_id: str) -> Batch:
    return Batch(batch_id, (make_item(make_trace("m1"), bytes(10)),), b"payload")


BATCH = make_batch("b")
WRITES: dict[str, Callable[[MongoState], Awaitable[object]]] = {
    "checkpoint": lambda state: state.save_checkpoint(Stream.MESSAGES, CHECKPOINT),
    "batch": lambda state: state.begin_batch(BATCH),
    "export record": lambda state: state.finish_batch(BATCH, BATCH.items),
    "feedback": lambda state: state.record_feedback(BATCH.items[0].probe.trace_id, "x"),
    "deletion": lambda state: state.record_deleted([BATCH.items[0].probe.trace_id]),
    "parked turn": lambda state: state.park([ParkedTurn(KEY, "m1", Wait.RESPONSE, 1, 2)]),
    "turn no longer parked": lambda state: state.unpark([KEY]),
    "gap": lambda state: state.add_gap(Gap(Stream.MESSAGES, 1, 2, "code_286")),
    "dead letter": lambda state: state.add_dead_letters(
        [DeadLetter("r", "m1", KEY, LetterReason.parse("x"), None)]
    ),
    "key": lambda state: state.mask_key(),
}


@pytest.mark.parametrize("what", WRITES)
async def test_nothing_of_an_earlier_epoch_is_written(
    database: StateDatabase, client: Client, what: str
) -> None:
    """Not even when the later epoch has written nothing yet; the later one may write the same."""
    earlier = MongoState(database, (await seize(database)).fence, destination="fake")
    later = MongoState(database, (await seize(database)).fence, destination="fake")

    with pytest.raises(LeaseLost):
        await WRITES[what](earlier)

    names = set(await client[database.name].list_collection_names()) - {"lease"}
    assert [await database[name].count_documents({}) for name in sorted(names)] == [0] * len(names)
    await WRITES[what](later)


async def test_a_transaction_that_was_begun_before_the_takeover_cannot_commit_after_it(
    database: StateDatabase,
) -> None:
    """The takeover ends it: the write that stood in it is undone, and tried again it finds a later epoch."""
    earlier = await seize(database)
    began, go_on = threading.Event(), threading.Event()

    def write(transaction: Transaction) -> None:
        transaction["exports"].insert_one({"_id": "x"}, session=transaction.session)
        began.set()
        go_on.wait()

    writing = asyncio.create_task(earlier.fence.write(StateOperation.PARK, write))
    await asyncio.to_thread(began.wait)
    async with asyncio.timeout(5):
        later = await seize(database)
    go_on.set()

    with pytest.raises(LeaseLost):
        await writing
    assert later.fence.epoch == earlier.fence.epoch + 1
    assert await database["exports"].count_documents({}) == 0


async def test_writes_of_one_epoch_do_not_conflict_with_each_other_or_with_renewals(
    client: Client, database: StateDatabase
) -> None:
    """A conflict would be told as a failed write; each write is counted on the fence."""
    events = Events()
    told = StateDatabase(client, database.name, events)
    lease = await seize(told)
    state = MongoState(told, lease.fence, destination="fake")

    await asyncio.gather(
        *(state.unpark([KEY]) for _ in range(30)),
        *(lease.renew(lease.fence.epoch) for _ in range(30)),
    )

    assert events.all == []
    fence = await database["lease"].find_one({"_id": "fence"})
    assert fence == {"_id": "fence", "epoch": 1, "writes": 30}


async def test_a_write_whose_caller_was_cancelled_leaves_the_way_free_for_the_next(
    database: StateDatabase,
) -> None:
    """Senders are cancelled at an end, and the last checkpoint is stored after them."""
    lease = await seize(database)
    state = MongoState(database, lease.fence, destination="fake")
    for number in range(20):
        writing = asyncio.create_task(state.begin_batch(make_batch(f"b{number}")))
        for _ in range(number):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await state.save_checkpoint(Stream.MESSAGES, CHECKPOINT)
    await lease.fence.close()


async def test_a_standalone_server_for_the_state_is_refused_with_the_remedy() -> None:
    """It has no transactions; said before anything is watched."""
    async with ReplicaSet(standalone=True) as server:
        client = connect(server.uri, application="fencing", socket_milliseconds=30_000)
        with pytest.raises(StateError, match="TAILER_STATE_URI") as refused:
            await StateDatabase(client, "tailer", Events()).prepare()
        client.close()

    assert "rs.initiate(" in refused.value.hint


async def test_a_transaction_that_a_dead_process_left_open_does_not_hold_a_takeover_up(
    database: StateDatabase,
) -> None:
    """Not even one that begins again after its session was ended, as a message on its way may do."""
    dead = await seize(database)
    stop = threading.Event()

    def write(transaction: Transaction) -> None:
        transaction["exports"].insert_one({"_id": uuid.uuid4().hex}, session=transaction.session)
        stop.wait(0.2)

    async def keep_writing() -> None:
        while not stop.is_set():
            await dead.fence.write(StateOperation.PARK, write)

    writing = asyncio.create_task(keep_writing())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        later = [await seize(database) for _ in range(5)]
    stop.set()

    with pytest.raises(LeaseLost):
        await writing
    assert [lease.fence.epoch for lease in later] == [2, 3, 4, 5, 6]


async def test_a_candidate_that_dies_between_lease_and_fence_is_followed_like_any_other(
    database: StateDatabase,
) -> None:
    """The lease says 2, the fence 1; the one that was active before writes until the next raises the fence."""
    first = await seize(database)
    await database["lease"].update_one({"_id": "writer"}, {"$set": {"epoch": 2, "holder": "dead", "beat": 0}})
    await MongoState(database, first.fence, destination="fake").begin_batch(BATCH)

    next_one = await seize(database)

    assert next_one.fence.epoch == 3
    with pytest.raises(LeaseLost):
        await MongoState(database, first.fence, destination="fake").begin_batch(BATCH)
    await MongoState(database, next_one.fence, destination="fake").begin_batch(BATCH)


async def test_a_takeover_ends_no_session_but_those_of_earlier_holders(
    client: Client, database: StateDatabase
) -> None:
    """LibreChat has transactions open on the same server; the very first start knows no holder at all."""
    async with await client.start_session() as other:
        other.start_transaction()
        await client[database.name]["other"].insert_one({"_id": 1}, session=other)
        for _ in range(3):
            await seize(database)
        await other.commit_transaction()

    assert await client[database.name]["other"].count_documents({}) == 1
