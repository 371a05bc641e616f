"""What only a real server shows of the records of turns that were sent: transactions, indexes, and no text."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tailer.core.trace.followup import mark_text
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import StateError
from tailer.mongo.connection import Client, connect
from tailer.mongo.state import MongoState
from tests.evidence import Events
from tests.integration.leading import lead
from tests.sent import edit_item, key_of, make_batch, make_sent, remembered, send, turn_item

LIFETIME = timedelta(days=90)


@pytest.fixture
async def client(replica_set: ReplicaSet) -> AsyncIterator[Client]:
    connected = connect(replica_set.uri, application="state", socket_milliseconds=30_000)
    yield connected
    connected.close()


@pytest.fixture
async def name(client: Client) -> AsyncIterator[str]:
    chosen = f"tailer_{uuid.uuid4().hex}"
    yield chosen
    await client.drop_database(chosen)


@pytest.fixture
async def state(client: Client, name: str) -> MongoState:
    return await lead(client, name, Events(), lifetime=LIFETIME)


async def test_no_text_of_an_edit_is_stored(client: Client, name: str, state: MongoState) -> None:
    """Lengths and digests only."""
    item = edit_item("m1", "after", 0)
    assert item.edit is not None
    await state.begin_batch(make_batch(replace(item, edit=replace(item.edit, text="the text itself"))))

    (stored,) = await client[name]["slots"].find({"batch": {"$exists": True}}).to_list(None)
    assert stored["batch"]["items"]
    assert "the text itself" not in str(stored)


async def refuse_pieces(client: Client, name: str, *, refused: bool) -> None:
    """Let the server refuse records of edits, and of nothing else."""
    validator = {"piece_of": {"$exists": False}} if refused else {}
    await client[name].command({"collMod": "exports", "validator": validator})


async def test_a_batch_is_finished_as_a_whole_or_not_at_all(
    client: Client, name: str, state: MongoState
) -> None:
    """Where the edit's record is refused its turn's is not amended either; finishing it again is harmless."""
    await send(state, turn_item("m1"))
    item = edit_item("m1", "One", 0)
    batch = make_batch(item)
    await state.begin_batch(batch)
    await refuse_pieces(client, name, refused=True)
    with pytest.raises(StateError):
        await state.finish_batch(batch, batch.items)
    await refuse_pieces(client, name, refused=False)

    assert await remembered(state, "m1") == make_sent("m1")
    assert await state.find_exported([item.record_id]) == frozenset()

    expected = replace(make_sent("m1"), answer=mark_text("One"), edits=1)
    (left,) = await state.pending_batches()
    for _ in range(2):
        await state.finish_batch(left, left.items)
        assert await remembered(state, "m1") == expected
        assert await state.find_exported([item.record_id]) == frozenset([item.record_id])
    assert await state.pending_batches() == []


async def test_a_late_batch_does_not_take_a_later_edit_back(
    client: Client, name: str, state: MongoState
) -> None:
    """After such a crash the next edit may be through before the old batch is settled."""
    await send(state, turn_item("m1"))
    batch = make_batch(edit_item("m1", "One", 0))
    await state.begin_batch(batch)
    await refuse_pieces(client, name, refused=True)
    with pytest.raises(StateError):
        await state.finish_batch(batch, batch.items)
    await refuse_pieces(client, name, refused=False)
    await send(state, edit_item("m1", "Two", 1))

    await state.finish_batch(batch, batch.items)

    assert await remembered(state, "m1") == replace(make_sent("m1"), answer=mark_text("Two"), edits=2)


async def test_records_have_an_index_by_row_and_one_by_age(
    client: Client, name: str, state: MongoState
) -> None:
    """Also where a first start ended between making the two; looking rows up uses it."""

    async def indexes() -> set[str]:
        return set(await client[name]["exports"].index_information())

    assert await indexes() == {"_id_", "sent_at_1", "document_key_1"}
    await client[name]["exports"].drop_index("document_key_1")
    await state.prepare(lifetime=LIFETIME)
    assert await indexes() == {"_id_", "sent_at_1", "document_key_1"}

    await send(state, turn_item("m1"))
    await client[name].command({"profile": 2})
    await state.load_sent_by_document([key_of("m1")])
    await state.find_traces_by_document([key_of("m1")])
    await client[name].command({"profile": 0})
    query = {"ns": f"{name}.exports", "op": "query"}
    plans = [entry["planSummary"] async for entry in client[name]["system.profile"].find(query)]
    assert plans == ["IXSCAN { document_key: 1 }"] * 2
