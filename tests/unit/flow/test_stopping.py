"""The end of a run: what is open is sent within the limit, what is left is read again, and nothing twice."""

import asyncio
from datetime import timedelta

import pytest

from tailer.core.stream.hints import Stream
from tailer.events import Drained, Stopping
from tests.memory.clock import monotonic
from tests.rows import answer, question
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene, until

SLOW_SECONDS = 5.0


def store_chats(scene: Scene, first: int, last: int) -> list[str]:
    for number in range(first, last):
        own = {"conversationId": f"c{number}"}
        scene.librechat.insert(
            "messages", question(f"q{number}", None, **own), answer(f"a{number}", f"q{number}", **own)
        )
    return [f"a{number}" for number in range(first, last)]


async def until_read(run: Run) -> None:
    """Return once the streams have told of everything, and nothing of it was sent yet."""
    await until(lambda: len(run.pipeline.backlog) > 0)
    await asyncio.sleep(1)


async def test_what_is_open_is_sent_before_the_end_and_the_last_position_is_stored(scene: Scene) -> None:
    """The next run is told of nothing again."""
    scene.destination.latency_seconds = SLOW_SECONDS
    async with running(scene) as run:
        store_chats(scene, 0, 20)
        await until_read(run)
        await run.stop()
        assert run.events.of(Stopping)[0].open_turns == 20
        assert [(event.complete, event.left_open) for event in run.events.of(Drained)] == [(True, 0)]
    assert len(scene.destination.record_ids()) == 20

    async with running(scene) as again:
        await again.until_done()
        assert again.outcomes() == []


async def test_what_is_written_while_a_run_ends_is_left_to_the_next(scene: Scene) -> None:
    """Nothing new comes in while what is open goes out."""
    scene.destination.latency_seconds = SLOW_SECONDS
    async with running(scene) as run:
        store_chats(scene, 0, 3)
        await until_read(run)
        run.shutdown.request()
        await asyncio.sleep(0)
        store_chats(scene, 3, 6)
        await run.stop()
        sent = len(scene.destination.record_ids())
    async with running(scene) as again:
        await again.until_done()
        assert again.outcomes() == ["complete"] * 3

    assert sent == 3
    assert scene.destination.duplicates() == []


@pytest.mark.parametrize("insists", [False, True])
async def test_an_end_does_not_wait_for_a_langfuse_that_is_away_longer_than_its_limit(
    scene: Scene, *, insists: bool
) -> None:
    """Nor that long after a second signal; all of it is sent by the next run, once."""
    limit = timedelta(seconds=30)
    scene.destination.is_away = True
    async with running(scene, drain=limit) as run:
        store_chats(scene, 0, 5)
        await until_read(run)
        began = monotonic()
        run.shutdown.request()
        await asyncio.sleep(3)
        if insists:
            run.shutdown.request()
        await asyncio.wait_for(run.task, 60)
        took = monotonic() - began
        assert [(event.complete, event.left_open) for event in run.events.of(Drained)] == [(False, 5)]
        await run.pipeline.checkpointing.save([Stream.MESSAGES])
    assert took == pytest.approx(3 if insists else 30, abs=0.5)

    scene.destination.is_away = False
    async with running(scene) as again:
        await again.until_done()
    assert len(scene.destination.record_ids()) == 5
    assert scene.destination.duplicates() == []


async def test_questions_that_wait_for_an_answer_do_not_hold_up_the_end(scene: Scene) -> None:
    """They are read again by the next run, which finds the answer."""
    async with running(scene) as run:
        scene.librechat.insert("messages", question("q1", None))
        await until_read(run)
        began = monotonic()
        await run.stop()
        assert monotonic() - began < 1
    scene.librechat.insert("messages", answer("a1", "q1"))
    async with running(scene) as again:
        await again.until_done()
        assert again.outcomes() == ["complete"]
