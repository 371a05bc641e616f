"""What the state database remembers of turns that were sent: enough for feedback, edits and deletions, over restarts."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from pymongo.errors import BulkWriteError

from tailer.core.identity import DocumentKey, TraceId, title_trace_id, turn_trace_id
from tailer.core.policy.policies import ContentChoice
from tailer.core.trace.followup import Edit, EditedText, SentTurn, mark_text
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.flow.records import Batch, BatchItem, DeadLetter
from tailer.mongo.connection import Client, connect
from tailer.mongo.state import MongoState
from tests.evidence import Events, make_item, make_trace
from tests.integration.leading import lead

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


def key_of(message_id: str) -> DocumentKey:
    return DocumentKey(make_trace(message_id).document_key)


def make_sent(message_id: str, *, plain: bool = False) -> SentTurn:
    """What is remembered of a turn: everything, or as little as there can be."""
    return SentTurn(
        trace_id=turn_trace_id(message_id),
        message_id=message_id,
        document_key=key_of(message_id),
        user_id=None if plain else "user-1",
        session_id="conversation-1",
        tags=() if plain else ("librechat", "temporary"),
        content=ContentChoice.NONE if plain else ContentChoice.MASKED,
        answer=mark_text("Noon"),
        question=None if plain else mark_text("What is the time?"),
        edits=0,
        feedback=None,
        start_milliseconds=1_760_000_000_000,
        expires_milliseconds=None if plain else 1_770_000_000_000,
    )


def turn_item(message_id: str, *, plain: bool = False) -> BatchItem:
    item = make_item(make_trace(message_id), b"chunk")
    return replace(item, sent=make_sent(message_id, plain=plain))


def title_item(message_id: str) -> BatchItem:
    """The trace of a turn's title: under the same row, with nothing to remember."""
    trace = replace(make_trace(message_id), id=title_trace_id(message_id))
    return make_item(trace, b"title")


def edit_item(message_id: str, text: str, number: int, which: EditedText = EditedText.ANSWER) -> BatchItem:
    trace = replace(make_trace(message_id), piece=f"edit:{number}")
    edit = Edit(which, mark_text("before"), mark_text(text), "", 1_760_000_100_000, number)
    return replace(make_item(trace, b"edit"), edit=edit)


def make_batch(*items: BatchItem) -> Batch:
    return Batch(uuid.uuid4().hex, items, b"payload")


async def send(state: MongoState, *items: BatchItem) -> None:
    """What a delivery does with a batch that was taken."""
    batch = make_batch(*items)
    await state.begin_batch(batch)
    await state.finish_batch(batch, items)


async def remembered(state: MongoState, message_id: str) -> SentTurn:
    (sent,) = (await state.load_sent([turn_trace_id(message_id)])).values()
    return sent


async def test_what_is_remembered_is_read_back_as_it_was(state: MongoState) -> None:
    """By trace and by row; a title's record is no turn."""
    await send(state, turn_item("m1"), title_item("m1"), turn_item("m2", plain=True))
    first, second = make_sent("m1"), make_sent("m2", plain=True)

    asked: Sequence[TraceId] = [first.trace_id, second.trace_id, title_trace_id("m1"), turn_trace_id("m3")]
    assert await state.load_sent(asked) == {first.trace_id: first, second.trace_id: second}
    assert await state.load_sent_by_document([key_of("m2"), key_of("m3")]) == [second]
    assert await state.load_sent([]) == {}


async def test_a_batch_item_survives_a_restart_with_all_that_belongs_to_it(state: MongoState) -> None:
    """Turn, title and edits; the text of an edit is not kept, its mark is."""
    items = (
        turn_item("m1"),
        title_item("m1"),
        turn_item("m2", plain=True),
        edit_item("m3", "One", 0),
        edit_item("m4", "What?", 7, EditedText.QUESTION),
    )
    batch = make_batch(*items)
    await state.begin_batch(batch)

    (read,) = await state.pending_batches()
    assert read == batch
    assert read.items[3].record_id == f"{turn_trace_id('m3')}:edit:0"


async def test_no_text_of_an_edit_is_stored(client: Client, name: str, state: MongoState) -> None:
    """Lengths and digests only."""
    item = edit_item("m1", "after", 0)
    assert item.edit is not None
    await state.begin_batch(make_batch(replace(item, edit=replace(item.edit, text="the text itself"))))

    (stored,) = await client[name]["batches"].find({}, {"payload": 0}).to_list(None)
    assert "the text itself" not in str(stored)


