"""Batches on their way: written down, sent, recorded, and only then closed; and what a crash between any two leaves."""

import asyncio
from dataclasses import replace

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.stream.hints import Interest, Stream
from tailer.core.stream.positions import StreamPosition
from tailer.errors import LeaseLost
from tailer.events import BatchSplit, TraceRejected, TracesDelivered, TurnDone
from tailer.flow.records import Batch, StreamBatch
from tests.evidence import trace_ids
from tests.memory import MemoryLease, MemoryState
from tests.memory.clock import monotonic
from tests.unit.flow.scene import LOOKUP_SECONDS, Scene, make_hint, until, working


def ids(count: int) -> list[str]:
    return [f"m{number:03}" for number in range(count)]


async def settle(scene: Scene, *, seconds: float = 3600) -> None:
    """Return once nothing is open."""
    async with asyncio.timeout(seconds):
        await scene.backlog.wait_until_empty(except_for=Interest.QUESTION)


async def test_a_batch_is_written_down_before_it_is_sent_and_recorded_before_its_turns_are_closed(
    scene: Scene,
) -> None:
    """With the very bytes."""
    delivery = scene.make_delivery()
    scene.destination.latency_seconds = 10
    outgoing = scene.open_turns(*ids(3))
    async with working(delivery.work()):
        await delivery.hand_over(outgoing)
        await until(lambda: bool(scene.destination.payloads) or bool(scene.database.batches))
        (written,) = scene.database.batches.values()
        assert scene.destination.trace_ids() == []
        assert scene.database.exports == {}
        assert len(scene.backlog) == 3
        await settle(scene)

    assert scene.destination.payloads == [written.payload]
    assert list(scene.database.exports) == trace_ids(*ids(3))
    assert scene.database.writes == ["begin_batch", "finish_batch"]
    assert scene.database.batches == {}
    assert scene.in_flight.claimed == frozenset()
    assert [event.outcome for event in scene.events.of(TurnDone)] == ["complete"] * 3
    assert sum(event.traces for event in scene.events.of(TracesDelivered)) == 3


async def test_no_position_passes_a_turn_that_is_not_acknowledged(scene: Scene) -> None:
    """An hour without Langfuse: what is stored stays before the first turn of it, and everything arrives once."""
    delivery = scene.make_delivery(traces=2)
    outgoing = scene.open_turns(*ids(8))
    scene.destination.is_away = True
    async with working(delivery.work()):
        handing = asyncio.create_task(delivery.hand_over(outgoing))
        for _ in range(60):
            await asyncio.sleep(60)
            await scene.checkpointing.save([Stream.MESSAGES])
            assert scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds <= 1
        scene.destination.is_away = False
        await handing
        await settle(scene)
    await scene.checkpointing.save([Stream.MESSAGES])

    assert scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds == 8
    assert scene.destination.trace_ids() == trace_ids(*ids(8))
    assert scene.destination.duplicates() == []


async def test_a_batch_carries_the_position_as_it_is_once_its_turns_are_closed(scene: Scene) -> None:
    """And no further: the turns of the next batch are still open. Nothing is stored by itself."""
    delivery = scene.make_delivery(traces=2)
    outgoing = scene.open_turns(*ids(5))
    async with working(delivery.work()):
        await delivery.hand_over(outgoing[:2])
        await until(lambda: bool(scene.database.exports))
        assert scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds == 2
        await delivery.hand_over(outgoing[2:4])
        await until(lambda: len(scene.database.exports) == 4)
        assert scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds == 4

    assert scene.database.writes == ["begin_batch", "finish_batch"] * 2


async def test_a_turn_whose_row_changed_while_it_was_sent_holds_the_position_that_its_batch_carries(
    scene: Scene,
) -> None:
    """Its entry stays open when the batch is done: what changed it is still to be worked on."""
    delivery = scene.make_delivery()
    scene.destination.latency_seconds = 10
    outgoing = scene.open_turns(*ids(3))
    async with working(delivery.work()):
        await delivery.hand_over(outgoing)
        await asyncio.sleep(5)
        changed = make_hint(ids(3)[1], outgoing[1].key.document_key, 9)
        position = StreamPosition("8200000009", 9)
        scene.backlog.take_hints(Stream.MESSAGES, StreamBatch([(changed, position)], position, 9))
        await until(lambda: bool(scene.database.exports))

    assert scene.backlog.is_open(Interest.RESPONSE, outgoing[1].key.document_key)
    assert scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds == 1


async def test_a_turn_that_was_rated_holds_the_position_until_its_score_is_sent(scene: Scene) -> None:
    """Its entry goes on to the follow-ups."""
    delivery = scene.make_delivery()
    first, *others = scene.open_turns(*ids(3))
    async with working(delivery.work()):
        await delivery.hand_over([replace(first, has_feedback=True), *others])
        await until(lambda: len(scene.backlog) == 1)

    assert list(scene.database.exports) == trace_ids(*ids(3))
    assert scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds == 1


