"""One batch on its way over hours: how long is waited, what is repeated, what is looked up, and the bytes of it all."""

import asyncio

import pytest

from tailer.events import (
    BatchSettled,
    DeliveryPaused,
    DeliveryResumed,
    DeliveryRetried,
    RequestDone,
    TracesMayRepeat,
)
from tailer.flow.records import Batch
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Rejected, Retry, TooLarge, Unknown
from tests.evidence import make_item, make_trace
from tests.memory import Answer
from tests.memory.clock import monotonic
from tests.unit.flow.scene import LOOKUP_SECONDS, Scene, until, working


def make_batch(scene: Scene, *message_ids: str) -> Batch:
    traces = [make_trace(message_id) for message_id in message_ids]
    chunks = [scene.sink.encode(trace) for trace in traces]
    items = [make_item(trace, chunk) for trace, chunk in zip(traces, chunks, strict=True)]
    return Batch("batch", tuple(items), scene.sink.frame(chunks))


async def test_a_destination_that_is_away_for_a_night_gets_the_same_bytes_in_the_morning(
    scene: Scene,
) -> None:
    """At ever longer intervals, of about a minute at the most; and once it is back, within such an interval."""
    batch = make_batch(scene, "m1", "m2")
    scene.destination.is_away = True
    async with working(scene.transmission.send(batch)) as (sending,):
        await asyncio.sleep(8 * 3600)
        scene.destination.is_away, back = False, monotonic()
        assert await sending == Delivered()

    waits = [event.wait_seconds for event in scene.events.of(DeliveryRetried)]
    assert max(waits) <= 60.3
    assert waits[0] < waits[3] < waits[6]
    assert 480 <= len(waits) <= 600
    assert monotonic() - back <= 61
    assert set(scene.destination.payloads) == {batch.payload}
    assert scene.destination.duplicates() == []


async def test_a_pause_that_the_destination_asks_for_is_kept(scene: Scene) -> None:
    """To the second."""
    scene.destination.answers.append(Answer(Retry("http_429", 300.0)))
    began = monotonic()

    assert await scene.transmission.send(make_batch(scene, "m1")) == Delivered()

    assert monotonic() - began == pytest.approx(300, abs=0.1)


async def test_a_pause_of_nothing_does_not_make_a_flood(scene: Scene) -> None:
    """A gateway that says zero, or a date that is over: the own pauses grow all the same."""
    scene.destination.answers.extend([Answer(Retry("http_429", 0.0))] * 6)

    assert await scene.transmission.send(make_batch(scene, "m1")) == Delivered()

    pauses = [event.wait_seconds for event in scene.events.of(DeliveryRetried)]
    assert pauses[0] >= 0.2
    assert pauses[5] >= 0.2 * 2**5


@pytest.mark.parametrize("outcome", [TooLarge(), Rejected("http_400")])
async def test_what_the_same_bytes_cannot_change_is_given_back_at_once(
    scene: Scene, outcome: DeliveryOutcome
) -> None:
    began = monotonic()
    scene.destination.answers.append(Answer(outcome))

    assert await scene.transmission.send(make_batch(scene, "m1")) == outcome

    assert monotonic() - began < 0.01
    assert len(scene.destination.payloads) == 1


async def test_a_batch_whose_answer_was_lost_is_not_sent_again_once_it_shows(scene: Scene) -> None:
    """Langfuse shows what it took only after a while: here just within the time that it is looked for."""
    scene.destination.answers.append(Answer(Unknown("ReadTimeout"), taken=True))
    scene.destination.visible_after_seconds = LOOKUP_SECONDS - 1

    assert await scene.transmission.send(make_batch(scene, "m1")) == Delivered()

    assert [event.verdict for event in scene.events.of(BatchSettled)] == ["found"]
    assert len(scene.destination.payloads) == 1


async def test_a_batch_that_was_not_taken_is_sent_again_after_the_time_that_it_is_looked_for(
    scene: Scene,
) -> None:
    """No sooner: it could still show."""
    scene.destination.answers.append(Answer(Unknown("ReadTimeout")))
    began = monotonic()

    assert await scene.transmission.send(make_batch(scene, "m1")) == Delivered()

    assert [event.verdict for event in scene.events.of(BatchSettled)] == ["sent_again"]
    assert LOOKUP_SECONDS <= monotonic() - began <= LOOKUP_SECONDS + 2
    assert len(set(scene.destination.payloads)) == 1
    assert scene.destination.duplicates() == []


async def test_only_the_time_in_which_the_destination_answers_counts_as_looking(scene: Scene) -> None:
    """Away for an hour right after it took the batch, and slow to show it when it is back."""
    batch = make_batch(scene, "m1")
    scene.destination.answers.append(Answer(Unknown("ReadTimeout"), taken=True))
    scene.destination.visible_after_seconds = 3600 + LOOKUP_SECONDS / 2
    async with working(scene.transmission.send(batch)) as (sending,):
        await until(lambda: bool(scene.destination.payloads))
        scene.destination.is_away = True
        await asyncio.sleep(3600)
        scene.destination.is_away = False
        assert await sending == Delivered()

    assert [event.verdict for event in scene.events.of(BatchSettled)] == ["found"]
    assert scene.destination.payloads == [batch.payload]


