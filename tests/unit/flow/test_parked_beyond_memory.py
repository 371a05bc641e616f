"""More parked turns than are known at once: none is forgotten, and the first deadlines come first."""

import random
from datetime import timedelta

import pytest

from tailer.core.identity import DocumentKey
from tailer.core.turn.turns import Wait
from tailer.flow.parking import Parking, Patience
from tests.memory import MemoryState
from tests.unit.flow.scene import Scene

PATIENCE = Patience(timedelta(seconds=1000), timedelta(seconds=100), timedelta(seconds=5000))
KNOWN = 10


def row(number: int) -> tuple[DocumentKey, str, Wait, int]:
    return DocumentKey(f"{number:024x}"), f"m{number}", Wait.FINISH, number


def parking_of(scene: Scene) -> Parking:
    return Parking(MemoryState(scene.database), PATIENCE, known=KNOWN)


async def work_off(parking: Parking, last_seconds: int) -> list[str | None]:
    """What a sweep would take up, second by second, each done at once."""
    taken: list[str | None] = []
    for now in range(last_seconds + 1):
        await parking.flush()
        for turn in parking.overdue(now):
            taken.append(turn.message_id)
            parking.leave(turn.document_key)
    await parking.flush()
    return taken


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_parked_turns_beyond_what_is_known_are_taken_up_in_their_turn(
    scene: Scene, *, is_restarted: bool
) -> None:
    """Parked in any order, one by one and many at once; each exactly once, when its time is up."""
    parking = parking_of(scene)
    numbers = list(range(100))
    random.Random(3).shuffle(numbers)
    for number in numbers[:50]:
        await parking.keep([row(number)])
    await parking.keep([row(number) for number in numbers[50:]])
    if is_restarted:
        parking = parking_of(scene)
        await parking.load()

    assert len(parking) <= 2 * KNOWN
    assert await work_off(parking, 300) == [f"m{number}" for number in range(100)]
    assert scene.database.parked == {}


async def test_an_urgent_turn_is_known_at_once_while_many_patient_ones_are_parked(scene: Scene) -> None:
    parking = parking_of(scene)
    await parking.keep([(DocumentKey(f"a{n:023x}"), f"w{n}", Wait.APPROVAL, n) for n in range(50)])
    await parking.keep([row(7)])

    assert [turn.message_id for turn in parking.overdue(107)] == ["m7"]


async def test_a_question_that_is_not_known_and_was_answered_is_forgotten_in_the_end(scene: Scene) -> None:
    """Nothing tells its row in the database of the answer; it is looked at when its time is up."""
    parking = parking_of(scene)
    await parking.keep([(DocumentKey(f"{n:024x}"), f"q{n}", Wait.RESPONSE, n) for n in range(50)])
    parking.answer("q49")
    parking.answer("q0")

    taken = await work_off(parking, 2000)
    assert taken == [f"q{number}" for number in range(1, 50)]
    assert scene.database.parked == {}