@pytest.mark.parametrize("killed_after", range(1, 14))
async def test_a_batch_that_is_split_passes_its_turns_only_when_the_last_of_them_is_done(
    scene: Scene, killed_after: int
) -> None:
    """Killed after any of its writes: what is stored passes no turn that is neither recorded nor buried nor pending."""
    delivery = scene.make_delivery()
    # Slower than it is looked.
    scene.database.latency_seconds = 10
    scene.destination.rejects = lambda message_id: message_id == "m002"
    async with working(delivery.work()):
        await delivery.hand_over(scene.open_turns(*ids(4)))
        await until(lambda: len(scene.database.writes) >= killed_after or not len(scene.backlog))

    stored = scene.database.checkpoints.get(Stream.MESSAGES)
    passed = 0 if stored is None else stored.position.cluster_seconds
    kept = scene.database.exports.keys() | scene.database.letters.keys()
    assert passed in (0, 1, 4)
    assert passed < 4 or kept == frozenset(trace_ids(*ids(4)))
    if not len(scene.backlog):
        assert passed == 4


async def test_with_nobody_sending_only_one_batch_waits_and_the_rest_is_held_up(scene: Scene) -> None:
    """Back-pressure: what makes them waits with them."""
    delivery = scene.make_delivery(traces=1)
    handing = asyncio.create_task(delivery.hand_over(scene.open_turns(*ids(3))))
    await asyncio.sleep(3600)

    assert not handing.done()
    assert (delivery.queue_length, delivery.queue_capacity) == (1, 1)
    async with working(delivery.work()):
        await handing
        await settle(scene)


@pytest.mark.parametrize("senders", [1, 4])
async def test_several_senders_share_the_work_and_send_nothing_twice(scene: Scene, senders: int) -> None:
    """Each batch takes ten seconds."""
    delivery = scene.make_delivery(traces=1)
    scene.destination.latency_seconds = 10
    began = asyncio.get_running_loop().time()
    async with working(*(delivery.work() for _ in range(senders))):
        await delivery.hand_over(scene.open_turns(*ids(8)))
        await settle(scene)

    assert asyncio.get_running_loop().time() - began == pytest.approx(80 / senders)
    assert sorted(scene.destination.trace_ids()) == sorted(trace_ids(*ids(8)))
    assert scene.destination.duplicates() == []


@pytest.mark.parametrize("bad", [0, 9, 15])
async def test_one_turn_that_is_refused_is_found_by_halving_and_buried_alone(scene: Scene, bad: int) -> None:
    """With its chunk; the others of its batch arrive, each once."""
    delivery = scene.make_delivery()
    scene.destination.rejects = lambda message_id: message_id == f"m{bad:03}"
    async with working(delivery.work()):
        await delivery.hand_over(scene.open_turns(*ids(16)))
        await settle(scene)

    good = [message_id for message_id in ids(16) if message_id != f"m{bad:03}"]
    assert scene.destination.trace_ids() == trace_ids(*good)
    assert scene.destination.duplicates() == []
    assert [event.traces for event in scene.events.of(BatchSplit)] == [16, 8, 4, 2]
    (stored,) = scene.database.letters.values()
    assert (stored.letter.record_id, stored.tries) == (turn_trace_id(f"m{bad:03}"), 1)
    assert stored.letter.chunk is not None
    assert [event.message_id for event in scene.events.of(TraceRejected)] == [f"m{bad:03}"]
    assert sorted(scene.database.exports) == sorted(trace_ids(*good))
    assert scene.database.batches == {}


async def test_a_batch_that_is_too_large_is_halved_until_it_fits(scene: Scene) -> None:
    delivery = scene.make_delivery()
    outgoing = scene.open_turns(*ids(16))
    scene.destination.largest_bytes = sum(len(piece.chunks[0]) for piece in outgoing[:4])
    async with working(delivery.work()):
        await delivery.hand_over(outgoing)
        await settle(scene)

    assert [event.traces for event in scene.events.of(BatchSplit)] == [16, 8, 8]
    assert scene.destination.trace_ids() == trace_ids(*ids(16))
    assert scene.destination.duplicates() == []


async def test_a_batch_that_is_too_large_to_be_stored_is_divided_before_it_is_sent(scene: Scene) -> None:
    """However large the settings let it become. Nothing is sent that is not stored; a lone one is cut."""
    outgoing = scene.open_turns(*ids(8))
    delivery = scene.make_delivery()
    scene.database.largest_batch_bytes = 3 * len(outgoing[0].chunks[0])
    async with working(delivery.work()):
        await delivery.hand_over(outgoing)
        await settle(scene)

    assert scene.destination.trace_ids() == trace_ids(*ids(8))
    assert scene.destination.duplicates() == []
    assert all(len(payload) <= scene.database.largest_batch_bytes for payload in scene.destination.payloads)
    assert scene.database.batches == {}
    assert scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds == 8


