"""Turns that wait long: parked so that they hold no position back, sent when their time is up, over any restart."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tailer.core.identity import DocumentKey, turn_trace_id, unanswered_trace_id
from tailer.core.stream.hints import Stream
from tests.memory.clock import monotonic
from tests.rows import answer, question
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene, until

WHILE = 300
"""Longer than a question is waited for before it is parked, and shorter than any deadline."""
PARK, UNANSWERED, UNFINISHED = timedelta(minutes=1), timedelta(minutes=40), timedelta(minutes=20)
TIMES: dict[str, Any] = {"park_after": PARK, "unanswered_after": UNANSWERED, "unfinished_after": UNFINISHED}
HALF: dict[str, Any] = {"unfinished": True, "text": None, "content": [{"type": "text", "text": "half"}]}
"""What LibreChat has stored of an answer when the tab is closed; after a stop it has a text besides."""
TURN = turn_trace_id("a1")


def ask(scene: Scene) -> DocumentKey:
    (key,) = scene.librechat.insert("messages", question("q1", None))
    return key


async def test_a_question_is_parked_and_holds_no_position_back(scene: Scene) -> None:
    async with running(scene, **TIMES) as run:
        ask(scene)
        await asyncio.sleep(PARK.total_seconds() + 30)
        assert run.outcomes() == ["parked_response"]
        assert len(run.pipeline.backlog) == 0
        assert len(scene.database.parked) == 1
        await asyncio.sleep(60)

    stored = scene.database.checkpoints[Stream.MESSAGES].position.cluster_seconds
    assert scene.librechat.seconds - stored < 30


@pytest.mark.parametrize("restarts", [0, 3])
async def test_a_question_that_nothing_answers_is_sent_as_unanswered_when_its_time_is_up(
    scene: Scene, restarts: int
) -> None:
    """Counted from when it was asked, however often the daemon began anew."""
    asked = monotonic()
    async with running(scene, **TIMES):
        ask(scene)
        await asyncio.sleep(PARK.total_seconds() + 30)
    for _ in range(restarts):
        async with running(scene, **TIMES):
            await asyncio.sleep(WHILE)
    async with running(scene, **TIMES) as run:
        await until(lambda: bool(scene.destination.record_ids()))
        await run.until_done()
        assert run.outcomes()[-1] == "unanswered"
        await asyncio.sleep(60)

    assert UNANSWERED.total_seconds() <= monotonic() - asked <= UNANSWERED.total_seconds() + 300
    assert scene.destination.record_ids() == [unanswered_trace_id("q1")]
    assert scene.database.parked == {}


@pytest.mark.parametrize("wait_seconds", [30, WHILE])
async def test_an_answer_ends_the_waiting_of_its_question(scene: Scene, wait_seconds: int) -> None:
    """Before it was parked, and after."""
    async with running(scene, **TIMES) as run:
        ask(scene)
        await asyncio.sleep(wait_seconds)
        scene.librechat.insert("messages", answer("a1", "q1"))
        await run.until_done()
        await asyncio.sleep(UNANSWERED.total_seconds())
        outcomes = run.outcomes()

    assert scene.destination.record_ids() == [TURN]
    assert outcomes[-1] == "complete"
    assert scene.database.parked == {}


async def test_a_question_that_was_stored_over_the_agents_api_does_not_count_as_unanswered(
    scene: Scene,
) -> None:
    """Its rows have no parents."""
    async with running(scene, **TIMES) as run:
        ask(scene)
        scene.librechat.insert("messages", answer("resp_1", None))
        await asyncio.sleep(UNANSWERED.total_seconds() + WHILE)
        await run.until_done()

    assert scene.destination.record_ids() == [turn_trace_id("resp_1")]
    assert "text of q1" in str(scene.destination.observations_of(turn_trace_id("resp_1"))[0]["input"])
    assert scene.database.parked == {}


async def test_an_answer_that_came_while_no_daemon_ran_ends_the_waiting_too(scene: Scene) -> None:
    async with running(scene, **TIMES):
        ask(scene)
        await asyncio.sleep(WHILE)
    await asyncio.sleep(WHILE)
    scene.librechat.insert("messages", answer("a1", "q1"))
    async with running(scene, **TIMES) as run:
        await run.until_done()
        await asyncio.sleep(UNANSWERED.total_seconds())

    assert scene.destination.record_ids() == [TURN]
    assert scene.database.parked == {}


async def test_an_answer_whose_tab_was_closed_is_sent_as_it_stands_when_its_time_is_up(scene: Scene) -> None:
    """Unfinished rows are no turns yet."""
    async with running(scene, **TIMES) as run:
        ask(scene)
        scene.librechat.insert("messages", answer("a1", "q1", **HALF))
        await run.until_done()
        assert run.outcomes() == ["parked_finish"]
        assert scene.destination.record_ids() == []
        await until(lambda: bool(scene.destination.record_ids()))
        await run.until_done()
        outcomes = run.outcomes()

    assert scene.destination.record_ids() == [TURN]
    assert outcomes == ["parked_finish", "partial"]


async def test_an_unfinished_answer_that_was_stored_while_no_daemon_ran_has_waited_since_then(
    scene: Scene,
) -> None:
    """And not since it was read."""
    async with running(scene, **TIMES) as run:
        await run.until_done()
    scene.librechat.insert("messages", answer("a1", "q1", **HALF))
    stored = scene.librechat.seconds
    await asyncio.sleep(WHILE)
    async with running(scene, **TIMES) as run:
        await run.until_done()

    (parked,) = scene.database.parked.values()
    assert parked.since_seconds == pytest.approx(stored, abs=2)


async def test_an_answer_that_is_finished_late_is_sent_whole(scene: Scene) -> None:
    """And not once more when the time of its waiting would have been up."""
    async with running(scene, **TIMES) as run:
        ask(scene)
        (key,) = scene.librechat.insert("messages", answer("a1", "q1", **HALF))
        await run.until_done()
        await asyncio.sleep(WHILE)
        scene.librechat.update(
            "messages", key, {"unfinished": False, "content": [{"type": "text", "text": "at last"}]}
        )
        await run.until_done()
        await asyncio.sleep(UNFINISHED.total_seconds())
        outcomes = run.outcomes()

    assert scene.destination.record_ids() == [TURN]
    assert outcomes == ["parked_finish", "complete"]
    assert "at last" in str(scene.destination.observations_of(TURN))


async def test_an_answer_that_is_stopped_after_its_tab_was_closed_ends_when_it_was_stopped(
    scene: Scene,
) -> None:
    """The row stays unfinished. It was stored when the tab was closed, minutes before."""
    async with running(scene, **TIMES) as run:
        ask(scene)
        (key,) = scene.librechat.insert("messages", answer("a1", "q1", **HALF))
        await run.until_done()
        await asyncio.sleep(WHILE)
        stopped = datetime.now(UTC) + timedelta(seconds=WHILE)
        scene.librechat.update("messages", key, {"text": "half and more", "updatedAt": stopped})
        await run.until_done()
        outcomes = run.outcomes()

    assert outcomes == ["parked_finish", "aborted"]
    root, *_ = scene.destination.observations_of(TURN)
    assert abs(root["end_milliseconds"] - root["start_milliseconds"] - WHILE * 1000) < 10_000


async def test_a_parked_turn_whose_row_is_deleted_is_forgotten_when_its_time_is_up(scene: Scene) -> None:
    async with running(scene, **TIMES) as run:
        key = ask(scene)
        await asyncio.sleep(WHILE)
        scene.librechat.delete("messages", key)
        await asyncio.sleep(UNANSWERED.total_seconds())
        await run.until_done()

    assert scene.destination.record_ids() == []
    assert scene.database.parked == {}