async def test_a_destination_that_cannot_be_read_is_not_waited_for(scene: Scene) -> None:
    """At least once, and that is counted."""
    scene.destination.answers.append(Answer(Unknown("ReadTimeout"), taken=True))
    scene.destination.is_unreadable = True
    async with asyncio.timeout(5):
        assert await scene.transmission.send(make_batch(scene, "m1")) == Delivered()

    assert [event.verdict for event in scene.events.of(BatchSettled)] == ["sent_again_unread"]
    assert len(scene.destination.duplicates()) == 1


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("is_left", [True, False], ids=["left by an earlier run", "lost just now"])
async def test_keys_that_are_refused_when_an_answer_was_lost_are_waited_for_and_the_batch_is_looked_for_then(
    scene: Scene, *, is_left: bool, is_taken: bool
) -> None:
    """While they are refused nothing can be read and nothing is taken, so there is no hurry to send it unread."""
    batch = make_batch(scene, "m1")
    scene.destination.answers.append(Answer(Unknown("ReadTimeout"), taken=is_taken))
    scene.destination.visible_after_seconds = 2
    if is_left:
        await scene.sink.deliver(batch.payload)
    async with working(scene.transmission.send(batch, maybe_sent=is_left)) as (sending,):
        await until(lambda: bool(scene.destination.payloads))
        scene.destination.refuses_keys = True
        await asyncio.sleep(3600)
        scene.destination.refuses_keys = False
        assert await sending == Delivered()

    assert [event.verdict for event in scene.events.of(BatchSettled)] == [
        "found" if is_taken else "sent_again"
    ]
    assert scene.events.of(TracesMayRepeat) == []
    assert scene.destination.duplicates() == []
    assert (len(scene.events.of(DeliveryPaused)), len(scene.events.of(DeliveryResumed))) == (1, 1)


async def test_a_destination_that_is_away_and_cannot_be_read_gets_the_batch_when_it_is_back(
    scene: Scene,
) -> None:
    """Its reads are refused all the time, so the batch is sent unread, once."""
    scene.destination.answers.extend([Answer(Unknown("cut"), taken=True), Answer(Retry("http_503"))])
    scene.destination.is_unreadable = True

    assert await scene.transmission.send(make_batch(scene, "m1")) == Delivered()

    assert len(scene.destination.payloads) == 3
    assert [event.verdict for event in scene.events.of(BatchSettled)] == ["sent_again_unread"]
    assert [event.traces for event in scene.events.of(TracesMayRepeat)] == [1]
    assert len(scene.events.of(DeliveryRetried)) == 1


async def test_a_batch_of_an_earlier_run_is_looked_for_before_it_is_sent(scene: Scene) -> None:
    """It was taken, and it was not."""
    taken, left = make_batch(scene, "m1"), make_batch(scene, "m2")
    assert await scene.sink.deliver(taken.payload) == Delivered()

    for batch in (taken, left):
        assert await scene.transmission.send(batch, maybe_sent=True) == Delivered()

    assert [event.verdict for event in scene.events.of(BatchSettled)] == ["found", "sent_again"]
    assert scene.destination.duplicates() == []


async def test_keys_that_are_refused_for_days_pause_the_sending_once_and_resume_it_once(
    scene: Scene,
) -> None:
    batch = make_batch(scene, "m1")
    scene.destination.refuses_keys = True
    async with working(scene.transmission.send(batch)) as (sending,):
        await asyncio.sleep(3 * 24 * 3600)
        scene.destination.refuses_keys = False
        assert await sending == Delivered()

    assert (len(scene.events.of(DeliveryPaused)), len(scene.events.of(DeliveryResumed))) == (1, 1)
    results = [event.result for event in scene.events.of(RequestDone)]
    assert set(results[:-1]) == {"auth"}
    assert results[-1] == "ok"
    assert scene.destination.duplicates() == []


async def test_whatever_a_night_brings_the_batch_is_there_once(scene: Scene) -> None:
    """One failure after another, in one sending."""
    scene.destination.answers.extend(
        [
            Answer(Retry("http_500")),
            Answer(Unknown("cut")),
            Answer(Retry("http_429", 60.0)),
            Answer(Unknown("hang")),
            Answer(Retry("http_503")),
        ]
    )

    assert await scene.transmission.send(make_batch(scene, "m1", "m2")) == Delivered()

    assert len(scene.destination.payloads) == 6
    assert len(set(scene.destination.payloads)) == 1
    assert scene.destination.duplicates() == []


async def test_a_request_of_which_some_spans_were_refused_is_counted_apart(scene: Scene) -> None:
    scene.destination.answers.append(Answer(Delivered(rejected_spans=1)))

    await scene.transmission.send(make_batch(scene, "m1", "m2"))

    assert [event.result for event in scene.events.of(RequestDone)] == ["partial"]
