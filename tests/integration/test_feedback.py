"""Feedback from the thumb in LibreChat to the score in Langfuse, whenever it is given, changed or taken back."""

from tailer.core.identity import turn_trace_id
from tailer.core.trace.followup import feedback_score_id
from tailer.events import DeliveryPaused, DeliveryResumed, DeliveryRetried, FollowupRetried
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, Route, bad_span
from tests.fakes.langfuse import answer as answer_with
from tests.integration.running import running
from tests.rows import answer, question

UP = {"rating": "thumbsUp", "tag": {"key": "accurate_reliable"}, "text": "just so"}
DOWN = {"rating": "thumbsDown", "tag": "inaccurate"}
SCORE = feedback_score_id(turn_trace_id("a1"))


async def rate(databases: Databases, feedback: object, message_id: str = "a1") -> None:
    """What LibreChat writes for a thumb; None takes it back."""
    change = {"$unset": {"feedback": 1}} if feedback is None else {"$set": {"feedback": feedback}}
    await databases.source["messages"].update_one({"messageId": message_id}, change)


async def test_feedback_given_before_the_turn_was_sent_follows_its_trace(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The row is stored with it: one trace, and then one score of it."""
    async with running(databases, fake) as run:
        await databases.source["messages"].insert_many(
            [question("q1", None), answer("a1", "q1", feedback=UP)]
        )
        await run.until_done()
        outcomes = run.outcomes()

    assert fake.trace_ids() == [turn_trace_id("a1")]
    score = fake.score(SCORE)
    assert score is not None
    assert score["subject"] == {"kind": "trace", "id": turn_trace_id("a1")}
    assert (score["name"], score["value"], score["dataType"]) == ("user-feedback", True, "BOOLEAN")
    assert score["comment"] == "accurate_reliable — just so"
    assert len(fake.scores.posted) == 1
    assert outcomes == ["complete", "followed"]


async def test_feedback_that_is_given_while_the_turn_is_on_its_way_follows_it(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The trace is refused for a moment; the thumb comes meanwhile."""
    fake.faults.add(answer_with(500, times=2))
    async with running(databases, fake) as run:
        await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])
        await run.events.until(lambda: bool(run.events.of(DeliveryRetried)))
        await rate(databases, DOWN)
        await run.until_done()

    assert len(fake.scores.posted) == 1
    assert fake.scores.posted[0]["value"] is False
    assert len(fake.spans) == len(fake.trace(turn_trace_id("a1")))


async def test_feedback_is_overwritten_and_taken_back(databases: Databases, fake: FakeLangfuse) -> None:
    """One score at a time, under one id; what was said last counts."""
    seen = []
    async with running(databases, fake) as run:
        await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])
        await run.until_done()
        for feedback in (UP, DOWN, None, DOWN):
            await rate(databases, feedback)
            await run.until_done()
            seen.append([(row["value"], row["comment"]) for row in fake.scores.current.values()])

    assert seen == [
        [(True, "accurate_reliable — just so")],
        [(False, "inaccurate")],
        [],
        [(False, "inaccurate")],
    ]
    assert fake.scores.deleted_ids == [SCORE]


async def test_what_was_said_is_remembered_over_restarts(databases: Databases, fake: FakeLangfuse) -> None:
    """Taken back and given again while nobody read: the score is as it was, and nothing is sent."""
    async with running(databases, fake) as run:
        await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])
        await run.until_done()
        await rate(databases, UP)
        await run.until_done()
    await rate(databases, None)
    await rate(databases, UP)
    async with running(databases, fake) as run:
        await run.until_done()
        assert run.outcomes() == ["followed"]
    assert len(fake.scores.posted) == 1
    assert fake.scores.deleted_ids == []

    await rate(databases, None)
    async with running(databases, fake) as run:
        await run.until_done()
    assert fake.score(SCORE) is None


async def test_a_score_that_is_not_taken_is_repeated_until_it_is(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """And remembered only then; refused keys are told as such, once, and no batch of traces is said to be repeated."""
    fake.faults.add(answer_with(503, route=Route.SCORES, times=2), answer_with(401, route=Route.SCORES))
    async with running(databases, fake) as run:
        await databases.source["messages"].insert_many(
            [question("q1", None), answer("a1", "q1", feedback=UP)]
        )
        await run.until_done()
        retried = [(event.operation, event.reason) for event in run.events.of(FollowupRetried)]
        paused, resumed = run.events.of(DeliveryPaused), run.events.of(DeliveryResumed)
        assert run.events.of(DeliveryRetried) == []
        (sent,) = (await run.state.load_sent([turn_trace_id("a1")])).values()

    assert retried == [("put_score", "http_503"), ("put_score", "http_503")]
    assert ([event.reason for event in paused], len(resumed)) == (["http_401"], 1)
    assert len(fake.scores.posted) == 1
    assert sent.feedback is not None


async def test_a_rated_turn_that_is_refused_for_good_is_buried_once(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Without a trace there is nothing to rate: it is not tried again and again."""
    fake.faults.add(bad_span("text of q1"))
    async with running(databases, fake) as run:
        await databases.source["messages"].insert_many(
            [question("q1", None), answer("a1", "q1", feedback=UP)]
        )
        await run.until_done()
        (letter,) = await databases.state["dead_letters"].find().to_list(None)

    assert letter["tries"] == 1
    assert fake.scores.posted == []


async def test_feedback_is_left_alone_where_it_is_switched_off(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Before the trace and after it."""
    async with running(databases, fake, feedback=False) as run:
        await databases.source["messages"].insert_many(
            [question("q1", None), answer("a1", "q1", feedback=UP)]
        )
        await run.until_done()
        await rate(databases, DOWN)
        await run.until_done()

    assert fake.trace_ids() == [turn_trace_id("a1")]
    assert fake.scores.posted == []
