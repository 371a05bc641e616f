"""The lease over time, on a real server: who wins it, who may send, and how it ends."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from tailer.core.lease import LeaseRhythm
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import LeaseLost
from tailer.events import LeaseDoubted, LeaseTaken, StandingBy
from tailer.flow.leadership import Candidacy, Leadership
from tailer.mongo.connection import connect
from tailer.mongo.state import MongoLease, StateDatabase
from tests.evidence import Events
from tests.integration.leading import seize

RHYTHM = LeaseRhythm(1)


class Clock:
    """The real clock, which a test may let jump: what a process sees that was stopped."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
async def database(replica_set: ReplicaSet) -> AsyncIterator[StateDatabase]:
    client = connect(replica_set.uri, application="leadership", socket_milliseconds=30_000)
    state = StateDatabase(client, f"tailer_{uuid.uuid4().hex}", Events())
    await state.prepare()
    yield state
    await client.drop_database(state.name)
    client.close()


@pytest.fixture
def events() -> Events:
    return Events()


def make_candidacy(
    database: StateDatabase, events: Events, clock: Callable[[], float] = time.monotonic
) -> Candidacy:
    lease = MongoLease(database, lease_time=timedelta(seconds=RHYTHM.lease_seconds))
    return Candidacy(lease, RHYTHM, events, clock=clock, on_look=lambda: None)


async def test_sending_waits_while_the_lease_is_in_doubt_and_goes_on_after_a_renewal(
    database: StateDatabase, events: Events
) -> None:
    """The clock ran on while the process was stopped: nothing is certain before the next renewal was answered."""
    clock = Clock()
    candidacy = make_candidacy(database, events, clock)
    leadership = await candidacy.win()
    assert candidacy.holds()
    async with leadership.kept():
        clock.ahead = 10
        assert not candidacy.holds()
        async with asyncio.timeout(10):
            await asyncio.gather(candidacy.wait(), candidacy.wait())
        assert candidacy.holds()

    (doubted,) = events.of(LeaseDoubted)
    assert doubted.silent_seconds >= 10


async def test_a_lease_that_was_taken_meanwhile_ends_the_waiting_of_every_sender(
    database: StateDatabase, events: Events
) -> None:
    """And of the supervisor; a process without a term may not send either."""
    clock = Clock()
    candidacy = make_candidacy(database, events, clock)
    with pytest.raises(LeaseLost):
        await candidacy.wait()
    leadership = await candidacy.win()
    async with leadership.kept():
        await seize(database)
        clock.ahead = 10
        for waiting in (candidacy.wait, leadership.watch, candidacy.wait):
            with pytest.raises(LeaseLost):
                async with asyncio.timeout(10):
                    await waiting()


async def test_of_two_standbys_exactly_one_follows_a_silent_holder(
    database: StateDatabase, events: Events
) -> None:
    """The other goes on standing by, and follows when that one gives the lease up."""
    silent = await seize(database)
    candidacies = [make_candidacy(database, events) for _ in range(2)]
    waiting = {asyncio.create_task(candidacy.win()) for candidacy in candidacies}
    async with asyncio.timeout(20):
        won, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    first = leadership_of(won)
    assert first.epoch == silent.fence.epoch + 1
    async with first.kept():
        await events.until(lambda: len(events.of(StandingBy)) == 2)
        # Longer than the lease: the beat keeps it.
        done, waiting = await asyncio.wait(waiting, timeout=2 * RHYTHM.lease_seconds)
        assert done == set()
    await first.release()
    async with asyncio.timeout(20):
        won, _ = await asyncio.wait(waiting)

    assert leadership_of(won).epoch == first.epoch + 1
    assert [event.after_release for event in events.of(LeaseTaken)] == [False, True]


def leadership_of(won: set[asyncio.Task[Leadership]]) -> Leadership:
    """The one that was won."""
    (task,) = won
    return task.result()
