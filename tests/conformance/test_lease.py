"""Who may write: the lease that is taken, renewed and released, and the fence that it raises."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tailer.core.backfill import Counts, Job, JobReason
from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.turn.turns import Wait
from tailer.errors import LeaseLost
from tailer.flow.letter_reasons import LetterReason
from tailer.flow.records import Batch, Checkpoint, DeadLetter, Gap, ParkedTurn
from tailer.flow.stores import StateStore
from tests.conformance.worlds import LEASE, StateWorld
from tests.evidence import make_item, make_trace

KEY = DocumentKey("0" * 24)
ITEM = make_item(make_trace("m1"), bytes(10))
BATCH = Batch("b", (ITEM,), b"payload")
GAP = Gap(Stream.MESSAGES, 1, 2, "code_286")
WRITES: dict[str, Callable[[StateStore], Awaitable[object]]] = {
    "save_checkpoint": lambda state: state.save_checkpoint(
        Stream.MESSAGES, Checkpoint(StreamPosition("8200000007", 7))
    ),
    "begin_batch": lambda state: state.begin_batch(BATCH),
    "finish_batch": lambda state: state.finish_batch(BATCH, BATCH.items),
    "record_feedback": lambda state: state.record_feedback(ITEM.probe.trace_id, "x"),
    "record_deleted": lambda state: state.record_deleted([ITEM.probe.trace_id]),
    "park": lambda state: state.park([ParkedTurn(KEY, "m1", Wait.RESPONSE, 1, 2)]),
    "unpark": lambda state: state.unpark([KEY]),
    "add_gap": lambda state: state.add_gap(GAP),
    "add_job": lambda state: state.add_job(Job("job", JobReason.ASKED)),
    "size_job": lambda state: state.size_job("known", 7),
    "advance_job": lambda state: state.advance_job("known", KEY, Counts(1)),
    "finish_job": lambda state: state.finish_job("known", None),
    "add_dead_letters": lambda state: state.add_dead_letters(
        [DeadLetter("r", "m1", KEY, LetterReason.parse("x"), None)]
    ),
    "end_replay": lambda state: state.end_replay("r", "sent"),
    "drop_dead_letters": lambda state: state.drop_dead_letters(["r"]),
}


@pytest.mark.parametrize("what", WRITES)
async def test_no_write_of_an_earlier_epoch_lands(database: StateWorld, what: str) -> None:
    """Nor does it change what is there; reading is free, and the later epoch may write the same."""
    earlier = await database.lead()
    await earlier.add_job(Job("known", JobReason.ASKED))
    later = await database.lead()

    with pytest.raises(LeaseLost):
        await WRITES[what](earlier)

    for state in (earlier, later):
        assert await state.load_checkpoint(Stream.MESSAGES) is None
        assert await state.pending_batches() == []
        assert await state.find_exported([ITEM.record_id]) == frozenset()
        assert await state.load_parked(10) == []
        assert await state.unfilled_gaps() == {}
        assert await state.next_job(["default"]) == Job("known", JobReason.ASKED)
        assert await state.load_replays(10) == []
    await WRITES[what](later)


async def test_the_lease_tells_who_holds_it_and_for_how_long(database: StateWorld) -> None:
    """Nobody before the first start; then the holder, its epoch and its patience."""
    lease = database.lease()
    assert await lease.read() is None

    assert await lease.take(None) == 1

    found = await database.lease().read()
    assert found is not None
    assert (found.epoch, found.beat, found.holder) == (1, 0, lease.holder)
    assert (found.lease_seconds, found.released) == (LEASE.total_seconds(), False)
    await lease.renew(1)
    again = await lease.read()
    assert again is not None
    assert again.beat == found.beat + 1


async def test_of_many_that_see_the_same_lease_exactly_one_takes_it(database: StateWorld) -> None:
    """On an empty database, after a release, and after a silence."""
    for epoch in (1, 2, 3):
        candidates = [database.lease() for _ in range(8)]
        seen = await candidates[0].read()

        won = await asyncio.gather(*(candidate.take(seen) for candidate in candidates))

        assert sorted(won, key=str) == [epoch, *[None] * 7]
        if epoch == 1:
            await candidates[won.index(1)].release(1)


async def test_a_lease_that_was_renewed_since_it_was_seen_is_not_taken(database: StateWorld) -> None:
    """The beat decides: its holder lives."""
    holder, candidate = database.lease(), database.lease()
    assert await holder.take(None) == 1
    seen = await candidate.read()
    await holder.renew(1)

    assert await candidate.take(seen) is None
    assert await candidate.take(await candidate.read()) == 2
    with pytest.raises(LeaseLost, match="epoch 1"):
        await holder.renew(1)
    # Late, and of no effect.
    await holder.release(1)
    left = await candidate.read()
    assert left is not None
    assert (left.epoch, left.released) == (2, False)


async def test_a_lease_that_was_released_is_free_and_its_epoch_is_over_once_it_is_taken(
    database: StateWorld,
) -> None:
    """The next epoch begins at once; until then its last holder may still write."""
    first, second = database.lease(), database.lease()
    assert await first.take(None) == 1
    await first.release(1)
    seen = await second.read()
    assert seen is not None
    assert seen.released

    assert await second.take(seen) == 2
    with pytest.raises(LeaseLost):
        await first.renew(1)
