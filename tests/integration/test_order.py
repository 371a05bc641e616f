"""What comes after what: a title with its turn or after it, an edit after its turn, a deletion last."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import title_trace_id, turn_trace_id, unanswered_trace_id
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.stream.hints import Stream
from tailer.daemon import pipeline
from tailer.events import DeliveryRetried, HintsRead
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, Route, hang
from tests.fakes.langfuse import answer as answer_with
from tests.integration.running import Run, running
from tests.rows import ALICE, answer, question, transaction

TURN, TITLE = turn_trace_id("a1"), title_trace_id("a1")
FOLLOWED: dict[str, Any] = {"deletions": DeletionPolicy.DELETE}
BOTH_STREAMS: dict[str, Any] = {"streams": (Stream.MESSAGES, Stream.CONVERSATIONS)}


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        server.release()
        assert server.violations == []
        assert server.duplicates() == []


async def start_chat(databases: Databases) -> None:
    """A chat whose title was billed on its first answer, and is not stored yet."""
    conversation = {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
    await databases.source["conversations"].insert_one(conversation)
    await databases.source["transactions"].insert_one(transaction(messageId="a1", context="title"))
    await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])


async def store_title(databases: Databases) -> None:
    await databases.source["conversations"].update_one(
        {"conversationId": "c1"}, {"$set": {"title": "Clocks"}}
    )


async def change(databases: Databases, message_id: str, **fields: object) -> None:
    await databases.source["messages"].update_one({"messageId": message_id}, {"$set": fields})


async def delete(databases: Databases, *message_ids: str) -> None:
    await databases.source["messages"].delete_many({"messageId": {"$in": list(message_ids)}})


async def until_refused(run: Run) -> None:
    """Return once Langfuse has refused a batch for the moment."""
    known = len(run.events.of(DeliveryRetried))
    await run.events.until(lambda: len(run.events.of(DeliveryRetried)) > known)


async def until_told(run: Run, count: int, *, deletes: bool = False) -> None:
    """Return once so many changes, or deletions, were read."""

    def told() -> int:
        read = run.events.of(HintsRead)
        return sum(
            hints.deletes if deletes else hints.inserts + hints.updates + hints.replaces for hints in read
        )

    await run.events.until(lambda: told() >= count)


def arrivals(fake: FakeLangfuse) -> list[str]:
    """The traces in the order in which their first spans arrived."""
    return list(dict.fromkeys(stored.trace_id for stored in fake.spans))


async def test_a_title_that_is_stored_beside_its_turn_goes_with_it(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Both are known when the work begins: one request, and the title's own entry is done with the turn's."""
    async with running(databases, fake, **BOTH_STREAMS):
        pass
    await start_chat(databases)
    await store_title(databases)
    async with running(databases, fake, **BOTH_STREAMS) as run:
        await run.until_done()
        outcomes = run.outcomes()

    assert arrivals(fake) == [TURN, TITLE]
    assert fake.requests[Route.SPANS, "200"] == 1
    assert outcomes == ["complete"]


