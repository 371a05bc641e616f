"""Turns that wait long, over restarts: kept in the state, forgotten when they are done."""

import pytest

from tailer.core.identity import DocumentKey
from tailer.core.turn.turns import Wait
from tailer.flow.parking import Parking
from tests.memory import MemoryDatabase, MemoryState
from tests.unit.flow.scene import PATIENCE

KEYS = [DocumentKey(f"{number:024x}") for number in range(4)]
NOW = 1_000_000
HOUR = 3600


@pytest.fixture
async def state() -> MemoryState:
    return MemoryState(MemoryDatabase())


async def restart(state: MemoryState) -> Parking:
    """What the next run knows."""
    parking = Parking(state, PATIENCE)
    await parking.load()
    return parking


async def test_each_kind_of_waiting_has_its_own_deadline(state: MemoryState) -> None:
    """In the server's time, from when the wait began."""
    parking = Parking(state, PATIENCE)
    waits = [Wait.RESPONSE, Wait.FINISH, Wait.APPROVAL]
    await parking.keep([(key, None, wait, NOW) for key, wait in zip(KEYS, waits, strict=False)])

    for known in (parking, await restart(state)):
        assert len(known) == 3
        assert [known.count(wait) for wait in waits] == [1, 1, 1]
        assert known.overdue(NOW + HOUR - 1) == []
        assert [turn.document_key for turn in known.overdue(NOW + HOUR)] == KEYS[:1]
        assert {turn.document_key for turn in known.overdue(NOW + 2 * HOUR)} == set(KEYS[:2])
        assert {turn.document_key for turn in known.overdue(NOW + 3 * HOUR)} == set(KEYS[:3])


async def test_an_answer_ends_the_waiting_of_its_question(state: MemoryState) -> None:
    """Also after a restart, and in the database with the next flush."""
    await Parking(state, PATIENCE).keep(
        [
            (KEYS[0], "q1", Wait.RESPONSE, NOW),
            (KEYS[1], "q2", Wait.RESPONSE, NOW),
            (KEYS[2], "a3", Wait.FINISH, NOW),
        ]
    )
    parking = await restart(state)
    parking.answer("q1")
    parking.answer("q9")
    # A response is no question, whatever its id.
    parking.answer("a3")
    assert {turn.document_key for turn in parking.overdue(NOW + 9 * HOUR)} == {KEYS[1], KEYS[2]}
    assert len(await restart(state)) == 3

    await parking.flush()
    await parking.flush()

    assert {turn.document_key for turn in (await restart(state)).overdue(NOW + 9 * HOUR)} == {
        KEYS[1],
        KEYS[2],
    }


async def test_parking_again_changes_nothing(state: MemoryState) -> None:
    """A row that is looked at again does not get a later deadline, in this run or in the next."""
    parking = Parking(state, PATIENCE)
    await parking.keep([(KEYS[0], "q1", Wait.RESPONSE, NOW)])
    await parking.keep([(KEYS[0], "q1", Wait.RESPONSE, NOW + 500)])
    await Parking(state, PATIENCE).keep([(KEYS[0], "q1", Wait.RESPONSE, NOW + 900)])

    for known in (parking, await restart(state)):
        (turn,) = known.overdue(NOW + 9 * HOUR)
        assert (turn.since_seconds, turn.deadline_seconds) == (NOW, NOW + HOUR)


async def test_a_row_that_waits_for_something_else_gets_a_deadline_for_that(state: MemoryState) -> None:
    """A closed tab, and then a run that pauses for an approval: after a restart too."""
    parking = Parking(state, PATIENCE)
    await parking.keep([(KEYS[0], "a1", Wait.FINISH, NOW)])
    await parking.keep([(KEYS[0], "a1", Wait.APPROVAL, NOW + 60)])

    for known in (parking, await restart(state)):
        assert (known.count(Wait.FINISH), known.count(Wait.APPROVAL)) == (0, 1)
        assert known.overdue(NOW + 2 * HOUR) == []
        (turn,) = known.overdue(NOW + 60 + 3 * HOUR)
        assert turn.since_seconds == NOW + 60


async def test_a_row_that_left_and_waits_again_is_not_forgotten(state: MemoryState) -> None:
    """Between two flushes: the second waiting counts."""
    parking = Parking(state, PATIENCE)
    await parking.keep([(KEYS[0], "q1", Wait.RESPONSE, NOW)])
    parking.leave(KEYS[0])
    await parking.keep([(KEYS[0], "q1", Wait.RESPONSE, NOW)])
    await parking.flush()

    assert len(parking) == 1
    assert len(await restart(state)) == 1


async def test_a_row_that_was_never_parked_may_leave(state: MemoryState) -> None:
    """Most turns are done without ever waiting."""
    parking = Parking(state, PATIENCE)
    parking.leave(KEYS[0])
    await parking.flush()

    assert len(parking) == 0
