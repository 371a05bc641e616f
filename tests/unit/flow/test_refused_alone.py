"""A turn that the destination never takes while it takes all others: a firewall, or a server that this turn breaks."""

import asyncio
import itertools

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.stream.hints import Interest
from tailer.events import TraceRejected
from tailer.flow.sending.delivery import Delivery
from tailer.flow.sending.ordeal import TRIES
from tailer.flow.sending.outcomes import DeliveryOutcome, Refused, RequestResult, Retry, Unknown
from tests.evidence import trace_ids
from tests.memory import MemoryDestination
from tests.memory.clock import monotonic
from tests.unit.flow.scene import Scene, until, working

IDS = [f"m{number:03}" for number in range(4 * (TRIES + 4))]
POISON = "m009"


def spoil(destination: MemoryDestination, answer: DeliveryOutcome) -> None:
    destination.spoils = lambda message_id: answer if message_id == POISON else None


async def send_all(scene: Scene, *, seconds: float) -> None:
    """Let four senders work on batches of four turns, and on one more turn a minute, until all of them are settled."""
    delivery = scene.make_delivery(traces=4)
    outgoing = scene.open_turns(*IDS)
    async with working(*(delivery.work() for _ in range(4)), go_on(scene, delivery)):
        await delivery.hand_over(outgoing)
        async with asyncio.timeout(seconds):
            await until(lambda: settled(scene) == set(IDS), seconds=seconds + 1)


def settled(scene: Scene) -> set[str]:
    """The turns that are recorded as sent, or are dead letters."""
    done = scene.database.exports.keys() | scene.database.letters.keys()
    return {each for each in IDS if turn_trace_id(each) in done}


def arrived(scene: Scene) -> list[str]:
    """The turns that the destination has, without those that came later."""
    return [each for each in scene.destination.trace_ids() if each in trace_ids(*IDS)]


async def go_on(scene: Scene, delivery: Delivery) -> None:
    for number in itertools.count():
        await asyncio.sleep(60)
        await delivery.hand_over(scene.open_turns(f"later{number}"))


@pytest.mark.parametrize(
    "answer",
    [
        Retry("http_500", result=RequestResult.SERVER_ERROR),
        Retry("page"),
        Refused("http_403"),
        Unknown("connection"),
    ],
    ids=["breaks the server", "is answered with a page", "is turned away", "has the connection cut"],
)
async def test_a_turn_that_is_refused_alone_becomes_a_dead_letter_and_holds_up_nothing(
    scene: Scene, answer: DeliveryOutcome
) -> None:
    """Its batch is divided until it stands alone; what was in it with the turn arrives, once."""
    spoil(scene.destination, answer)

    await send_all(scene, seconds=2 * 3600)

    others = trace_ids(*(each for each in IDS if each != POISON))
    assert sorted(arrived(scene)) == sorted(others)
    assert scene.destination.duplicates() == []
    (rejected,) = scene.events.of(TraceRejected)
    assert rejected.message_id == POISON
    assert rejected.reason.endswith("while others are accepted")
    assert list(scene.database.letters) == trace_ids(POISON)


async def test_it_is_not_given_up_in_a_moment(scene: Scene) -> None:
    """An error that passes within minutes costs nothing."""
    spoil(scene.destination, Retry("http_500", result=RequestResult.SERVER_ERROR))
    healed = asyncio.get_running_loop().call_later(240, lambda: setattr(scene.destination, "spoils", None))

    await send_all(scene, seconds=600)

    healed.cancel()
    assert sorted(arrived(scene)) == sorted(trace_ids(*IDS))
    assert scene.events.of(TraceRejected) == []


@pytest.mark.parametrize("result", [RequestResult.RATE_LIMITED, RequestResult.CONNECTION])
async def test_what_no_content_is_the_reason_of_is_waited_for(scene: Scene, result: RequestResult) -> None:
    """Limits, and connections that cannot be opened: for hours, whatever else is accepted."""
    spoil(scene.destination, Retry("http_429", result=result))
    began = monotonic()

    with pytest.raises(TimeoutError):
        await send_all(scene, seconds=6 * 3600)

    assert monotonic() - began >= 6 * 3600
    assert scene.events.of(TraceRejected) == []


async def test_nothing_is_given_up_while_too_few_others_are_accepted(scene: Scene) -> None:
    """One batch alone proves nothing: the destination may refuse everything by now."""
    spoil(scene.destination, Refused("http_403"))
    delivery = scene.make_delivery(traces=4)
    outgoing = scene.open_turns(*IDS[: 4 * TRIES])
    async with working(*(delivery.work() for _ in range(4))):
        await delivery.hand_over(outgoing)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6 * 3600):
                await scene.backlog.wait_until_empty(except_for=Interest.QUESTION)

    assert len(scene.destination.trace_ids()) == 4 * (TRIES - 1)
    assert scene.events.of(TraceRejected) == []