async def test_a_title_that_is_stored_while_its_turn_is_on_its_way_does_not_overtake_it(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The turn was built with the title that it bills already: the stored one is no second title."""
    fake.faults.add(answer_with(500, times=None))
    async with running(databases, fake, **BOTH_STREAMS) as run:
        await start_chat(databases)
        await until_refused(run)
        await store_title(databases)
        await run.events.until(
            lambda: any(
                event.stream is Stream.CONVERSATIONS and event.updates for event in run.events.of(HintsRead)
            )
        )
        await until_refused(run)
        assert fake.trace_ids() == []
        fake.faults.clear()
        await run.until_done()

    assert arrivals(fake) == [TURN, TITLE]


async def test_a_title_whose_bill_comes_late_follows_its_turn(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake, **BOTH_STREAMS) as run:
        conversation = {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
        await databases.source["conversations"].insert_one(conversation)
        await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])
        await run.until_done()
        await databases.source["transactions"].insert_one(transaction(messageId="a1", context="title"))
        await store_title(databases)
        await run.until_done()
        outcomes = run.outcomes()

    assert arrivals(fake) == [TURN, TITLE]
    assert outcomes == ["complete", "title"]


async def test_an_edit_of_an_answer_that_is_on_its_way_comes_after_it(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The trace as it was first, and then the event."""
    fake.faults.add(answer_with(500, times=None))
    async with running(databases, fake) as run:
        await start_chat(databases)
        await until_refused(run)
        await change(databases, "a1", text="edited")
        await until_told(run, 3)
        await until_refused(run)
        fake.faults.clear()
        await run.until_done()
        outcomes = run.outcomes()

    assert [span.name for span in fake.trace(TURN)][-1] == "edit"
    assert [span.name for span in fake.trace(TURN)].count("edit") == 1
    assert fake.unresolved_parents() == []
    assert outcomes == ["complete", "edited"]


async def test_an_edit_of_a_question_whose_answer_is_on_its_way_comes_after_it(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The answer was built with the question as it was: without the event its trace would keep what is no longer
    said."""
    fake.faults.add(answer_with(500, times=None))
    async with running(databases, fake) as run:
        await start_chat(databases)
        await until_refused(run)
        await change(databases, "q1", text="edited")
        await until_told(run, 3)
        await until_refused(run)
        fake.faults.clear()
        await run.until_done()

    (edit,) = [span for span in fake.trace(TURN) if span.name == "edit"]
    assert (edit.output, edit.metadata["edited"]) == ("edited", "question")
    assert fake.unresolved_parents() == []


async def test_edits_of_question_and_answer_come_one_after_the_other(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Each knows the number of the one before: neither takes its place, also while an answer is waited for."""
    async with running(databases, fake) as run:
        await start_chat(databases)
        await run.until_done()
        fake.faults.add(answer_with(500, times=3))
        await change(databases, "a1", text="new answer")
        await change(databases, "q1", text="new question")
        await run.until_done()

    edits = [span for span in fake.trace(TURN) if span.name == "edit"]
    assert {span.output for span in edits} == {"new answer", "new question"}
    assert len({span.span_id for span in edits}) == 2


async def test_a_row_that_is_rated_edited_and_deleted_in_one_breath_leaves_nothing(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The deletion comes last, whatever else is still to be done for the row."""
    async with running(databases, fake, **FOLLOWED) as run:
        await start_chat(databases)
        await run.until_done()
        fake.faults.add(answer_with(503, route=Route.SCORES, times=2), answer_with(500, times=2))
        await change(databases, "a1", text="edited", feedback={"rating": "thumbsUp"})
        await change(databases, "q1", text="edited too")
        await delete(databases, "a1")
        await run.until_done()
        outcomes = run.outcomes()

    assert fake.trace_ids() == []
    # The edit of the question is another row's, and finds no answer.
    assert [outcome for outcome in outcomes if outcome != "not_a_response"][-1] == "deletion_followed"


async def test_a_title_that_is_on_its_way_is_taken_away_with_its_turn(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The turn arrived long ago; the row is deleted while its title waits for an answer."""
    async with running(databases, fake, **FOLLOWED, **BOTH_STREAMS) as run:
        conversation = {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
        await databases.source["conversations"].insert_one(conversation)
        await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])
        await run.until_done()
        fake.faults.add(answer_with(500, times=None))
        await databases.source["transactions"].insert_one(transaction(messageId="a1", context="title"))
        await store_title(databases)
        await until_refused(run)
        await delete(databases, "a1")
        await until_told(run, 1, deletes=True)
        await until_refused(run)
        fake.faults.clear()
        await run.until_done()

    assert fake.trace_ids() == []
    assert sorted(fake.state.spans.deleted_trace_ids) == sorted([TURN, TITLE])


async def test_a_question_without_an_answer_that_is_on_its_way_is_taken_away_too(
    databases: Databases, fake: FakeLangfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is deleted after it was read and before it was acknowledged."""
    monkeypatch.setattr(pipeline, "_SWEEP_SECONDS", 0.05)
    at_once = {"park_after": timedelta(seconds=1), "unanswered_after": timedelta(seconds=1)}
    fake.faults.add(hang(stored=False))
    async with running(databases, fake, **at_once, **FOLLOWED) as run:
        await databases.source["messages"].insert_one(question("q9", None))
        await run.until_held(fake)
        await delete(databases, "q9")
        await until_told(run, 1, deletes=True)
        fake.release()
        await run.until_done()
        outcomes = run.outcomes()

    assert fake.state.spans.deleted_trace_ids == [unanswered_trace_id("q9")]
    assert fake.trace_ids() == []
    assert outcomes[-2:] == ["unanswered", "deletion_followed"]
