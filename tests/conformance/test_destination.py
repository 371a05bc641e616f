"""A destination: what it takes, what it refuses and why, what can be found again, and what is said of a trace later."""

from dataclasses import replace

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.librechat.attached_files import AttachedFile
from tailer.core.trace.followup import Score, ScoreType
from tailer.flow.records import Probe
from tailer.flow.sending.outcomes import (
    Delivered,
    Found,
    Refused,
    Rejected,
    Retry,
    TooLarge,
    Unanswered,
    Unknown,
    Unreadable,
)
from tests.conformance.destinations import PICTURE, DestinationWorld
from tests.evidence import make_trace, observation_ids, probes, trace_ids

SCORE = Score(
    id="feedback-1",
    trace_id=turn_trace_id("m1"),
    name="user-feedback",
    type=ScoreType.BOOLEAN,
    value=1,
    comment="accurate",
    metadata={"message_id": "m1"},
    timestamp_milliseconds=1_760_000_000_000,
)


def payload_of(destination: DestinationWorld, *message_ids: str) -> bytes:
    sink = destination.sink
    return sink.frame([sink.encode(make_trace(message_id)) for message_id in message_ids])


async def test_what_was_delivered_is_held_and_found_and_nothing_else(destination: DestinationWorld) -> None:
    """By trace and observation; an observation is not looked for in another trace."""
    assert await destination.sink.deliver(payload_of(destination, "m1", "m2")) == Delivered()

    assert destination.trace_ids() == trace_ids("m1", "m2")
    assert await destination.sink.find(probes("m2", "m3")) == Found(frozenset(observation_ids("m2")))
    (other,) = [Probe(turn_trace_id("m1"), probe.observation_id) for probe in probes("m2")]
    assert await destination.sink.find([other]) == Found(frozenset())
    assert await destination.sink.find([]) == Found(frozenset())


async def test_a_payload_is_always_the_same_and_comes_apart_again(destination: DestinationWorld) -> None:
    """What is written down before it is sent is what a retry sends, and its halves are made of the same chunks."""
    sink = destination.sink
    chunks = [sink.encode(make_trace(f"m{number}", text="x" * number)) for number in range(9)]

    assert sink.frame(chunks) == sink.frame(list(chunks))
    assert list(sink.unframe(sink.frame(chunks), [len(chunk) for chunk in chunks])) == chunks
    assert sink.encode(make_trace("m1")) == sink.encode(make_trace("m1"))
    assert await sink.deliver(sink.frame(chunks[4:])) == Delivered()
    assert destination.trace_ids() == trace_ids(*(f"m{number}" for number in range(4, 9)))


async def test_one_turn_that_is_not_valid_has_its_whole_request_rejected(
    destination: DestinationWorld,
) -> None:
    """Nothing of it is taken, and the others of it are taken without the bad one."""
    destination.reject("m2")

    assert await destination.sink.deliver(payload_of(destination, "m1", "m2", "m3")) == Rejected("http_400")
    assert destination.trace_ids() == []
    assert await destination.sink.deliver(payload_of(destination, "m1", "m3")) == Delivered()


async def test_a_request_beyond_the_limit_is_too_large_and_a_part_of_it_is_not(
    destination: DestinationWorld,
) -> None:
    """Nothing of it is taken."""
    whole = payload_of(destination, *(f"m{number}" for number in range(20)))
    destination.limit(len(whole) - 1)

    assert await destination.sink.deliver(whole) == TooLarge()
    assert destination.trace_ids() == []
    assert await destination.sink.deliver(payload_of(destination, "m0")) == Delivered()


async def test_keys_that_are_not_accepted_are_refused_everywhere(destination: DestinationWorld) -> None:
    """Nothing is taken, nothing can be read."""
    destination.refuse_keys()

    assert await destination.sink.deliver(payload_of(destination, "m1")) == Refused("http_401")
    assert isinstance(await destination.sink.find(probes("m1")), Unreadable)
    assert await destination.followups.put_score(SCORE) == Refused("http_401")
    assert await destination.followups.delete_score(SCORE.id) == Refused("http_401")
    assert await destination.followups.delete_traces(trace_ids("m1")) == Refused("http_401")
    assert destination.trace_ids() == []


async def test_a_destination_that_is_away_takes_nothing_and_cannot_be_asked(
    destination: DestinationWorld,
) -> None:
    """That is certain: it may be sent again without a look."""
    await destination.go_away()

    assert await destination.sink.deliver(payload_of(destination, "m1")) == Retry("connection")
    assert isinstance(await destination.sink.find(probes("m1")), Unanswered)
    assert isinstance(await destination.followups.put_score(SCORE), Retry)
    assert isinstance(await destination.followups.delete_traces(trace_ids("m1")), Retry)


@pytest.mark.parametrize("taken", [True, False])
async def test_an_answer_that_was_lost_leaves_open_whether_the_request_was_taken(
    destination: DestinationWorld, *, taken: bool
) -> None:
    """A look tells."""
    destination.lose_answer(taken=taken)

    assert isinstance(await destination.sink.deliver(payload_of(destination, "m1")), Unknown)
    found = await destination.sink.find(probes("m1"))
    assert found == Found(frozenset(observation_ids("m1") if taken else ()))
    assert await destination.sink.deliver(payload_of(destination, "m2")) == Delivered()


async def test_a_score_overwrites_the_one_before_and_goes_when_it_is_deleted(
    destination: DestinationWorld,
) -> None:
    """Each of these may be repeated."""
    for value in (1, 1, 0):
        assert await destination.followups.put_score(replace(SCORE, value=value)) == Delivered()
        assert destination.score(SCORE.id) == value
    for _ in range(2):
        assert await destination.followups.delete_score(SCORE.id) == Delivered()
        assert destination.score(SCORE.id) is None


async def test_traces_are_deleted_with_all_they_hold_and_only_those(destination: DestinationWorld) -> None:
    """One that is not there is no error."""
    await destination.sink.deliver(payload_of(destination, "m1", "m2", "m3"))

    for _ in range(2):
        assert await destination.followups.delete_traces(trace_ids("m1", "m3", "gone")) == Delivered()

    assert destination.trace_ids() == trace_ids("m2")
    assert await destination.sink.find(probes("m1", "m2")) == Found(frozenset(observation_ids("m2")))


def picture(path: str | None) -> AttachedFile:
    return AttachedFile("file-1", "cat.png", "image/png", None, path)


async def test_files_are_published_under_references_and_those_that_are_missing_are_left_out(
    destination: DestinationWorld,
) -> None:
    """The same file has the same reference every time."""
    (trace_id,), (root_id,) = trace_ids("m1"), observation_ids("m1")
    files = [picture(None), picture(PICTURE)]

    first = await destination.media.publish(trace_id, root_id, files)
    again = await destination.media.publish(trace_id, root_id, files[1:])

    assert isinstance(first, tuple)
    assert len(first) == 1
    assert again == first
    assert await destination.media.publish(trace_id, root_id, files[:1]) == ()
    assert await destination.media.publish(trace_id, root_id, []) == ()


async def test_files_wait_for_keys_that_are_refused_and_for_a_destination_that_is_away(
    destination: DestinationWorld,
) -> None:
    """None of them is left out for that."""
    (trace_id,), (root_id,) = trace_ids("m1"), observation_ids("m1")
    destination.refuse_keys()
    assert isinstance(await destination.media.publish(trace_id, root_id, [picture(PICTURE)]), Refused)
    await destination.go_away()
    assert isinstance(await destination.media.publish(trace_id, root_id, [picture(PICTURE)]), Retry)
