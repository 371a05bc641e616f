"""Batches on their way: what is written down, in which order, and what a crash, a refusal or a limit does to them."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.events import (
    BatchSettled,
    BatchSplit,
    CheckpointSaved,
    DeliveryRetried,
    TraceCut,
    TraceRejected,
    TracesDelivered,
)
from tailer.flow.records import Batch, StreamBatch
from tailer.flow.sending.batch import BatchLimits, make_batches
from tailer.langfuse.spans import LangfuseSpans
from tailer.mongo.connection import Client, connect
from tailer.mongo.state import MongoState
from tests.evidence import Events, make_trace, trace_ids
from tests.fakes.langfuse import FakeLangfuse, answer, bad_span, too_large
from tests.http.wire import Wire, spans_to
from tests.integration.leading import lead
from tests.integration.shipping import Shipping


@pytest.fixture
async def client(replica_set: ReplicaSet) -> AsyncIterator[Client]:
    connected = connect(replica_set.uri, application="state", socket_milliseconds=30_000)
    yield connected
    connected.close()


@pytest.fixture
async def state(client: Client) -> AsyncIterator[MongoState]:
    name = f"tailer_{uuid.uuid4().hex}"
    yield await lead(client, name, Events())
    await client.drop_database(name)


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        assert server.violations == []


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def sink(fake: FakeLangfuse, wire: Wire) -> AsyncIterator[LangfuseSpans]:
    async with spans_to(fake, wire) as spans:
        yield spans


@pytest.fixture
def shipping(state: MongoState, sink: LangfuseSpans) -> Shipping:
    return Shipping(state, sink)


def ids(count: int) -> list[str]:
    return [f"m{number:03}" for number in range(count)]


def make_batch(sink: LangfuseSpans, shipping: Shipping, *message_ids: str) -> Batch:
    """A batch as an earlier run made it."""
    outgoing = shipping.open_turns(message_ids)
    shipping.in_flight.release(item.record_id for piece in outgoing for item in piece.items)
    ((batch, _),) = make_batches(outgoing, BatchLimits(100, 10_000_000), sink, lambda: uuid.uuid4().hex)
    return batch


async def test_a_batch_is_sent_recorded_and_only_then_closed(
    shipping: Shipping, state: MongoState, fake: FakeLangfuse, wire: Wire
) -> None:
    """One request for all, every trace once, and nothing left in flight."""
    async with shipping.working():
        await shipping.delivery.hand_over(shipping.open_turns(ids(20)))
        await shipping.until_empty()

    assert len(wire.posts) == 1
    assert fake.trace_ids() == trace_ids(*ids(20))
    assert fake.duplicates() == []
    assert await state.find_exported(trace_ids(*ids(20))) == frozenset(trace_ids(*ids(20)))
    assert await state.pending_batches() == []
    assert shipping.in_flight.claimed == set()
    assert sum(event.traces for event in shipping.events.of(TracesDelivered)) == 20


async def test_no_checkpoint_passes_a_turn_that_is_not_acknowledged(
    shipping: Shipping, state: MongoState, fake: FakeLangfuse
) -> None:
    """The first batch is refused for a while, later ones wait behind it; the stored position stays before it."""
    fake.faults.add(answer(500, times=3))
    limited = Shipping(state, shipping.sink, traces_a_batch=2)
    stored = []

    async def save() -> None:
        await limited.checkpointing.save([Stream.MESSAGES])
        checkpoint = await state.load_checkpoint(Stream.MESSAGES)
        assert checkpoint is not None
        stored.append(checkpoint.position.cluster_seconds)
        acknowledged = {turn_trace_id(f"m{number:03}") for number in range(stored[-1])}
        assert acknowledged <= set(fake.trace_ids())

    # An earlier position is known: each turn m<n> is told of at second n + 1.
    limited.backlog.take_hints(Stream.MESSAGES, _empty_batch(0))
    outgoing = limited.open_turns(ids(8))
    await save()
    async with limited.working():
        await limited.delivery.hand_over(outgoing[:2])
        while len(limited.events.of(DeliveryRetried)) < 3:
            await save()
            await asyncio.sleep(0.02)
        handing = asyncio.create_task(limited.delivery.hand_over(outgoing[2:]))
        while len(limited.backlog):
            await save()
        await handing
    await save()

    assert stored[0] == 0
    assert stored[-1] == 8
    assert stored == sorted(stored)
    assert limited.events.of(CheckpointSaved)[-1].cluster_seconds == 8


async def test_a_batch_is_written_down_before_it_is_sent(
    shipping: Shipping, state: MongoState, fake: FakeLangfuse, wire: Wire
) -> None:
    """While the answer is out, the state holds the very bytes that were sent."""
    fake.faults.add(answer(503, times=2))
    async with shipping.working():
        await shipping.delivery.hand_over(shipping.open_turns(ids(3)))
        await fake.wait_until(lambda: sum(fake.requests.values()) >= 1)
        (pending,) = await state.pending_batches()
        assert await state.find_exported(trace_ids(*ids(3))) == frozenset()
        await shipping.until_empty()

    assert [item.probe.trace_id for item in pending.items] == trace_ids(*ids(3))
    assert wire.posts == [pending.payload] * 3


async def test_a_batch_that_is_too_large_is_halved_until_it_fits(
    state: MongoState, sink: LangfuseSpans, fake: FakeLangfuse, shipping: Shipping, wire: Wire
) -> None:
    """413 from a proxy: as few cuts as it takes, the same spans, each once."""
    outgoing = shipping.open_turns(ids(16))
    fits_four = len(sink.frame([piece.chunks[0] for piece in outgoing[:4]])) + 20
    fake.faults.add(too_large(fits_four))
    async with shipping.working():
        await shipping.delivery.hand_over(outgoing)
        await shipping.until_empty()

    assert fake.trace_ids() == trace_ids(*ids(16))
    assert fake.duplicates() == []
    assert [event.traces for event in shipping.events.of(BatchSplit)] == [16, 8, 8]
    assert {event.reason for event in shipping.events.of(BatchSplit)} == {"too_large"}
    assert len(wire.posts) == 7
    assert await state.find_exported(trace_ids(*ids(16))) == frozenset(trace_ids(*ids(16)))
    assert await state.pending_batches() == []


async def test_a_single_trace_that_is_too_large_is_cut_until_it_fits(
    client: Client, state: MongoState, fake: FakeLangfuse, shipping: Shipping
) -> None:
    """A gateway takes less than Langfuse: the texts say what is missing, everything else is there."""
    outgoing = shipping.open_turns(ids(4))
    text = "".join(uuid.uuid4().hex for _ in range(500))
    large = make_trace("m002", text=text)
    outgoing[2] = shipping.packing.pack(outgoing[2].key, EntryOutcome.COMPLETE, [large])
    fake.faults.add(too_large(5000))
    async with shipping.working():
        await shipping.delivery.hand_over(outgoing)
        await shipping.until_empty()

    assert sorted(fake.trace_ids()) == sorted(trace_ids(*ids(4)))
    (span,) = fake.trace(turn_trace_id("m002"))
    kept, mark = span.input.split("…")
    assert text.startswith(kept)
    assert mark == f" [cut: {len(text) - len(kept)} bytes left out]"
    assert (span.metadata["cut_to_fit"], span.output) == ("true", large.root.output)
    assert {event.message_id for event in shipping.events.of(TraceCut)} == {"m002"}
    assert await client[state._database.name]["dead_letters"].find().to_list(None) == []
    assert await state.pending_batches() == []
    assert await state.find_exported(trace_ids(*ids(4))) == frozenset(trace_ids(*ids(4)))


async def test_a_single_trace_that_is_too_large_without_its_texts_becomes_a_dead_letter(
    client: Client, state: MongoState, fake: FakeLangfuse, shipping: Shipping
) -> None:
    """With the chunk, so that it can be looked at; the others of its batch arrive."""
    outgoing = shipping.open_turns(ids(4))
    large = make_trace("m002", text="".join(uuid.uuid4().hex for _ in range(10)))
    chunk = shipping.sink.encode(large)
    outgoing[2] = shipping.packing.pack(outgoing[2].key, EntryOutcome.COMPLETE, [large])
    fake.faults.add(too_large(len(shipping.sink.frame([chunk])) - 1))
    async with shipping.working():
        await shipping.delivery.hand_over(outgoing)
        await shipping.until_empty()

    assert fake.trace_ids() == trace_ids("m000", "m001", "m003")
    (letter,) = await client[state._database.name]["dead_letters"].find().to_list(None)
    assert (letter["_id"], letter["reason"]) == (turn_trace_id("m002"), "rejected: too_large")
    assert (letter["chunk"], letter["document_key"]) == (chunk, large.document_key)
    assert shipping.in_flight.claimed == set()
    assert await state.pending_batches() == []
    # A dead letter is not an acknowledged trace.
    assert await state.find_exported(trace_ids(*ids(4))) == frozenset(trace_ids("m000", "m001", "m003"))


@pytest.mark.parametrize("bad", [0, 9, 15])
async def test_one_bad_trace_is_found_by_halving_and_buried_alone(
    client: Client, state: MongoState, fake: FakeLangfuse, shipping: Shipping, wire: Wire, bad: int
) -> None:
    """400 says nothing about which: of sixteen it is found in four cuts, and the fifteen others arrive once."""
    fake.faults.add(bad_span(f"turn m{bad:03}"))
    async with shipping.working():
        await shipping.delivery.hand_over(shipping.open_turns(ids(16)))
        await shipping.until_empty()

    good = [message_id for message_id in ids(16) if message_id != f"m{bad:03}"]
    assert fake.trace_ids() == trace_ids(*good)
    assert fake.duplicates() == []
    assert [event.traces for event in shipping.events.of(BatchSplit)] == [16, 8, 4, 2]
    assert len(wire.posts) == 1 + 4 * 2
    (letter,) = await client[state._database.name]["dead_letters"].find().to_list(None)
    assert (letter["message_id"], letter["reason"], letter["tries"]) == (
        f"m{bad:03}",
        "rejected: http_400",
        1,
    )
    assert [event.message_id for event in shipping.events.of(TraceRejected)] == [f"m{bad:03}"]
    assert await state.find_exported(trace_ids(*ids(16))) == frozenset(trace_ids(*good))
    assert await state.pending_batches() == []


async def test_a_batch_of_an_earlier_run_that_was_not_taken_is_sent_with_the_same_bytes(
    shipping: Shipping, state: MongoState, sink: LangfuseSpans, fake: FakeLangfuse, wire: Wire
) -> None:
    """Killed after writing the batch down: it is looked for, not found, and sent once."""
    batch = make_batch(sink, shipping, "m1", "m2", "m3")
    await state.begin_batch(batch)

    restarted = Shipping(state, sink)
    unfinished = await restarted.delivery.claim_unfinished()
    assert restarted.in_flight.claimed == set(trace_ids("m1", "m2", "m3"))
    await restarted.delivery.recover(unfinished)

    assert wire.posts == [batch.payload]
    assert fake.trace_ids() == trace_ids("m1", "m2", "m3")
    assert [event.verdict for event in restarted.events.of(BatchSettled)] == ["sent_again"]
    assert await state.find_exported(trace_ids("m1", "m2", "m3")) == frozenset(trace_ids("m1", "m2", "m3"))
    assert (restarted.in_flight.claimed, await state.pending_batches()) == (frozenset(), [])


async def test_a_batch_of_an_earlier_run_that_was_taken_is_not_sent_again(
    shipping: Shipping, state: MongoState, sink: LangfuseSpans, fake: FakeLangfuse, wire: Wire
) -> None:
    """Killed before the answer was recorded. It becomes readable only after a while, and is found then."""
    fake.state.visible_after_seconds = 0.4
    batch = make_batch(sink, shipping, "m1", "m2", "m3")
    await state.begin_batch(batch)
    await sink.deliver(batch.payload)

    restarted = Shipping(state, sink)
    await restarted.delivery.recover(await restarted.delivery.claim_unfinished())

    assert wire.posts == [batch.payload]
    assert fake.duplicates() == []
    assert [event.verdict for event in restarted.events.of(BatchSettled)] == ["found"]
    assert await state.find_exported(trace_ids("m1", "m2", "m3")) == frozenset(trace_ids("m1", "m2", "m3"))
    assert (restarted.in_flight.claimed, await state.pending_batches()) == (frozenset(), [])


async def test_a_batch_whose_records_were_half_written_was_acknowledged_whole(
    shipping: Shipping, state: MongoState, sink: LangfuseSpans, wire: Wire
) -> None:
    """Killed between the first record and the last: the rest is recorded, and nobody is asked."""
    batch = make_batch(sink, shipping, "m1", "m2", "m3")
    await state.finish_batch(batch, batch.items[1:2])
    await state.begin_batch(batch)

    restarted = Shipping(state, sink)
    await restarted.delivery.recover(await restarted.delivery.claim_unfinished())

    assert wire.requests == []
    assert await state.find_exported(trace_ids("m1", "m2", "m3")) == frozenset(trace_ids("m1", "m2", "m3"))
    assert (restarted.in_flight.claimed, await state.pending_batches()) == (frozenset(), [])


async def test_halves_of_an_earlier_run_are_settled_with_their_whole(
    client: Client, shipping: Shipping, state: MongoState, sink: LangfuseSpans, fake: FakeLangfuse
) -> None:
    """Killed while halving, with the whole and both halves written down: every good trace still arrives once."""
    fake.faults.add(bad_span("turn m2"))
    outgoing = shipping.open_turns(["m1", "m2", "m3", "m4"])
    limits = BatchLimits(100, 10_000_000)
    for group in (outgoing, outgoing[:2], outgoing[2:]):
        ((batch, _),) = make_batches(group, limits, sink, lambda: uuid.uuid4().hex)
        await state.begin_batch(batch)

    restarted = Shipping(state, sink)
    await restarted.delivery.recover(await restarted.delivery.claim_unfinished())

    assert sorted(fake.trace_ids()) == sorted(trace_ids("m1", "m3", "m4"))
    assert fake.duplicates() == []
    letters = await client[state._database.name]["dead_letters"].find().to_list(None)
    assert [letter["message_id"] for letter in letters] == ["m2"]
    # The old half that holds it was settled with its whole: what was buried there was not sent.
    good = frozenset(trace_ids("m1", "m3", "m4"))
    assert await state.find_exported(trace_ids("m1", "m2", "m3", "m4")) == good
    assert (restarted.in_flight.claimed, await state.pending_batches()) == (frozenset(), [])


async def test_the_queue_is_bounded(shipping: Shipping, state: MongoState) -> None:
    """While nothing is sent, a lane waits as soon as one batch is waiting."""
    limited = Shipping(state, shipping.sink, traces_a_batch=1)
    handing = asyncio.create_task(limited.delivery.hand_over(limited.open_turns(ids(3))))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.shield(handing)
    assert (limited.delivery.queue_length, limited.delivery.queue_capacity) == (1, 1)

    async with limited.working():
        await handing
        await limited.until_empty()


def _empty_batch(second: int) -> StreamBatch:
    return StreamBatch([], StreamPosition(f"82{second:08X}", second), second)
