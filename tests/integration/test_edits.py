"""Texts that are edited in place after their turn was sent: one more event in the trace, once, whatever is repeated."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.policy.policies import ContentChoice
from tailer.events import BatchSettled
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, StoredSpan, hang
from tests.integration.running import Rewind, running
from tests.rows import ALICE, answer, question

TRACE = turn_trace_id("a1")


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        server.release()
        assert server.violations == []
        assert server.duplicates() == []
        assert server.unresolved_parents() == []


def edits(fake: FakeLangfuse, message_id: str = "a1") -> list[StoredSpan]:
    """The edit events of a turn's trace in order of arrival."""
    return [span for span in fake.trace(turn_trace_id(message_id)) if span.name == "edit"]


async def start_chat(databases: Databases) -> None:
    await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])


async def edit(databases: Databases, text: str, message_id: str = "a1") -> None:
    change = {"$set": {"text": text}, "$currentDate": {"updatedAt": True}}
    await databases.source["messages"].update_one({"messageId": message_id}, change)


async def test_an_edited_answer_becomes_an_event_and_a_correction(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The trace itself stays as it was sent; lengths before and after are told."""
    async with running(databases, fake) as run:
        await start_chat(databases)
        await run.until_done()
        sent = list(fake.spans)
        await edit(databases, "Half past noon")
        await run.until_done()
        outcomes = run.outcomes()

    (event,) = edits(fake)
    assert fake.spans == [*sent, event]
    assert event.type == "event"
    assert event.output == "Half past noon"
    assert (
        event.metadata.items()
        >= {
            "edited": "answer",
            "old_characters": str(len(f"text of a1 by {ALICE}")),
            "new_characters": str(len("Half past noon")),
        }.items()
    )
    (root,) = (span for span in sent if span.parent_span_id is None)
    assert event.span.start_nanoseconds == event.span.end_nanoseconds == root.span.end_nanoseconds
    score = fake.score(f"correction-{TRACE}")
    assert score is not None
    assert (score["dataType"], score["value"]) == ("CORRECTION", "Half past noon")
    assert outcomes == ["complete", "edited"]


async def test_each_edit_is_an_event_of_its_own_and_the_last_is_the_correction(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Also one that goes back to what was sent first; a save that changes nothing is none."""
    first = f"text of a1 by {ALICE}"
    async with running(databases, fake) as run:
        await start_chat(databases)
        await run.until_done()
        for text in ("Noon", "Noon", "One", first):
            await edit(databases, text)
            await run.until_done()

    assert [event.output for event in edits(fake)] == ["Noon", "One", first]
    assert len({event.span_id for event in edits(fake)}) == 3
    score = fake.score(f"correction-{TRACE}")
    assert score is not None
    assert score["value"] == first


async def test_an_edited_part_of_an_answer_is_an_edit(databases: Databases, fake: FakeLangfuse) -> None:
    """Answers of agents are stored in parts, and edited there."""
    parts = [{"type": "text", "text": "It is"}, {"type": "text", "text": "noon"}]
    async with running(databases, fake) as run:
        await databases.source["messages"].insert_many(
            [question("q1", None), answer("a1", "q1", text="", content=parts)]
        )
        await run.until_done()
        await databases.source["messages"].update_one(
            {"messageId": "a1"}, {"$set": {"content.1.text": "one"}}
        )
        await run.until_done()

    assert [event.output for event in edits(fake)] == ["It is one"]


async def test_an_edited_question_shows_in_the_traces_of_all_its_answers(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Two answers, of which each trace holds the question; a correction is for answers."""
    async with running(databases, fake) as run:
        await databases.source["messages"].insert_many(
            [question("q1", None), answer("a1", "q1"), answer("a2", "q1"), answer("other", "q0")]
        )
        await run.until_done()
        await edit(databases, "What time is it?", "q1")
        await run.until_done()

    for message_id in ("a1", "a2"):
        (event,) = edits(fake, message_id)
        assert (event.output, event.metadata["edited"]) == ("What time is it?", "question")
    assert edits(fake, "other") == []
    assert fake.scores.posted == []


async def test_question_and_answer_that_are_edited_together_are_two_edits(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """In one round of work: neither takes the other's place."""
    async with running(databases, fake) as run:
        await start_chat(databases)
        await run.until_done()
    await edit(databases, "new answer")
    await edit(databases, "new question", "q1")
    async with running(databases, fake) as run:
        await run.until_done()

    assert {(event.metadata["edited"], event.output) for event in edits(fake)} == {
        ("answer", "new answer"),
        ("question", "new question"),
    }


async def test_an_edit_that_is_told_of_again_is_not_sent_again(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """A restart from an older position: the row is as it was sent last."""
    rewind = Rewind(databases)
    async with running(databases, fake) as run:
        await start_chat(databases)
        await run.until_done()
        await rewind.mark()
        await edit(databases, "Noon")
        await edit(databases, "new question", "q1")
        await run.until_done()
    await rewind.go_back()
    async with running(databases, fake) as run:
        await run.until_done()
        outcomes = run.outcomes()

    assert sorted(event.output for event in edits(fake)) == ["Noon", "new question"]
    assert "edited" not in outcomes
    assert "followed" in outcomes


@pytest.mark.parametrize("taken", [True, False])
async def test_an_edit_in_a_batch_of_an_earlier_run_is_sent_once(
    databases: Databases, fake: FakeLangfuse, *, taken: bool
) -> None:
    """Killed while the answer was out; the hint comes again before the batch is settled, and a second edit with it."""
    async with running(databases, fake) as run:
        await start_chat(databases)
        await run.until_done()
        fake.faults.add(hang(stored=taken))
        await edit(databases, "Noon")
        await run.until_held(fake)
        assert bool(edits(fake)) is taken
    await edit(databases, "One")
    fake.release()
    fake.faults.clear()
    fake.state.visible_after_seconds = 1
    async with running(databases, fake, lookup_time=timedelta(seconds=2)) as run:
        await run.until_done()
        (sent,) = (await run.state.load_sent([TRACE])).values()
        verdicts = [event.verdict for event in run.events.of(BatchSettled)]

    assert [event.output for event in edits(fake)] == ["Noon", "One"]
    assert sent.edits == 2
    assert verdicts == ["found" if taken else "sent_again"]


async def test_an_edit_shows_no_more_than_its_turn(databases: Databases, fake: FakeLangfuse) -> None:
    """Where content is withheld, only the lengths are told, and nothing is corrected."""
    async with running(databases, fake, content=ContentChoice.NONE) as run:
        await start_chat(databases)
        await run.until_done()
        await edit(databases, "secret")
        await run.until_done()

    (event,) = edits(fake)
    assert event.output is None
    assert event.metadata["new_characters"] == "6"
    assert fake.scores.posted == []


async def test_edits_are_left_alone_where_that_is_switched_off(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Neither event nor correction, also beside feedback that is followed."""
    async with running(databases, fake, edits=False) as run:
        await start_chat(databases)
        await run.until_done()
        change = {"$set": {"text": "Noon", "feedback": {"rating": "thumbsUp"}}}
        await databases.source["messages"].update_one({"messageId": "a1"}, change)
        await run.until_done()

    assert edits(fake) == []
    assert [score["name"] for score in fake.scores.posted] == ["user-feedback"]
