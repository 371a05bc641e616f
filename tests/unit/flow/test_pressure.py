"""When Langfuse takes nothing, reading stops: the oplog is the buffer, and it is read on from where it stopped."""

import asyncio
from typing import Any

from tailer.core.stream.hints import Stream
from tailer.events import ReadingPaused
from tests.evidence import trace_ids
from tests.rows import answer, question
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene

LIMIT = 100
LIMITED: dict[str, Any] = {"open_turns": LIMIT, "batch_traces": 10}


def store_chats(scene: Scene, first: int, last: int) -> list[str]:
    """Chats of one turn each; gives the ids of their traces."""
    for number in range(first, last):
        own = {"conversationId": f"c{number}"}
        scene.librechat.insert(
            "messages", question(f"q{number}", None, **own), answer(f"a{number}", f"q{number}", **own)
        )
    return [str(trace_id) for trace_id in trace_ids(*(f"a{number}" for number in range(first, last)))]


async def test_reading_pauses_while_too_much_is_open_and_goes_on_with_nothing_lost(scene: Scene) -> None:
    """Langfuse is away while three times the limit is written, a few rows at a time."""
    scene.destination.is_away = True
    expected: list[str] = []
    async with running(scene, **LIMITED) as run:
        for number in range(0, 3 * LIMIT, 10):
            expected += store_chats(scene, number, number + 10)
            await asyncio.sleep(10)
            # A batch of the stream is taken in as a whole.
            assert len(run.pipeline.backlog) <= LIMIT + 20
        assert run.pipeline.backlog.answers.is_paused(Stream.MESSAGES)
        assert run.pipeline.backlog.answers.silent_seconds(Stream.MESSAGES) is None
        assert run.events.of(ReadingPaused)
        scene.destination.is_away = False
        await run.until_done()
        assert not run.pipeline.backlog.answers.is_paused(Stream.MESSAGES)

    assert sorted(scene.destination.record_ids()) == sorted(expected)
    assert scene.destination.duplicates() == []


async def test_what_is_written_down_to_be_sent_stays_within_a_few_batches(scene: Scene) -> None:
    """One a sender: the rest is in the backlog, as ids."""
    scene.destination.is_away = True
    async with running(scene, concurrent_requests=2, **LIMITED):
        store_chats(scene, 0, 90)
        await asyncio.sleep(600)

        assert len(scene.database.batches) == 2
        assert sum(len(batch.items) for batch in scene.database.batches.values()) == 20


async def test_a_run_that_is_killed_while_reading_is_paused_loses_nothing(scene: Scene) -> None:
    scene.destination.is_away = True
    async with running(scene, **LIMITED):
        expected = store_chats(scene, 0, 2 * LIMIT)
        await asyncio.sleep(600)
    scene.destination.is_away = False
    async with running(scene, **LIMITED) as run:
        await run.until_done()

    assert sorted(scene.destination.record_ids()) == sorted(expected)
    assert scene.destination.duplicates() == []
