"""What the destination does not take: a refused key is known everywhere, and what is refused alone stops nothing
else."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from bson import ObjectId

from tailer.core.identity import DocumentKey, title_trace_id, turn_trace_id
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.trace.followup import feedback_score_id
from tailer.events import (
    DeliveryPaused,
    DeliveryResumed,
    DeliveryRetried,
    FollowupFailed,
    FollowupRetried,
)
from tailer.flow.sending.destination_health import Channel, DestinationHealth
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    Refused,
    Rejected,
    RequestResult,
    Retry,
    TooLarge,
    Unknown,
)
from tests.evidence import Events
from tests.memory.clock import monotonic
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene, until

UP = {"rating": "thumbsUp"}


def chat(scene: Scene, number: int) -> DocumentKey:
    """A question and its answer; gives the answer's `_id`."""
    own = {"conversationId": f"c{number}"}
    scene.librechat.insert("messages", question(f"q{number}", None, **own))
    (key,) = scene.librechat.insert("messages", answer(f"a{number}", f"q{number}", **own))
    return key


def is_refused(run: Run) -> bool:
    """What `/readyz` and the gauge are set from."""
    run.pipeline.sampler.sample()
    problems = run.pipeline.health.problems(monotonic(), patience_seconds=1e9)
    return any("Langfuse refuses what is sent: check LANGFUSE_PUBLIC_KEY" in problem for problem in problems)


async def test_keys_that_are_revoked_while_thumbs_are_clicked_show_everywhere_and_lose_nothing(
    scene: Scene,
) -> None:
    """No turn is open at first: the score is what hears of it. Turns that come then wait. All arrives once."""
    async with running(scene) as run:
        keys = [chat(scene, number) for number in range(20)]
        await run.until_done()
        scene.destination.refuses_keys = True
        for key in keys:
            scene.librechat.update("messages", key, {"feedback": UP})
        await until(lambda: bool(run.events.of(DeliveryPaused)))
        assert is_refused(run)
        later = [chat(scene, number) for number in range(20, 25)]
        scene.librechat.update("messages", later[0], {"feedback": UP})
        await asyncio.sleep(6 * 3600)
        assert is_refused(run)
        assert len(scene.destination.trace_ids()) == 20

        scene.destination.refuses_keys = False
        await run.until_done()

        assert not is_refused(run)
        assert len(run.events.of(DeliveryPaused)) == len(run.events.of(DeliveryResumed)) == 1
    assert set(scene.destination.trace_ids()) == {turn_trace_id(f"a{number}") for number in range(25)}
    assert scene.destination.duplicates() == []
    scores = [item for said, item in scene.destination.history if said == "score"]
    assert sorted(scores) == sorted(feedback_score_id(turn_trace_id(f"a{number}")) for number in range(21))


async def test_a_server_that_refuses_keys_for_a_night_is_not_flooded(scene: Scene) -> None:
    """A backlog of thumbs is tried with a few requests, less and less often."""
    async with running(scene) as run:
        keys = [chat(scene, number) for number in range(300)]
        await run.until_done()
        scene.destination.refuses_keys = True
        for key in keys:
            scene.librechat.update("messages", key, {"feedback": UP})
        await until(lambda: bool(run.events.of(DeliveryPaused)))
        before = scene.destination.requests
        await asyncio.sleep(3600)

        assert scene.destination.requests - before < 3600 / 30 * 8
        scene.destination.refuses_keys = False
        await run.until_done()
    assert len(scene.destination.scores) == 300


@pytest.mark.parametrize("outcome", [Retry("http_503"), Rejected("http_400"), TooLarge(), Unknown("timeout")])
async def test_scores_that_are_not_taken_stop_no_turn(scene: Scene, outcome: DeliveryOutcome) -> None:
    """One click, and an endpoint of scores that never recovers: the turns of the day flow."""
    async with running(scene) as run:
        key = chat(scene, 1)
        await run.until_done()
        scene.destination.score_answers.extend([outcome] * 50)
        scene.librechat.update("messages", key, {"feedback": UP})
        await until(lambda: len(scene.destination.score_answers) < 50)
        for number in range(2, 6):
            chat(scene, number)
        await asyncio.sleep(30)

        assert len(scene.destination.trace_ids()) == 5
        assert run.events.of(DeliveryRetried) == []
        assert not is_refused(run)


async def test_one_score_that_is_turned_away_again_and_again_stops_no_other_score(scene: Scene) -> None:
    async with running(scene) as run:
        keys = [chat(scene, number) for number in range(30)]
        await run.until_done()
        poison = feedback_score_id(turn_trace_id("a0"))
        scene.destination.rejects_score = lambda score_id: Retry("http_500") if score_id == poison else None
        for key in keys:
            scene.librechat.update("messages", key, {"feedback": UP})
        await asyncio.sleep(60)

        assert len(scene.destination.scores) == 29
        assert {event.operation for event in run.events.of(FollowupRetried)} == {"put_score"}
        scene.destination.rejects_score = None
        await run.until_done()
    assert len(scene.destination.scores) == 30