async def test_feedback_is_remembered_until_it_is_taken_back(state: MongoState) -> None:
    """For one turn, and nothing else of it changes; a record that is not there is not made."""
    await send(state, turn_item("m1"), turn_item("m2"))
    await state.record_feedback(turn_trace_id("m1"), "digest")
    await state.record_feedback(turn_trace_id("gone"), "digest")

    assert await remembered(state, "m1") == replace(make_sent("m1"), feedback="digest")
    assert await remembered(state, "m2") == make_sent("m2")
    assert await state.find_exported([turn_trace_id("gone")]) == frozenset()

    await state.record_feedback(turn_trace_id("m1"), None)
    assert await remembered(state, "m1") == make_sent("m1")


async def test_an_edit_brings_the_record_of_its_turn_up_to_date(state: MongoState) -> None:
    """The text that was edited and the number of edits; the other text stays."""
    await send(state, turn_item("m1"), turn_item("m2"))
    await send(state, edit_item("m1", "One", 0))
    await send(state, edit_item("m1", "What?", 1, EditedText.QUESTION))

    assert await remembered(state, "m1") == replace(
        make_sent("m1"), answer=mark_text("One"), question=mark_text("What?"), edits=2
    )
    assert await remembered(state, "m2") == make_sent("m2")
    records = [turn_trace_id("m1"), f"{turn_trace_id('m1')}:edit:0", f"{turn_trace_id('m1')}:edit:1"]
    assert await state.find_exported([*records, f"{turn_trace_id('m1')}:edit:2"]) == frozenset(records)


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
    with pytest.raises(BulkWriteError):
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
    with pytest.raises(BulkWriteError):
        await state.finish_batch(batch, batch.items)
    await refuse_pieces(client, name, refused=False)
    await send(state, edit_item("m1", "Two", 1))

    await state.finish_batch(batch, batch.items)

    assert await remembered(state, "m1") == replace(make_sent("m1"), answer=mark_text("Two"), edits=2)


async def test_an_edit_whose_turn_is_forgotten_makes_no_half_record(state: MongoState) -> None:
    """The turn's record had expired: only the edit's own is written."""
    await send(state, edit_item("m1", "One", 0))

    assert await state.load_sent([turn_trace_id("m1")]) == {}
    assert await state.find_exported([turn_trace_id("m1")]) == frozenset()


async def test_the_traces_of_rows_are_found_without_their_pieces(state: MongoState) -> None:
    """A turn's and its title's; an edit is no trace of its own."""
    await send(state, turn_item("m1"), title_item("m1"), turn_item("m2"))
    await send(state, edit_item("m1", "One", 0))

    found = await state.find_traces_by_document([key_of("m1"), key_of("m3")])
    assert sorted(found) == sorted([turn_trace_id("m1"), title_trace_id("m1")])


async def test_a_deleted_trace_is_not_followed_and_never_sent_again(state: MongoState) -> None:
    """Nothing is remembered of it but that it was sent; deleting it again changes nothing."""
    await send(state, turn_item("m1"), title_item("m1"), turn_item("m2"))
    for _ in range(2):
        await state.record_deleted([turn_trace_id("m1"), title_trace_id("m1"), turn_trace_id("gone")])

    assert list(await state.load_sent([turn_trace_id("m1"), turn_trace_id("m2")])) == [turn_trace_id("m2")]
    assert await state.load_sent_by_document([key_of("m1")]) == []
    assert await state.find_traces_by_document([key_of("m1")]) == []
    assert await state.find_exported(
        [turn_trace_id("m1"), title_trace_id("m1"), turn_trace_id("gone")]
    ) == frozenset([turn_trace_id("m1"), title_trace_id("m1")])


async def test_rows_are_pending_for_as_long_as_their_batch_is(state: MongoState) -> None:
    """Turns and edits, from the beginning of the batch to its end."""
    batch = make_batch(turn_item("m1"), edit_item("m2", "One", 0))
    await state.begin_batch(batch)

    asked = [key_of("m1"), key_of("m2"), key_of("m3")]
    assert await state.find_pending(asked) == frozenset(asked[:2])
    assert await state.find_pending([]) == frozenset()
    await state.finish_batch(batch, ())
    assert await state.find_pending(asked) == frozenset()


async def test_only_what_the_destination_refused_counts_as_refused(state: MongoState) -> None:
    """A turn that could not be built may still be sent some day."""
    letters = [
        DeadLetter("refused", "m1", key_of("m1"), "rejected: http_400", b"chunk"),
        DeadLetter("broken", "m2", key_of("m2"), "build_failed: ValueError", None),
    ]
    await state.add_dead_letters(letters)

    assert await state.find_refused(["refused", "broken", "unknown"]) == frozenset(["refused"])


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
