"""Whether the keys are accepted: said once, by whatever is refused, and taken back only by what proves it."""

import asyncio

import pytest

from tailer.events import DeliveryPaused, DeliveryResumed
from tailer.flow.sending.destination_health import Channel, DestinationHealth
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    Refused,
    Rejected,
    Retry,
    TooLarge,
    Unknown,
)
from tests.evidence import Events
from tests.memory.clock import monotonic

REFUSED = Refused("http_401")


@pytest.fixture
async def events() -> Events:
    return Events()


@pytest.fixture
async def health(events: Events) -> DestinationHealth:
    return DestinationHealth(events, monotonic=monotonic)


def refuses(health: DestinationHealth) -> bool:
    """What it says at this moment."""
    return health.is_refused


@pytest.mark.parametrize("channel", Channel)
async def test_a_refusal_of_anything_is_said_once_and_so_is_its_end(
    health: DestinationHealth, events: Events, channel: Channel
) -> None:
    """Hundreds of tries in between."""
    for _ in range(300):
        health.note(channel, REFUSED)
        await asyncio.sleep(60)
    assert refuses(health)
    health.note(channel, Delivered())

    assert not refuses(health)
    assert (len(events.of(DeliveryPaused)), len(events.of(DeliveryResumed))) == (1, 1)


@pytest.mark.parametrize("outcome", [Retry("http_503"), Unknown("cut"), TooLarge(), Rejected("http_400")])
async def test_an_answer_that_proves_nothing_of_the_keys_takes_no_refusal_back(
    health: DestinationHealth, events: Events, outcome: DeliveryOutcome
) -> None:
    """The gauge and the alert would flap."""
    health.note(Channel.SPANS, REFUSED)
    health.note(Channel.SPANS, outcome)

    assert refuses(health)
    assert events.of(DeliveryResumed) == []


async def test_scores_that_are_refused_while_spans_are_accepted_are_still_refused(
    health: DestinationHealth, events: Events
) -> None:
    """Keys that may write spans and nothing else: they are tried again within the minute, and refused again."""
    for _ in range(60):
        health.note(Channel.SCORES, REFUSED)
        await asyncio.sleep(30)
        health.note(Channel.SPANS, Delivered())
        assert refuses(health)
        await asyncio.sleep(30)

    assert (len(events.of(DeliveryPaused)), events.of(DeliveryResumed)) == (1, [])


async def test_a_refusal_that_nothing_renews_is_over_once_other_things_are_accepted(
    health: DestinationHealth, events: Events
) -> None:
    """What was refused may be gone: nobody would ever prove it accepted."""
    health.note(Channel.SCORES, REFUSED)
    await asyncio.sleep(3600)
    assert refuses(health)
    health.note(Channel.SPANS, Delivered())

    assert not refuses(health)
    assert len(events.of(DeliveryResumed)) == 1


async def test_it_is_known_when_anything_was_accepted_last(health: DestinationHealth) -> None:
    assert health.accepted_seconds is None
    health.note(Channel.SPANS, Delivered())
    accepted = monotonic()
    await asyncio.sleep(60)
    health.note(Channel.MEDIA, Retry("http_503"))

    assert health.accepted_seconds == pytest.approx(accepted)
