"""What comes after what at the destination: a title with its turn or after it, an edit after its turn, a deletion last.

Langfuse takes ten seconds for each request here, so that everything else happens while one is on its way.
"""

import asyncio
from datetime import UTC, datetime

import pytest
from bson import ObjectId

from tailer.core.identity import DocumentKey, title_trace_id, turn_trace_id, unanswered_trace_id
from tailer.core.policy.policies import DeletionPolicy
from tests.memory.reader import MemoryReader
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene, until

TURN, TITLE = turn_trace_id("a1"), title_trace_id("a1")
SLOW_SECONDS = 10.0


@pytest.fixture
async def slow(scene: Scene) -> Scene:
    scene.destination.latency_seconds = SLOW_SECONDS
    return scene


def start_chat(scene: Scene, *, billed: bool = True) -> tuple[DocumentKey, DocumentKey, DocumentKey]:
    """A chat whose title is not stored yet; the `_id`s of its conversation, question and answer."""
    (conversation,) = scene.librechat.insert(
        "conversations", {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
    )
    if billed:
        scene.librechat.insert("transactions", transaction(messageId="a1", context="title"))
    asked, said = scene.librechat.insert("messages", question("q1", None), answer("a1", "q1"))
    return conversation, asked, said


async def until_on_its_way(scene: Scene, requests: int = 1) -> None:
    """Return once so many batches were written down and the last is being sent."""
    await until(lambda: scene.database.writes.count("begin_batch") >= requests)
    await asyncio.sleep(SLOW_SECONDS / 4)


async def test_a_title_that_is_stored_beside_its_turn_goes_in_the_same_request(slow: Scene) -> None:
    async with running(slow) as run:
        conversation, _, _ = start_chat(slow)
        slow.librechat.update("conversations", conversation, {"title": "Clocks"})
        await run.until_done()
        outcomes = run.outcomes()

    assert slow.destination.history == [("trace", TURN), ("trace", TITLE)]
    assert len(slow.destination.payloads) == 1
    assert outcomes == ["complete"]


async def test_a_title_that_is_stored_while_its_turn_is_on_its_way_is_no_second_one(slow: Scene) -> None:
    async with running(slow) as run:
        conversation, _, _ = start_chat(slow)
        await until_on_its_way(slow)
        slow.librechat.update("conversations", conversation, {"title": "Clocks"})
        await run.until_done()

    assert slow.destination.history == [("trace", TURN), ("trace", TITLE)]


async def test_a_title_whose_bill_comes_late_follows_its_turn(slow: Scene) -> None:
    async with running(slow) as run:
        conversation, _, _ = start_chat(slow, billed=False)
        await until_on_its_way(slow)
        slow.librechat.insert("transactions", transaction(messageId="a1", context="title"))
        slow.librechat.update("conversations", conversation, {"title": "Clocks"})
        await run.until_done()

    assert slow.destination.history == [("trace", TURN), ("trace", TITLE)]


async def test_a_title_that_waits_for_its_turn_is_looked_for_once(scene: Scene) -> None:
    """The turn is written to for a minute. In a backlog thousands of titles wait like this one."""
    reader = MemoryReader(scene.librechat)
    async with running(scene, reader=reader) as run:
        conversation, _, said = start_chat(scene)
        scene.librechat.update("conversations", conversation, {"title": "Clocks"})
        for number in range(30):
            scene.librechat.update("messages", said, {"text": f"answer {number}"})
            await asyncio.sleep(2)
        located = reader.titles_located
        await run.until_done()

    assert located == 1
    assert scene.destination.history == [("trace", TURN), ("trace", TITLE)]


@pytest.mark.parametrize("field", ["answer", "question"])
async def test_an_edit_of_a_turn_that_is_on_its_way_comes_after_it(slow: Scene, field: str) -> None:
    """Of the answer and of the question; in a trace that is there."""
    async with running(slow) as run:
        _, asked, said = start_chat(slow, billed=False)
        await until_on_its_way(slow)
        slow.librechat.update("messages", said if field == "answer" else asked, {"text": "edited"})
        await run.until_done()

    assert [entry for entry in slow.destination.history if entry[0] == "trace"] == [
        ("trace", TURN),
        ("trace", f"{TURN}:edit:0"),
    ]


async def test_what_a_model_added_to_an_answer_is_billed_late_and_corrects_nothing(scene: Scene) -> None:
    """ "Continue" until LibreChat 0.7.8: the same row grows, and what was charged for it names no message."""
    async with running(scene) as run:
        _, _, said = start_chat(scene, billed=False)
        await run.until_done()
        before = str(scene.librechat.find("messages", [said])[0]["text"])
        now = datetime.now(UTC)
        scene.librechat.insert("transactions", transaction(rawAmount=-12, createdAt=now))
        scene.librechat.update("messages", said, {"text": f"{before} and more", "updatedAt": now})
        await run.until_done()
        scene.librechat.update("messages", said, {"tokenCount": 22, "feedback": {"rating": "thumbsUp"}})
        await run.until_done()
        corrected = list(scene.destination.scores)
        scene.librechat.update("messages", said, {"text": f"{before} and more, by hand"})
        await run.until_done()

    assert [entry for entry in scene.destination.history if entry[0] == "trace"] == [
        ("trace", TURN),
        ("trace", f"{TURN}:late:1"),
        ("trace", f"{TURN}:edit:2"),
    ]
    *_, late, edited = scene.destination.observations_of(TURN)
    assert (late["type"], late["output"]) == ("generation", " and more")
    assert edited["name"] == "edit"
    assert (corrected, len(scene.destination.scores)) == ([f"feedback-{TURN}"], 2)


async def test_what_a_second_run_writes_into_a_reported_answer_is_billed_late_and_corrects_nothing(
    scene: Scene,
) -> None:
    """ "Continue" over the API of LibreChat 0.8.7: text and report are those of the second run, the ledger has both."""
    first = [transaction(messageId="a1", rawAmount=-119, tokenType="prompt"), transaction(messageId="a1")]
    second = [transaction(messageId="a1", rawAmount=-118, tokenType="prompt"), transaction(messageId="a1")]
    report = {"output": 3, "cacheWrite": 0, "cacheRead": 0}
    async with running(scene) as run:
        scene.librechat.insert("transactions", *first)
        metadata = {"usage": {"input": 119, **report}}
        _, said = scene.librechat.insert(
            "messages", question("q1", None), answer("a1", "q1", metadata=metadata)
        )
        await run.until_done()
        scene.librechat.insert("transactions", *second)
        changes = {"text": "Written anew.", "metadata": {"usage": {"input": 118, **report}}}
        for _ in ("written", "and touched again"):
            scene.librechat.update("messages", said, {**changes, "updatedAt": datetime.now(UTC)})
            await run.until_done()
        scene.librechat.update("messages", said, {"text": "Written by hand."})
        await run.until_done()

    *_, late, edited = scene.destination.observations_of(TURN)
    assert (late["type"], late["output"]) == ("generation", "Written anew.")
    assert late["usage"] == {"input": 118, "output": 3}
    assert edited["name"] == "edit"
    assert len(scene.destination.scores) == 1


async def test_a_row_that_was_replaced_as_a_whole_shows_what_it_changed(scene: Scene) -> None:
    """A restored backup writes whole rows; the event does not say what differs."""
    async with running(scene) as run:
        _, _, said = start_chat(scene, billed=False)
        await run.until_done()
        scene.librechat.replace("messages", said, answer("a1", "q1", text="restored"))
        await run.until_done()

    assert scene.destination.record_ids() == [TURN, f"{TURN}:edit:0"]


async def test_an_edited_question_is_shown_in_the_trace_of_each_answer_that_lacks_the_edit(
    scene: Scene,
) -> None:
    """The first answer was finished, and read, after the edit; the second was sent before it."""
    other = turn_trace_id("a2")
    async with running(scene) as run:
        asked, first = scene.librechat.insert(
            "messages", question("q1", None), answer("a1", "q1", unfinished=True, text=None)
        )
        await run.until_done()
        scene.librechat.insert("messages", answer("a2", "q1"))
        await run.until_done()
    assert scene.destination.record_ids() == [other]
    scene.librechat.update("messages", first, {"unfinished": False, "text": "whole"})
    scene.librechat.update("messages", asked, {"text": "edited"})
    async with running(scene.restart()) as later:
        await later.until_done()

    assert sorted(scene.destination.record_ids()) == sorted([TURN, other, f"{other}:edit:0"])


async def test_edits_of_one_turn_are_numbered_one_after_another(slow: Scene) -> None:
    """Also those that come while the one before is on its way; none takes another's place."""
    async with running(slow) as run:
        _, asked, said = start_chat(slow, billed=False)
        await run.until_done()
        for number in range(3):
            slow.librechat.update("messages", said, {"text": f"answer {number}"})
            slow.librechat.update("messages", asked, {"text": f"question {number}"})
            await asyncio.sleep(SLOW_SECONDS / 2)
        await run.until_done()

    records = slow.destination.record_ids()
    assert records == [TURN, *(f"{TURN}:edit:{number}" for number in range(len(records) - 1))]
    shown = [item["output"] for item in slow.destination.observations_of(TURN) if item["type"] == "event"]
    assert {"answer 2", "question 2"} <= set(shown)


async def test_a_row_that_is_rated_edited_and_deleted_in_one_breath_leaves_nothing(slow: Scene) -> None:
    """Whatever else is still to be done for it."""
    async with running(slow, deletions=DeletionPolicy.DELETE) as run:
        _, asked, said = start_chat(slow)
        await run.until_done()
        slow.librechat.update("messages", said, {"text": "edited", "feedback": {"rating": "thumbsUp"}})
        slow.librechat.update("messages", asked, {"text": "edited too"})
        slow.librechat.delete("messages", said)
        await run.until_done()
        outcomes = run.outcomes()

    assert slow.destination.trace_ids() == []
    assert slow.destination.history[-1][0] == "delete"
    assert outcomes[-1] == "deletion_followed"


@pytest.mark.parametrize("requests", [1, 2])
async def test_a_row_that_is_deleted_while_something_of_it_is_on_its_way_loses_that_too(
    slow: Scene, requests: int
) -> None:
    """Its turn, or an edit of it."""
    async with running(slow, deletions=DeletionPolicy.DELETE) as run:
        _, _, said = start_chat(slow)
        if requests == 2:
            await run.until_done()
            slow.librechat.update("messages", said, {"text": "edited"})
        await until_on_its_way(slow, requests)
        slow.librechat.delete("messages", said)
        await run.until_done()

    assert slow.destination.trace_ids() == []
    assert {name for kind, name in slow.destination.history if kind == "delete"} == {TURN, TITLE}


async def test_a_question_without_an_answer_that_is_deleted_on_its_way_is_taken_away(slow: Scene) -> None:
    async with running(slow, deletions=DeletionPolicy.DELETE) as run:
        (key,) = slow.librechat.insert("messages", question("q9", None))
        await until(lambda: "begin_batch" in slow.database.writes)
        slow.librechat.delete("messages", key)
        await run.until_done()

    assert slow.destination.history == [
        ("trace", unanswered_trace_id("q9")),
        ("delete", unanswered_trace_id("q9")),
    ]
