"""What broke the code, from the dead letter to its replay: each kind of work under its own id, and done once it
works."""

import asyncio
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import spending_trace_id, title_trace_id, turn_trace_id
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.stream.hints import Interest
from tailer.core.trace.followup import feedback_score_id
from tailer.daemon import pipeline
from tailer.events import DeadLetterReplayed
from tailer.flow.lanes import followups, spending, titles, turns
from tailer.flow.lanes.deletions import Deletions
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene

TURN, TITLE, SPENT = turn_trace_id("a1"), title_trace_id("a1"), spending_trace_id("resp-1")


def fail(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


async def replay(scene: Scene, run: Run) -> list[tuple[str, str]]:
    """Ask for every letter, and what came of that."""
    for record_id in scene.database.letters:
        scene.database.ask_for_replay(record_id)
    await asyncio.sleep(60)
    await run.until_done()
    return [(event.record_id, event.outcome) for event in run.events.of(DeadLetterReplayed)]


def letters(scene: Scene) -> list[tuple[str, Interest | None, str]]:
    return [
        (record_id, stored.letter.interest, str(stored.letter.reason))
        for record_id, stored in scene.database.letters.items()
    ]


def start_chat(scene: Scene) -> Any:
    scene.librechat.insert("messages", question("q1", None))
    (key,) = scene.librechat.insert("messages", answer("a1", "q1"))
    return key


async def test_a_title_is_buried_and_replayed_as_a_title(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as its turn, which was sent: a replay of that would find it done and forget the letter."""
    async with running(scene) as run:
        conversation = {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
        (chat,) = scene.librechat.insert("conversations", conversation)
        start_chat(scene)
        await run.until_done()
        with monkeypatch.context() as broken:
            broken.setattr(titles, "export_title", fail)
            scene.librechat.insert("transactions", transaction(messageId="a1", context="title"))
            scene.librechat.update("conversations", chat, {"title": "Clocks"})
            await run.until_done()
            assert letters(scene) == [(TITLE, Interest.TITLE, "build_failed: ZeroDivisionError")]

        assert await replay(scene, run) == [(TITLE, "sent")]
    assert scene.destination.record_ids() == [TURN, TITLE]
    assert scene.database.letters == {}


async def test_feedback_is_buried_and_replayed_as_a_follow_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves no record of its own: that it was done without a fault is what counts."""
    async with running(scene) as run:
        key = start_chat(scene)
        await run.until_done()
        with monkeypatch.context() as broken:
            broken.setattr(followups, "make_feedback_score", fail)
            scene.librechat.update("messages", key, {"feedback": {"rating": "thumbsUp"}})
            await run.until_done()
            (letter,) = letters(scene)
            assert letter == (f"{TURN}:followup", Interest.FOLLOWUP, "build_failed: ZeroDivisionError")
            assert await replay(scene, run) == []
            (stored,) = scene.database.letters.values()
            assert (stored.tries, stored.replay) == (2, None)

        assert await replay(scene, run) == [(f"{TURN}:followup", "sent")]
    assert set(scene.destination.scores) == {feedback_score_id(TURN)}
    assert scene.database.letters == {}


async def test_a_deletion_is_buried_and_replayed_as_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(scene, deletions=DeletionPolicy.DELETE) as run:
        key = start_chat(scene)
        await run.until_done()
        with monkeypatch.context() as broken:
            broken.setattr(Deletions, "_delete", fail)
            scene.librechat.delete("messages", key)
            await run.until_done()
            (letter,) = letters(scene)
            assert letter == (f"deletion-{key}", Interest.DELETION, "build_failed: ZeroDivisionError")
        assert scene.destination.trace_ids() == [TURN]

        assert await replay(scene, run) == [(f"deletion-{key}", "sent")]
    assert scene.destination.trace_ids() == []
    assert scene.database.letters == {}


async def test_spending_is_buried_and_replayed_as_spending(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(scene, stream_transactions=True) as run:
        with monkeypatch.context() as broken:
            broken.setattr(spending, "export_spending", fail)
            call = transaction(messageId="resp-1", conversationId="resp-1")
            scene.librechat.insert("transactions", call)
            await run.until_done()
            assert letters(scene) == [(SPENT, Interest.SPENDING, "build_failed: ZeroDivisionError")]

        assert await replay(scene, run) == [(SPENT, "sent")]
    assert scene.destination.trace_ids() == [SPENT]
    assert scene.database.letters == {}


async def test_a_row_that_breaks_its_reading_is_buried_and_replayed_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which trace it is was not known by then: the letter goes by the row."""
    async with running(scene) as run:
        with monkeypatch.context() as broken:
            broken.setattr(turns, "trace_id_of", fail)
            key = start_chat(scene)
            await run.until_done()
            (letter,) = letters(scene)
            assert letter == (f"response-{key}", Interest.RESPONSE, "build_failed: ZeroDivisionError")

        assert await replay(scene, run) == [(f"response-{key}", "sent")]
    assert scene.destination.trace_ids() == [TURN]
    assert scene.database.letters == {}


async def test_an_entry_that_a_lane_forgets_is_buried_and_holds_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stay open for ever, and the position with it."""
    begin = turns.Turns._is_to_be_built

    def forget(*args: Any, **rest: Any) -> bool:
        return begin(*args, **rest) and args[3].message_id != "a1"

    monkeypatch.setattr(turns.Turns, "_is_to_be_built", forget)
    async with running(scene) as run:
        start_chat(scene)
        scene.librechat.insert("messages", answer("a2", "q1"))
        await run.until_done()

        assert letters(scene) == [(TURN, Interest.RESPONSE, "build_failed: _Unsettled")]
        assert sorted(run.outcomes()) == ["complete", "dead_letter"]


async def test_a_turn_that_is_rejected_counts_as_a_dead_letter(scene: Scene) -> None:
    """Not as complete: it is not there."""
    scene.destination.rejects = lambda message_id: message_id == "a1"
    async with running(scene) as run:
        start_chat(scene)
        scene.librechat.insert("messages", answer("a2", "q1"))
        await run.until_done()

        assert sorted(run.outcomes()) == ["complete", "dead_letter"]


def test_replays_are_looked_for_often_enough() -> None:
    """The tests above wait a minute of virtual time for one."""
    assert pipeline._SWEEP_SECONDS < 30
