"""Dead letters that are asked to be sent again: built anew, or as they were built, and kept where nothing came of
it."""

import asyncio
from datetime import timedelta

import pytest

from tailer.core.identity import DocumentKey, turn_trace_id
from tailer.events import DeadLetterReplayed
from tests.rows import answer, question, transaction
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene, until

TURN = turn_trace_id("a1")


def store_chat(scene: Scene) -> DocumentKey:
    _, key = scene.librechat.insert("messages", question("q1", None), answer("a1", "q1"))
    return key


async def bury(scene: Scene, run: Run) -> DocumentKey:
    """A turn whose building broke."""
    scene.sink.breaks_on = frozenset({"a1"})
    key = store_chat(scene)
    await run.until_done()
    assert list(scene.database.letters) == [TURN]
    return key


async def replayed(run: Run) -> list[tuple[str, str]]:
    """What came of it: the records and outcomes, once there is one."""
    await until(lambda: bool(run.events.of(DeadLetterReplayed)), seconds=600)
    return [(event.record_id, event.outcome) for event in run.events.of(DeadLetterReplayed)]


async def test_a_turn_whose_building_was_mended_is_built_anew_and_its_letter_forgotten(scene: Scene) -> None:
    """With what the row holds now."""
    async with running(scene) as run:
        key = await bury(scene, run)
        scene.librechat.update("messages", key, {"text": "as it is now"})
        await run.until_done()
        scene.sink.breaks_on = frozenset()
        scene.database.ask_for_replay(TURN)

        assert await replayed(run) == [(TURN, "sent")]
    assert scene.destination.record_ids() == [TURN]
    assert "as it is now" in str(scene.destination.observations_of(TURN))
    assert scene.database.letters == {}


async def test_a_turn_that_breaks_once_more_counts_its_tries_and_is_not_tried_by_itself(scene: Scene) -> None:
    async with running(scene) as run:
        await bury(scene, run)
        scene.database.ask_for_replay(TURN)
        await until(lambda: scene.database.letters[TURN].tries == 2, seconds=600)
        await asyncio.sleep(600)

        assert scene.database.letters[TURN].tries == 2
        assert scene.database.letters[TURN].replay is None
    assert scene.destination.record_ids() == []


async def test_a_turn_whose_row_is_gone_keeps_its_letter_with_a_word_for_why(scene: Scene) -> None:
    async with running(scene) as run:
        key = await bury(scene, run)
        scene.librechat.delete("messages", key)
        await run.until_done()
        scene.sink.breaks_on = frozenset()
        scene.database.ask_for_replay(TURN)

        assert await replayed(run) == [(TURN, "nothing_to_send")]
    assert scene.database.letters[TURN].replay == "nothing_to_send"


async def test_a_turn_that_was_refused_is_built_anew(scene: Scene) -> None:
    """Its letter has the refused bytes; what they are made of may be another thing now."""
    scene.destination.rejects = lambda message_id: message_id == "a1"
    async with running(scene) as run:
        store_chat(scene)
        await run.until_done()
        assert scene.database.letters[TURN].letter.chunk is not None
        # No stream tells of the ledger: only the replay can have read it.
        scene.librechat.insert("transactions", transaction(messageId="a1", model="billed-since"))
        scene.destination.rejects = None
        scene.database.ask_for_replay(TURN)

        assert await replayed(run) == [(TURN, "sent")]
    assert "billed-since" in str(scene.destination.observations_of(TURN))
    assert scene.database.letters == {}


async def test_an_edit_that_was_refused_is_sent_as_it_was_built(scene: Scene) -> None:
    """It shows a moment that is over; refused again it stays, and is sent once it is taken."""
    record = f"{TURN}:edit:0"
    async with running(scene) as run:
        key = store_chat(scene)
        await run.until_done()
        scene.destination.rejects = lambda message_id: message_id == "a1"
        scene.librechat.update("messages", key, {"text": "edited"})
        await run.until_done()
        assert list(scene.database.letters) == [record]
        scene.database.ask_for_replay(record)
        await until(lambda: scene.database.letters[record].tries == 2, seconds=600)
        scene.destination.rejects = None
        scene.database.ask_for_replay(record)

        assert await replayed(run) == [(record, "sent")]
    assert scene.destination.record_ids() == [TURN, record]
    assert scene.database.letters == {}


@pytest.mark.parametrize("minutes", [0, 30])
async def test_a_replay_that_a_kill_interrupted_is_done_by_the_next_run(scene: Scene, minutes: int) -> None:
    """Once, however far it was."""
    async with running(scene) as run:
        await bury(scene, run)
        scene.sink.breaks_on = frozenset()
        scene.destination.is_away = True
        scene.database.ask_for_replay(TURN)
        await asyncio.sleep(timedelta(minutes=minutes).total_seconds())
    scene.destination.is_away = False
    async with running(scene) as later:
        assert await replayed(later) == [(TURN, "sent")]

    assert scene.destination.record_ids() == [TURN]
    assert scene.database.letters == {}
