"""Which way each row goes: into a trace, into what comes after one, or nowhere, and as what it is counted."""

import asyncio
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import DocumentKey, spending_trace_id, title_trace_id, turn_trace_id
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene

TURN, TITLE = turn_trace_id("a1"), title_trace_id("a1")


def chat(scene: Scene, number: int = 1, **fields: Any) -> DocumentKey:
    """A question and its answer; gives the answer's `_id`."""
    own = {"conversationId": f"c{number}"}
    scene.librechat.insert("messages", question(f"q{number}", None, **own))
    (key,) = scene.librechat.insert("messages", answer(f"a{number}", f"q{number}", **own, **fields))
    return key


async def test_a_turn_is_sent_once_and_its_question_is_done_with_it(scene: Scene) -> None:
    async with running(scene) as run:
        chat(scene)
        await run.until_done()

        assert run.outcomes() == ["complete"]
        assert len(run.pipeline.backlog) == 0
    assert scene.destination.record_ids() == [TURN]


async def test_a_row_that_is_written_again_and_again_is_read_once_it_is_quiet(scene: Scene) -> None:
    """A response in the making is stored every few hundred milliseconds."""
    async with running(scene) as run:
        key = chat(scene, unfinished=True, text="")
        for number in range(100):
            await asyncio.sleep(0.5)
            scene.librechat.update("messages", key, {"text": f"word {number}"})
        assert run.outcomes() == []
        scene.librechat.update("messages", key, {"unfinished": False, "text": "all of it"})
        await run.until_done()

        assert run.outcomes() == ["complete"]
    assert "all of it" in str(scene.destination.observations_of(TURN))


async def test_a_row_that_is_gone_before_it_was_read_gives_nothing(scene: Scene) -> None:
    async with running(scene) as run:
        scene.librechat.delete("messages", chat(scene))
        await run.until_done()

        assert sorted(run.outcomes()) == ["deleted", "deletion_kept"]
    assert scene.destination.record_ids() == []


async def test_a_turn_that_is_told_again_after_a_restart_is_not_sent_again(scene: Scene) -> None:
    """The position was moved back by hand, to before the turn."""
    async with running(scene) as run:
        before = dict(scene.database.checkpoints)
        chat(scene)
        await run.until_done()
    scene.database.checkpoints.update(before)
    async with running(scene) as again:
        await again.until_done()

        assert again.outcomes() == ["sent_before"]
    assert scene.destination.record_ids() == [TURN]


async def test_changes_that_are_no_ones_business_open_nothing(scene: Scene) -> None:
    """The search index marks rows; a question is saved again when its answer is made anew."""
    async with running(scene) as run:
        key = chat(scene)
        await run.until_done()
        scene.librechat.update("messages", key, {"_meiliIndex": True})
        await run.until_done()

        assert run.outcomes() == ["complete"]


async def test_feedback_and_edits_of_a_turn_that_was_sent_follow_it(scene: Scene) -> None:
    """A score, and one more event with its correction; a rating that is taken back takes its score away."""
    async with running(scene) as run:
        key = chat(scene)
        await run.until_done()
        scene.librechat.update("messages", key, {"feedback": {"rating": "thumbsUp"}})
        await run.until_done()
        assert [score.value for score in scene.destination.scores.values()] == [1]
        scene.librechat.update("messages", key, {"text": "edited"})
        await run.until_done()
        scene.librechat.update("messages", key, {}, removed=["feedback"])
        await run.until_done()

        assert run.outcomes() == ["complete", "followed", "edited", "followed"]
    assert scene.destination.record_ids() == [TURN, f"{TURN}:edit:0"]
    assert [score.type.value for score in scene.destination.scores.values()] == ["CORRECTION"]


async def test_a_turn_that_was_rated_before_it_was_sent_has_its_score(scene: Scene) -> None:
    async with running(scene) as run:
        chat(scene, feedback={"rating": "thumbsDown"})
        await run.until_done()

    assert [score.value for score in scene.destination.scores.values()] == [0]
    assert [kind for kind, _ in scene.destination.history] == ["trace", "score"]


async def test_spending_of_no_chat_becomes_one_trace_for_each_call(scene: Scene) -> None:
    """All transactions of a call lead to the same one; those of a chat to none."""
    async with running(scene, stream_transactions=True) as run:
        for fields in ({"messageId": "r1"}, {"messageId": "r1"}, {"messageId": "r2"}):
            scene.librechat.insert("transactions", transaction(conversationId="api", **fields))
        chat(scene)
        scene.librechat.insert("transactions", transaction(messageId="a1"))
        await run.until_done()
        outcomes = run.outcomes()

    assert sorted(scene.destination.record_ids()) == sorted(
        [TURN, spending_trace_id("r1"), spending_trace_id("r2")]
    )
    assert outcomes.count("api_usage") == 2
    assert outcomes.count("spent_in_chat") == 1


async def test_a_title_is_a_trace_of_its_own_beside_its_turn(scene: Scene) -> None:
    async with running(scene) as run:
        scene.librechat.insert("transactions", transaction(messageId="a1", context="title"))
        (key,) = scene.librechat.insert(
            "conversations", {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
        )
        chat(scene)
        await asyncio.sleep(1)
        scene.librechat.update("conversations", key, {"title": "Clocks"})
        await run.until_done()

    assert scene.destination.record_ids() == [TURN, TITLE]
    assert scene.destination.duplicates() == []


@pytest.mark.parametrize("sample", [0.0, 0.3])
async def test_what_is_not_sampled_is_closed_and_counted(scene: Scene, sample: float) -> None:
    """By conversation, the same share on every run."""
    async with running(scene, langfuse_sample_rate=sample) as run:
        for number in range(40):
            chat(scene, number)
        await run.until_done()
        outcomes = run.outcomes()

    assert len(outcomes) == 40
    assert outcomes.count("complete") == len(scene.destination.record_ids())
    assert outcomes.count("not_sampled") == 40 - outcomes.count("complete")
    assert (outcomes.count("complete") > 0) == (sample > 0)