@pytest.mark.parametrize("outcome", [Retry("http_500"), Refused("http_403")])
async def test_a_score_that_is_refused_while_others_are_accepted_is_given_up_and_holds_no_position(
    scene: Scene, outcome: DeliveryOutcome
) -> None:
    """A firewall takes the words of a rating for an attack."""
    async with running(scene) as run:
        keys = [chat(scene, number) for number in range(3)]
        await run.until_done()
        poison = feedback_score_id(turn_trace_id("a0"))
        scene.destination.rejects_score = lambda score_id: outcome if score_id == poison else None
        scene.librechat.update("messages", keys[0], {"feedback": UP})
        await asyncio.sleep(3600)
        assert run.events.of(FollowupFailed) == []

        scene.librechat.update("messages", keys[1], {"feedback": UP})
        await run.until_done()

        assert [event.operation for event in run.events.of(FollowupFailed)] == ["put_score"]
        scene.destination.rejects_score = None
        scene.librechat.update("messages", keys[0], {"feedback": {"rating": "thumbsDown"}})
        await run.until_done()

        assert not is_refused(run)
    assert set(scene.destination.scores) == {feedback_score_id(turn_trace_id(f"a{each}")) for each in (0, 1)}


async def test_a_score_that_its_limit_holds_up_is_waited_for_whatever_else_is_accepted(scene: Scene) -> None:
    """Its content is not the reason."""
    async with running(scene) as run:
        keys = [chat(scene, number) for number in range(2)]
        await run.until_done()
        slow = feedback_score_id(turn_trace_id("a0"))
        limited = Retry("http_429", result=RequestResult.RATE_LIMITED)
        scene.destination.rejects_score = lambda score_id: limited if score_id == slow else None
        for key in keys:
            scene.librechat.update("messages", key, {"feedback": UP})
        await asyncio.sleep(3600)

        assert run.events.of(FollowupFailed) == []
        scene.destination.rejects_score = None
        await run.until_done()
    assert len(scene.destination.scores) == 2


async def test_a_title_does_not_wait_for_a_score_of_its_turn(scene: Scene) -> None:
    """The turn was sent; that its thumb is turned away is the scores' trouble alone."""
    async with running(scene) as run:
        conversation = {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
        (stored,) = scene.librechat.insert("conversations", conversation)
        key = chat(scene, 1)
        await run.until_done()
        scene.destination.rejects_score = lambda _: Retry("http_500")
        scene.librechat.update("messages", key, {"feedback": UP})
        await until(lambda: bool(run.events.of(FollowupRetried)))
        scene.librechat.insert("transactions", transaction(messageId="a1", context="title"))
        scene.librechat.update("conversations", stored, {"title": "Clocks"})
        await asyncio.sleep(60)

        assert title_trace_id("a1") in scene.destination.trace_ids()
        scene.destination.rejects_score = None
        await run.until_done()


async def test_a_score_that_is_not_valid_is_told_and_given_up(scene: Scene) -> None:
    async with running(scene) as run:
        key = chat(scene, 1)
        await run.until_done()
        scene.destination.score_answers.append(Rejected("http_400"))
        scene.librechat.update("messages", key, {"feedback": UP})
        await run.until_done()

        assert [event.operation for event in run.events.of(FollowupFailed)] == ["put_score"]
        assert run.outcomes() == ["complete", "followed"]


async def test_a_pause_that_the_server_asks_for_is_kept_for_scores_too(scene: Scene) -> None:
    async with running(scene) as run:
        key = chat(scene, 1)
        await run.until_done()
        scene.destination.score_answers.append(Retry("http_429", after_seconds=1800))
        scene.librechat.update("messages", key, {"feedback": UP})
        began = monotonic()
        await run.until_done()

        assert 1800 <= monotonic() - began < 1900
        (retried,) = run.events.of(FollowupRetried)
        assert (retried.reason, retried.attempt, retried.wait_seconds) == ("http_429", 1, 1800)


async def test_a_refused_deletion_pauses_too(scene: Scene) -> None:
    async with running(scene, deletions=DeletionPolicy.DELETE) as run:
        key = chat(scene, 1)
        await run.until_done()
        scene.destination.refuses_keys = True
        scene.librechat.delete("messages", key)
        await until(lambda: bool(run.events.of(DeliveryPaused)))
        assert is_refused(run)
        scene.destination.refuses_keys = False
        await run.until_done()

        assert not is_refused(run)
    assert scene.destination.trace_ids() == []


def health_of(now: Callable[[], float]) -> tuple[DestinationHealth, Events]:
    events = Events()
    return DestinationHealth(events, monotonic=now), events


@pytest.mark.parametrize("outcome", [Retry("http_503"), Rejected("http_400"), TooLarge(), Unknown("timeout")])
async def test_only_an_answer_that_proves_the_keys_ends_the_refusal(outcome: DeliveryOutcome) -> None:
    health, events = health_of(lambda: 0.0)
    health.note(Channel.SPANS, Refused("http_401"))
    health.note(Channel.SPANS, outcome)
    health.note(Channel.SPANS, Refused("http_401"))
    assert (health.is_refused, len(events.of(DeliveryPaused)), events.of(DeliveryResumed)) == (True, 1, [])

    health.note(Channel.SPANS, Delivered())
    assert (health.is_refused, len(events.of(DeliveryResumed))) == (False, 1)


async def test_scores_that_are_refused_alone_are_refused_still_when_spans_are_taken() -> None:
    """Without turning back and forth with every batch; and not for ever, where no score is tried any more."""
    seconds = [0.0]
    health, events = health_of(lambda: seconds[0])
    for _ in range(3):
        health.note(Channel.SCORES, Refused("http_403"))
        health.note(Channel.SPANS, Delivered())
    assert (health.is_refused, len(events.of(DeliveryPaused)), events.of(DeliveryResumed)) == (True, 1, [])

    seconds[0] = timedelta(minutes=4).total_seconds()
    health.note(Channel.SPANS, Delivered())
    assert (health.is_refused, len(events.of(DeliveryResumed))) == (False, 1)
