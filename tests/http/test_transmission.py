"""One batch against a Langfuse that fails: repeated, looked up, or given back, and every retry the same bytes."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tailer.events import (
    BatchSettled,
    DeliveryPaused,
    DeliveryResumed,
    DeliveryRetried,
    DeliveryUnknown,
    RequestDone,
    TracesMayRepeat,
)
from tailer.flow.records import Batch
from tailer.flow.sending.destination_health import DestinationHealth
from tailer.flow.sending.outcomes import Delivered, Rejected, TooLarge
from tailer.flow.sending.transmission import Transmission
from tailer.langfuse.spans import LangfuseSpans
from tests.evidence import Events, make_item, make_trace, trace_ids
from tests.fakes.langfuse import FakeLangfuse, Fault, Route, answer, cut, hang, html_page, reset
from tests.http.wire import LOOKUP_SECONDS, Wire, spans_to

MESSAGES = ("m1", "m2", "m3")
ENVOY = "upstream connect error or disconnect/reset before headers. reset reason: connection termination"


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        server.release()
        assert server.violations == []


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def sink(fake: FakeLangfuse, wire: Wire) -> AsyncIterator[LangfuseSpans]:
    async with spans_to(fake, wire) as spans:
        yield spans


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def health(events: Events) -> DestinationHealth:
    return DestinationHealth(events, monotonic=time.monotonic)


@pytest.fixture
def transmission(sink: LangfuseSpans, health: DestinationHealth, events: Events) -> Transmission:
    return Transmission(
        sink, health, events, lookup=timedelta(seconds=LOOKUP_SECONDS), monotonic=time.monotonic
    )


@pytest.fixture
def batch(sink: LangfuseSpans) -> Batch:
    traces = [make_trace(message_id) for message_id in MESSAGES]
    chunks = [sink.encode(trace) for trace in traces]
    items = [make_item(trace, chunk) for trace, chunk in zip(traces, chunks, strict=True)]
    return Batch(uuid.uuid4().hex, tuple(items), sink.frame(chunks))


def arrived_once(fake: FakeLangfuse) -> bool:
    return fake.trace_ids() == trace_ids(*MESSAGES) and fake.duplicates() == []


async def test_a_pause_that_the_server_asks_for_is_kept(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, events: Events
) -> None:
    """429 with Retry-After: not earlier, by the server's own record of what arrived when, and not much later."""
    fake.faults.add(answer(429, retry_after="2"))
    assert await transmission.send(batch) == Delivered()

    waited = fake.spans[0].received_at - wire.post_times[0]
    assert 2 <= waited < 4
    (retried,) = events.of(DeliveryRetried)
    assert (retried.reason, retried.wait_seconds) == ("http_429", 2.0)
    assert arrived_once(fake)


@pytest.mark.parametrize(("status", "result"), [(429, "rate_limited"), (500, "server_error"), (408, "retry")])
async def test_what_was_not_taken_is_sent_until_it_is(
    transmission: Transmission,
    batch: Batch,
    fake: FakeLangfuse,
    wire: Wire,
    events: Events,
    status: int,
    result: str,
) -> None:
    """The server's own trouble: the same bytes, with growing pauses."""
    fake.faults.add(answer(status, times=3))
    assert await transmission.send(batch) == Delivered()

    assert wire.posts == [batch.payload] * 4
    pauses = [event.wait_seconds for event in events.of(DeliveryRetried)]
    assert [event.attempt for event in events.of(DeliveryRetried)] == [1, 2, 3]
    assert pauses[2] > pauses[0]
    assert [event.result for event in events.of(RequestDone)] == [result, result, result, "ok"]
    assert arrived_once(fake)


async def test_a_page_is_no_acknowledgement(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, events: Events
) -> None:
    """200 with a web page comes from a login or a proxy: nothing was taken."""
    fake.faults.add(html_page(200))
    assert await transmission.send(batch) == Delivered()

    assert "LANGFUSE_HOST" in events.of(DeliveryRetried)[0].reason
    assert arrived_once(fake)


