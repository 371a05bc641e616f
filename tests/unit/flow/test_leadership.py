"""The lease over hours: who follows whom and when, who may send, and what a process finds that was stopped."""

import asyncio
from datetime import timedelta

import pytest

from tailer.core.lease import LeaseRhythm
from tailer.errors import LeaseLost
from tailer.events import LeaseDoubted, LeaseTaken, StandingBy
from tailer.flow.leadership import Candidacy, has_active_instance
from tests.evidence import Events
from tests.memory import MemoryDatabase, MemoryLease, VirtualLoop
from tests.memory.clock import monotonic
from tests.unit.flow.scene import working

RHYTHM = LeaseRhythm(8)


@pytest.fixture
async def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
async def events() -> Events:
    return Events()


def make_candidacy(database: MemoryDatabase, events: Events) -> Candidacy:
    lease = MemoryLease(database, lease_seconds=RHYTHM.lease_seconds)
    return Candidacy(lease, RHYTHM, events, clock=monotonic, on_look=lambda: None)


def stop_the_process(seconds: float) -> None:
    """Nothing of this process runs for a while, and the clock goes on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.pass_time(seconds)


async def test_a_holder_that_lives_is_not_followed_for_hours(
    database: MemoryDatabase, events: Events
) -> None:
    """Its standby says once that it stands by."""
    leadership = await make_candidacy(database, events).win()
    async with leadership.kept(), working(make_candidacy(database, events).win()) as (standby,):
        await asyncio.sleep(3 * 3600)
        assert not standby.done()
        assert leadership.holds()

    assert len(events.of(StandingBy)) == 1
    assert len(events.of(LeaseTaken)) == 1


async def test_a_silent_holder_is_followed_after_the_time_of_its_lease_and_not_before(
    database: MemoryDatabase, events: Events
) -> None:
    """Killed: nothing was released. By then it does not act any more."""
    leadership = await make_candidacy(database, events).win()
    began = monotonic()

    follower = await make_candidacy(database, events).win()

    assert RHYTHM.lease_seconds <= monotonic() - began <= RHYTHM.lease_seconds + 2 * RHYTHM.poll_seconds
    assert not leadership.holds()
    assert (leadership.epoch, follower.epoch) == (1, 2)
    assert [event.after_release for event in events.of(LeaseTaken)] == [True, False]


async def test_a_lease_that_is_released_is_taken_at_the_next_look(
    database: MemoryDatabase, events: Events
) -> None:
    leadership = await make_candidacy(database, events).win()
    async with working(make_candidacy(database, events).win()) as (standby,):
        async with leadership.kept():
            await asyncio.sleep(60)
        released = monotonic()
        await leadership.release()
        await asyncio.wait_for(standby, 60)

    assert monotonic() - released <= RHYTHM.poll_seconds


async def test_of_five_standbys_exactly_one_follows(database: MemoryDatabase, events: Events) -> None:
    """The others go on standing by."""
    await make_candidacy(database, events).win()
    standbys = [make_candidacy(database, events) for _ in range(5)]

    async def follow(candidacy: Candidacy) -> None:
        leadership = await candidacy.win()
        async with leadership.kept():
            await asyncio.Event().wait()

    async with working(*(follow(candidacy) for candidacy in standbys)):
        await asyncio.sleep(3600)
        assert [candidacy.holds() for candidacy in standbys].count(True) == 1

    assert len(events.of(LeaseTaken)) == 2


async def test_sending_waits_while_the_lease_is_in_doubt_and_goes_on_after_a_renewal(
    database: MemoryDatabase, events: Events
) -> None:
    """The state database does not answer for a while: shorter than the lease lasts, longer than it is beyond doubt."""
    candidacy = make_candidacy(database, events)
    leadership = await candidacy.win()
    async with leadership.kept():
        await asyncio.sleep(RHYTHM.renew_seconds / 2)
        database.latency_seconds = RHYTHM.doubt_seconds
        await asyncio.sleep(RHYTHM.doubt_seconds)
        assert not candidacy.holds()
        database.latency_seconds = 0
        async with asyncio.timeout(RHYTHM.lease_seconds):
            await asyncio.gather(candidacy.wait(), candidacy.wait())
        assert candidacy.holds()

    assert events.of(LeaseDoubted)[0].silent_seconds >= RHYTHM.doubt_seconds


async def test_a_process_that_was_stopped_may_send_nothing_before_it_has_renewed(
    database: MemoryDatabase, events: Events
) -> None:
    """Its clock ran on; where nobody followed, the next renewal gives it the right back."""
    candidacy = make_candidacy(database, events)
    leadership = await candidacy.win()
    async with leadership.kept():
        await asyncio.sleep(1)
        stop_the_process(600)
        assert not candidacy.holds()
        async with asyncio.timeout(10):
            await candidacy.wait()
        assert candidacy.holds()

    assert events.of(LeaseDoubted)[0].silent_seconds >= 600


async def test_a_process_that_was_followed_while_it_was_stopped_never_sends_again(
    database: MemoryDatabase, events: Events
) -> None:
    """Nor does a process without a term; both are told, and so is whoever watches."""
    candidacy = make_candidacy(database, events)
    with pytest.raises(LeaseLost):
        await candidacy.wait()
    leadership = await candidacy.win()
    async with leadership.kept():
        lease = MemoryLease(database)
        assert await lease.take(await lease.read()) == 2
        stop_the_process(600)
        for waiting in (candidacy.wait, leadership.watch, candidacy.wait):
            with pytest.raises(LeaseLost):
                async with asyncio.timeout(60):
                    await waiting()


async def test_whether_an_instance_is_active_is_seen_by_its_beat(
    database: MemoryDatabase, events: Events
) -> None:
    """Not before the first start, not after a release, not of one that was killed."""

    async def look() -> bool:
        return await has_active_instance(MemoryLease(database), timedelta(seconds=RHYTHM.lease_seconds))

    assert not await look()
    leadership = await make_candidacy(database, events).win()
    async with leadership.kept():
        assert await look()
    assert not await look()
    await leadership.release()
    assert not await look()