@pytest.mark.parametrize("senders", [2, 4])
async def test_with_several_senders_the_last_batch_carries_the_last_position(
    scene: Scene, senders: int
) -> None:
    """All of them are acknowledged in the same moment, and each takes a second to be recorded; no position goes
    back."""
    delivery = scene.make_delivery(traces=1)
    scene.destination.latency_seconds = 10
    scene.database.latency_seconds = 1
    seen = []
    async with working(*(delivery.work() for _ in range(senders))):
        await delivery.hand_over(scene.open_turns(*ids(8)))
        while len(scene.backlog):
            await asyncio.sleep(0.25)
            stored = scene.database.checkpoints.get(Stream.MESSAGES)
            seen.append(0 if stored is None else stored.position.cluster_seconds)

    assert seen == sorted(seen)
    assert scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds == 8
    assert "save_checkpoint" not in scene.database.writes


async def test_batches_hold_no_more_than_their_limits(scene: Scene) -> None:
    """Traces, and bytes; one that is larger by itself goes alone."""
    outgoing = scene.open_turns(*ids(5))
    size = len(outgoing[0].chunks[0])
    delivery = scene.make_delivery(size_bytes=2 * size)
    async with working(delivery.work()):
        await delivery.hand_over(outgoing)
        await settle(scene)

    assert [payload.count(b"\n") for payload in scene.destination.payloads] == [2, 2, 1]


async def kill_while_sending(scene: Scene, *message_ids: str) -> Batch:
    """Begin to send, and end everything while the request is on its way; gives the batch that was written down."""
    delivery = scene.make_delivery()
    scene.destination.latency_seconds = 60
    async with working(delivery.work()):
        await delivery.hand_over(scene.open_turns(*message_ids))
        await until(lambda: bool(scene.database.batches))
    scene.destination.latency_seconds = 0
    (batch,) = scene.database.batches.values()
    return batch


@pytest.mark.parametrize("taken", [True, False])
async def test_a_batch_of_a_run_that_was_killed_is_settled_by_the_next_one(
    scene: Scene, *, taken: bool
) -> None:
    """Written down and maybe sent: looked for, and sent again with the same bytes only where it is not there."""
    batch = await kill_while_sending(scene, "m1", "m2")
    if taken:
        await scene.sink.deliver(batch.payload)

    later = scene.restart()
    delivery = later.make_delivery()
    unfinished = await delivery.claim_unfinished()
    assert later.in_flight.claimed == set(trace_ids("m1", "m2"))
    await delivery.recover(unfinished)

    assert scene.destination.payloads == [batch.payload]
    assert scene.destination.trace_ids() == trace_ids("m1", "m2")
    assert scene.destination.duplicates() == []
    assert list(scene.database.exports) == trace_ids("m1", "m2")
    assert (later.in_flight.claimed, scene.database.batches) == (frozenset(), {})


async def test_what_many_batches_wait_for_is_waited_for_side_by_side(scene: Scene) -> None:
    """A run that was killed while Langfuse was away leaves as many as it had senders, and so does each one after it."""
    delivery = scene.make_delivery(traces=1)
    scene.destination.latency_seconds = 3600
    async with working(*(delivery.work() for _ in range(8))):
        await delivery.hand_over(scene.open_turns(*ids(8)))
        await until(lambda: len(scene.database.batches) == 8)
    scene.destination.latency_seconds = 0

    later = scene.restart()
    delivery = later.make_delivery()
    unfinished = iter(await delivery.claim_unfinished())
    began = monotonic()
    await asyncio.gather(*(delivery.recover(unfinished) for _ in range(4)))

    assert monotonic() - began < 3 * LOOKUP_SECONDS
    assert sorted(scene.destination.trace_ids()) == sorted(trace_ids(*ids(8)))
    assert scene.destination.duplicates() == []
    assert scene.database.batches == {}


async def test_a_batch_whose_records_are_there_was_acknowledged_and_nobody_is_asked(scene: Scene) -> None:
    """Killed between two writes: the rest is recorded."""
    batch = await kill_while_sending(scene, "m1", "m2", "m3")
    await scene.state.finish_batch(batch, batch.items[1:2])
    await scene.state.begin_batch(batch)

    later = scene.restart()
    delivery = later.make_delivery()
    await delivery.recover(await delivery.claim_unfinished())

    assert scene.destination.payloads == []
    assert sorted(scene.database.exports) == sorted(trace_ids("m1", "m2", "m3"))
    assert scene.database.batches == {}


async def test_an_instance_that_lost_the_lease_records_nothing_and_ends(scene: Scene) -> None:
    """Its batch stands in the state, for the next one to settle."""
    lease = MemoryLease(scene.database)
    await lease.take(None)
    scene.state = MemoryState(scene.database)
    delivery = scene.make_delivery()
    scene.destination.latency_seconds = 10
    sending = asyncio.create_task(delivery.work())
    await delivery.hand_over(scene.open_turns("m1"))
    await until(lambda: bool(scene.database.batches))
    await MemoryLease(scene.database).take(await lease.read())
    with pytest.raises(LeaseLost):
        await sending

    assert scene.destination.trace_ids() == trace_ids("m1")
    assert scene.database.exports == {}
    assert len(scene.backlog) == 1
    (left,) = scene.database.batches.values()
    assert isinstance(left, Batch)