@pytest.mark.parametrize("status", [400, 421, 431])
async def test_a_gateway_that_refuses_in_its_own_words_keeps_everything(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, events: Events, status: int
) -> None:
    """nginx says 400 with a page where the certificate that is shown has expired."""
    fake.faults.add(html_page(status, times=2))
    assert await transmission.send(batch) == Delivered()

    assert wire.posts == [batch.payload] * 3
    assert "TAILER_LANGFUSE_CERT_FILE" in events.of(DeliveryPaused)[0].hint
    assert arrived_once(fake)


async def test_a_read_that_is_too_much_for_langfuse_does_not_double_a_batch(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, events: Events
) -> None:
    """422 to a read: ClickHouse is overloaded, and the search goes on."""
    fake.faults.add(answer(504, stored=True), answer(422, route=Route.OBSERVATIONS, times=2))
    assert await transmission.send(batch) == Delivered()

    assert wire.posts == [batch.payload]
    assert [event.verdict for event in events.of(BatchSettled)] == ["found"]
    assert arrived_once(fake)


async def test_refused_keys_pause_the_sending_until_they_are_accepted(
    transmission: Transmission,
    health: DestinationHealth,
    batch: Batch,
    fake: FakeLangfuse,
    wire: Wire,
    events: Events,
) -> None:
    """401: said once, and once again when it is over. Nothing is dropped."""
    fake.faults.add(answer(401, times=3))
    sending = asyncio.create_task(transmission.send(batch))
    await events.until(lambda: bool(events.of(DeliveryPaused)))
    refused = [health.is_refused]
    assert "LANGFUSE_SECRET_KEY" in events.of(DeliveryPaused)[0].hint

    assert await sending == Delivered()

    refused.append(health.is_refused)
    assert refused == [True, False]
    assert (len(events.of(DeliveryPaused)), len(events.of(DeliveryResumed))) == (1, 1)
    assert wire.posts == [batch.payload] * 4
    assert arrived_once(fake)


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, Rejected("http_400")), (422, Rejected("http_422")), (413, TooLarge())]
)
async def test_what_the_same_bytes_cannot_change_is_given_back(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, status: int, outcome: object
) -> None:
    """Sent once; halving it is somebody else's work."""
    fake.faults.add(answer(status))

    assert await transmission.send(batch) == outcome
    assert len(wire.posts) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (hang(stored=False), "ReadTimeout"),
        (cut(stored=False), "RemoteProtocolError"),
        (reset(stored=False), "ReadError"),
        (answer(502), "http_502"),
        (answer(504), "http_504"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_unknown_outcome_that_was_none_is_sent_again_once(
    transmission: Transmission,
    batch: Batch,
    fake: FakeLangfuse,
    wire: Wire,
    events: Events,
    fault: Fault,
    reason: str,
) -> None:
    """The answer got lost before the server took the batch: looked for during the lookup time, then the same bytes."""
    fake.faults.add(fault)
    assert await transmission.send(batch) == Delivered()

    assert wire.posts == [batch.payload] * 2
    assert wire.post_times[1] - wire.post_times[0] >= LOOKUP_SECONDS
    assert [event.reason.partition(":")[0] for event in events.of(DeliveryUnknown)] == [reason]
    assert [event.verdict for event in events.of(BatchSettled)] == ["sent_again"]
    assert fake.requests[Route.OBSERVATIONS, "200"] >= 2
    assert arrived_once(fake)


@pytest.mark.parametrize(
    "fault",
    [
        hang(stored=True),
        cut(stored=True),
        reset(stored=True),
        answer(502, stored=True),
        answer(504, stored=True),
        answer(503, stored=True, body=ENVOY, content_type="text/plain"),
    ],
    ids=["hang", "cut", "reset", "502", "504", "503 in plain text"],
)
async def test_an_unknown_outcome_that_was_success_is_found_and_not_sent_again(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, events: Events, fault: Fault
) -> None:
    """Also when Langfuse shows it only after a while: what it accepts goes through a queue."""
    fake.state.visible_after_seconds = 0.3
    fake.faults.add(fault)
    assert await transmission.send(batch) == Delivered()

    assert wire.posts == [batch.payload]
    assert [event.verdict for event in events.of(BatchSettled)] == ["found"]
    assert arrived_once(fake)


@pytest.mark.parametrize(
    "read", [answer(403, times=None), answer(401, times=None), html_page(404, times=None)]
)
async def test_a_server_that_cannot_be_read_gets_the_same_bytes_again_and_that_is_counted(
    sink: LangfuseSpans,
    health: DestinationHealth,
    events: Events,
    batch: Batch,
    fake: FakeLangfuse,
    wire: Wire,
    read: Fault,
) -> None:
    """Keys that may only write, an old version, a self-hosted proxy: at least once, and never silently."""
    fake.faults.add(hang(stored=True), replace(read, route=Route.OBSERVATIONS))
    transmission = Transmission(sink, health, events, lookup=timedelta(seconds=30), monotonic=time.monotonic)
    async with asyncio.timeout(10):
        assert await transmission.send(batch) == Delivered()

    assert wire.posts == [batch.payload] * 2
    assert [event.verdict for event in events.of(BatchSettled)] == ["sent_again_unread"]


async def test_keys_that_are_refused_after_a_lost_answer_send_nothing_twice(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, events: Events
) -> None:
    """Once they are accepted again the batch is looked for before the next try, and found."""
    fake.faults.add(hang(stored=True), answer(401, times=2), answer(401, route=Route.OBSERVATIONS, times=3))
    assert await transmission.send(batch) == Delivered()

    assert len(wire.posts) == 3
    assert [event.verdict for event in events.of(BatchSettled)] == ["found"]
    assert events.of(TracesMayRepeat) == []
    assert arrived_once(fake)


async def test_a_lookup_waits_for_a_server_that_does_not_answer_just_now(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, events: Events
) -> None:
    """Sending again without an answer could count a turn twice: it asks until it gets one."""
    fake.faults.add(
        hang(stored=True),
        answer(500, route=Route.OBSERVATIONS, times=2),
        answer(429, route=Route.OBSERVATIONS, times=1),
        cut(stored=False, route=Route.OBSERVATIONS),
    )
    assert await transmission.send(batch) == Delivered()

    assert wire.posts == [batch.payload]
    assert [event.verdict for event in events.of(BatchSettled)] == ["found"]


async def test_the_lookup_time_counts_from_the_first_answer(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, events: Events
) -> None:
    """A server that was away for longer than that time shows what it took only a while after it is back."""
    fake.state.visible_after_seconds = 3600
    fake.faults.add(hang(stored=True), hang(stored=False, route=Route.OBSERVATIONS, times=2))
    sending = asyncio.create_task(transmission.send(batch))
    async with asyncio.timeout(20):
        while fake.requests[Route.OBSERVATIONS, "200"] < 1:  # noqa: ASYNC110 - counted by a server
            await asyncio.sleep(0.01)
    fake.state.visible_after_seconds = 0
    assert await sending == Delivered()

    assert wire.posts == [batch.payload]
    assert [event.verdict for event in events.of(BatchSettled)] == ["found"]
    assert arrived_once(fake)


async def test_a_server_that_is_away_is_waited_for(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire, events: Events
) -> None:
    """Connection refused: nothing can have been taken, so nothing is looked up."""
    await fake.stop()
    sending = asyncio.create_task(transmission.send(batch))
    await events.until(lambda: len(events.of(DeliveryRetried)) >= 3)
    async with FakeLangfuse(port=fake.port) as back:
        assert await sending == Delivered()
        assert arrived_once(back)

    refused = "connection: the connection was refused: nothing listens there, or at the proxy before it"
    assert {event.reason for event in events.of(DeliveryRetried)} == {refused}
    assert events.of(DeliveryUnknown) == []
    assert set(wire.posts) == {batch.payload}


async def test_a_batch_that_fails_in_every_way_arrives_once(
    transmission: Transmission, batch: Batch, fake: FakeLangfuse, wire: Wire
) -> None:
    """One after another, in one sending: all retries are byte for byte the same."""
    fake.faults.add(
        answer(500),
        cut(stored=False),
        answer(401),
        answer(429, retry_after="0"),
        hang(stored=False),
        answer(503),
    )
    assert await transmission.send(batch) == Delivered()

    assert len(wire.posts) == 7
    assert set(wire.posts) == {batch.payload}
    assert arrived_once(fake)
