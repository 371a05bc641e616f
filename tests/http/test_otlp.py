"""The sink for an OTLP receiver over real HTTP: what goes over the wire, what each answer leads to, what cannot be
done."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tailer.core.identity import observation_id, turn_trace_id
from tailer.core.trace.followup import FollowupOperation, Score, ScoreType
from tailer.errors import DestinationError
from tailer.events import (
    BatchSettled,
    DeliveryRetried,
    DestinationWarned,
    FollowupLeftOut,
    MetricsDelayed,
    MetricsLost,
    TracesMayRepeat,
)
from tailer.flow.ports import UNCONDITIONAL, Permit
from tailer.flow.records import Batch
from tailer.flow.sending.batch import halve
from tailer.flow.sending.destination_health import DestinationHealth
from tailer.flow.sending.outcomes import Delivered, Refused, Rejected, Retry, TooLarge, Unknown, Unreadable
from tailer.flow.sending.transmission import Transmission
from tailer.otlp.destination import OtlpDestination, open_otlp
from tailer.otlp.options import Compression, OtlpOptions, SignalOptions
from tailer.outbound.certificates import CertificateFiles
from tailer.outbound.proof import Proven, Unreachable
from tests.evidence import Events, make_item, make_trace, probes, trace_ids
from tests.fakes.otlp import FakeReceiver, Reply
from tests.http.authorities import make_authority
from tests.http.gateway import gateway_to
from tests.http.test_permit import Switch

NAMES = ("ca_file of [destinations.x]", "cert_file of [destinations.x]", "key_file of [destinations.x]")
RATING = Score(
    id=f"feedback-{turn_trace_id('m1')}",
    trace_id=turn_trace_id("m1"),
    name="user-feedback",
    type=ScoreType.BOOLEAN,
    value=1,
    comment="accurate",
    metadata={"message_id": "m1", "rating": "thumbsUp"},
    timestamp_milliseconds=1_760_000_002_000,
)


@pytest.fixture
async def receiver() -> AsyncIterator[FakeReceiver]:
    async with FakeReceiver() as fake:
        yield fake
        assert fake.violations == []


@pytest.fixture
def events() -> Events:
    return Events()


@asynccontextmanager
async def reach(
    url: str, events: Events, *, permit: Permit = UNCONDITIONAL, **how: object
) -> AsyncIterator[OtlpDestination]:
    """The receiver at a URL, with a way of this kind for traces and metrics."""

    def signal(path: str) -> SignalOptions:
        way = SignalOptions(f"{url}{path}", timeout=timedelta(seconds=1.5))
        return replace(way, **how)  # type: ignore[arg-type]

    async with open_otlp(
        OtlpOptions(signal("/v1/traces"), signal("/v1/metrics")),
        events,
        connections=2,
        permit=permit,
        environment="test",
        release="v1",
    ) as destination:
        yield destination


@pytest.fixture
async def otlp(receiver: FakeReceiver, events: Events) -> AsyncIterator[OtlpDestination]:
    async with reach(receiver.url, events) as destination:
        yield destination


def payload_of(otlp: OtlpDestination, *message_ids: str) -> bytes:
    return otlp.spans.frame([otlp.spans.encode(make_trace(message_id)) for message_id in message_ids])


def batch_of(otlp: OtlpDestination, *message_ids: str) -> Batch:
    traces = [make_trace(message_id) for message_id in message_ids]
    chunks = [otlp.spans.encode(trace) for trace in traces]
    items = [make_item(trace, chunk) for trace, chunk in zip(traces, chunks, strict=True)]
    return Batch(uuid.uuid4().hex, tuple(items), otlp.spans.frame(chunks))


def transmission_to(otlp: OtlpDestination, events: Events) -> Transmission:
    health = DestinationHealth(events, monotonic=time.monotonic)
    return Transmission(otlp.spans, health, events, lookup=timedelta(), monotonic=time.monotonic)


async def test_what_was_delivered_is_what_was_meant(otlp: OtlpDestination, receiver: FakeReceiver) -> None:
    """Ids, times, texts, the resource, and the headers of the protocol."""
    assert await otlp.spans.deliver(payload_of(otlp, "m1", "m2")) == Delivered()

    assert receiver.trace_ids() == trace_ids("m1", "m2")
    span = receiver.spans[0]
    assert span.span_id == make_trace("m1").root.id
    assert span.start_nanoseconds == 1_760_000_000_000 * 1_000_000
    assert span.resource["service.name"] == "librechat"
    assert span.resource["deployment.environment.name"] == "test"
    assert span.resource["service.version"] == "v1"
    ((path, headers, _),) = receiver.requests
    assert path == "/v1/traces"
    assert headers["Content-Type"] == "application/x-protobuf"
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize("compression", list(Compression))
async def test_a_payload_is_always_the_same_and_comes_apart_again(
    receiver: FakeReceiver, events: Events, compression: Compression
) -> None:
    """Compressed or not: what is written down before it is sent is what a retry sends."""
    async with reach(receiver.url, events, compression=compression) as otlp:
        chunks = [otlp.spans.encode(make_trace(f"m{number}", text="x" * number)) for number in range(9)]
        payload = otlp.spans.frame(chunks)

        assert payload == otlp.spans.frame(list(chunks))
        assert list(otlp.spans.unframe(payload, [len(chunk) for chunk in chunks])) == chunks
        assert await otlp.spans.deliver(payload) == Delivered()
        first, second = halve(batch_of(otlp, "m1", "m2", "m3"), otlp.spans, lambda: "x")
        assert await otlp.spans.deliver(second.payload) == Delivered()
        assert len(first.items) == 1

    assert len(receiver.trace_ids()) == 9
    is_packed = compression is Compression.GZIP
    assert (receiver.requests[0][1].get("Content-Encoding") == "gzip") == is_packed


async def test_what_an_earlier_run_packed_is_sent_as_it_is_with_other_options(
    receiver: FakeReceiver, events: Events
) -> None:
    """The bytes of a batch outlive the settings that they were made under."""
    async with reach(receiver.url, events, compression=Compression.GZIP) as before:
        payload = payload_of(before, "m1")
    async with reach(receiver.url, events, compression=Compression.NONE) as after:
        assert await after.spans.deliver(payload) == Delivered()

    assert receiver.trace_ids() == trace_ids("m1")


async def test_headers_are_carried_and_refused_keys_are_told(receiver: FakeReceiver, events: Events) -> None:
    receiver.keys = {"api-key": "k1"}
    async with reach(receiver.url, events, headers={"api-key": "k1"}) as otlp:
        assert await otlp.spans.deliver(payload_of(otlp, "m1")) == Delivered()
        assert await otlp.prove() == Proven(None)
    async with reach(receiver.url, events, headers={"api-key": "wrong"}) as stranger:
        assert await stranger.spans.deliver(payload_of(stranger, "m2")) == Refused("http_401")
        assert await stranger.followups.put_score(RATING) == Refused("http_401")
        with pytest.raises(DestinationError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
            await stranger.prove()

    assert "wrong" not in str(caught.value)
    assert receiver.trace_ids() == trace_ids("m1")


async def test_a_turn_that_is_not_valid_has_its_request_rejected_and_the_others_go(
    otlp: OtlpDestination, receiver: FakeReceiver
) -> None:
    receiver.invalid = {"turn m2"}

    assert await otlp.spans.deliver(payload_of(otlp, "m1", "m2")) == Rejected("http_400")
    assert await otlp.spans.deliver(payload_of(otlp, "m1")) == Delivered()


async def test_a_request_that_is_too_large_is_told_and_its_texts_can_be_cut(
    otlp: OtlpDestination, receiver: FakeReceiver
) -> None:
    chunk: bytes | None = otlp.spans.encode(make_trace("m1", text="long " * 10_000))
    receiver.largest_bytes = 10_000
    outcomes = []
    while chunk is not None:
        outcomes.append(await otlp.spans.deliver(otlp.spans.frame([chunk])))
        if outcomes[-1] == Delivered():
            break
        chunk = otlp.spans.shrink(chunk)

    assert outcomes == [TooLarge(), TooLarge(), TooLarge(), Delivered()]
    assert receiver.spans[0].attributes["librechat.cut_to_fit"] == "true"


async def test_spans_that_were_not_taken_are_counted_and_never_sent_again(
    otlp: OtlpDestination, receiver: FakeReceiver, events: Events
) -> None:
    """The specification forbids it."""
    receiver.rejects_spans = 1
    outcome = await transmission_to(otlp, events).send(batch_of(otlp, "m1", "m2"))

    assert isinstance(outcome, Delivered)
    assert outcome.rejected_spans == 1
    assert len(receiver.requests) == 1
    assert events.of(DestinationWarned) == [DestinationWarned(f"{receiver.url}/v1/traces")]


async def test_a_connection_that_cannot_be_opened_took_nothing(events: Events) -> None:
    async with FakeReceiver() as gone:
        url = gone.url
    async with reach(url, events) as otlp:
        outcome = await otlp.spans.deliver(payload_of(otlp, "m1"))
        assert outcome == Retry("connection")
        assert isinstance(outcome, Retry)
        assert (
            outcome.remedy == "the connection was refused: nothing listens there, or at the proxy before it"
        )
        proven = await otlp.prove()

    assert isinstance(proven, Unreachable)
    assert proven.detail == "the connection was refused: nothing listens there, or at the proxy before it"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(cut=True, taken=True),
        Reply(cut=True),
        Reply(hang=True, taken=True),
        Reply(502, taken=True),
        Reply(504),
        Reply(503, b"upstream connect error", {"content-type": "text/plain"}, taken=True),
    ],
)
async def test_after_a_lost_answer_the_same_bytes_go_again_and_what_may_come_twice_is_counted(
    otlp: OtlpDestination, receiver: FakeReceiver, events: Events, reply: Reply
) -> None:
    """There is nothing to ask. The ids are the same, so that a back end can tell."""
    receiver.replies.append(reply)
    batch = batch_of(otlp, "m1", "m2")
    assert await transmission_to(otlp, events).send(batch) == Delivered()

    assert [body for _, _, body in receiver.requests] == [batch.payload] * 2
    assert receiver.trace_ids() == trace_ids("m1", "m2")
    assert len(receiver.spans) == (4 if reply.taken else 2)
    assert [event.traces for event in events.of(TracesMayRepeat)] == [2]
    assert [event.verdict for event in events.of(BatchSettled)] == ["sent_again_unread"]


async def test_a_batch_of_an_earlier_run_is_sent_and_counted_as_what_may_come_twice(
    otlp: OtlpDestination, receiver: FakeReceiver, events: Events
) -> None:
    outcome = await transmission_to(otlp, events).send(batch_of(otlp, "m1"), maybe_sent=True)

    assert outcome == Delivered()
    assert [event.traces for event in events.of(TracesMayRepeat)] == [1]
    assert receiver.trace_ids() == trace_ids("m1")


async def test_lost_answers_are_not_answered_with_a_flood(
    otlp: OtlpDestination, receiver: FakeReceiver, events: Events
) -> None:
    """Growing pauses, and never shorter than the receiver asks for."""
    receiver.replies.extend(
        [Reply(502), Reply(502), Reply(504, headers={"retry-after": "7"}), Reply(cut=True)]
    )
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    health = DestinationHealth(events, monotonic=time.monotonic)
    transmission = Transmission(
        otlp.spans, health, events, lookup=timedelta(), monotonic=time.monotonic, sleep=sleep
    )
    assert await transmission.send(batch_of(otlp, "m1")) == Delivered()

    # A pause is at most 0.3 s longer than what doubles, so of two neighbours the later may be the shorter one.
    first, second, asked, last = pauses
    assert 0.2 <= first <= 0.5
    assert 0.4 <= second <= 0.7
    assert asked == 7
    assert 1.6 <= last <= 1.9


@pytest.mark.parametrize("status", [429, 503])
async def test_what_was_not_taken_is_sent_again_after_the_pause_that_was_asked_for(
    otlp: OtlpDestination, receiver: FakeReceiver, events: Events, status: int
) -> None:
    receiver.replies.append(Reply(status, headers={"retry-after": "1"}))
    began = time.monotonic()
    assert await transmission_to(otlp, events).send(batch_of(otlp, "m1")) == Delivered()

    assert time.monotonic() - began >= 1
    assert [event.wait_seconds for event in events.of(DeliveryRetried)] == [1.0]
    assert events.of(TracesMayRepeat) == []
    assert len(receiver.spans) == 1


async def test_nothing_can_be_looked_up(otlp: OtlpDestination) -> None:
    assert isinstance(await otlp.spans.find(probes("m1")), Unreadable)


async def test_a_lost_answer_is_told_as_one(otlp: OtlpDestination, receiver: FakeReceiver) -> None:
    receiver.replies.extend([Reply(cut=True), Reply(hang=True)])

    assert isinstance(await otlp.spans.deliver(payload_of(otlp, "m1")), Unknown)
    assert isinstance(await otlp.spans.deliver(payload_of(otlp, "m1")), Unknown)


async def test_a_rating_is_a_span_of_no_length_in_its_turn(
    otlp: OtlpDestination, receiver: FakeReceiver
) -> None:
    """The same rating has the same id, a changed one another."""
    changed = replace(RATING, value=0, metadata={**RATING.metadata, "rating": "thumbsDown"})
    for score in (RATING, RATING, changed):
        assert await otlp.followups.put_score(score) == Delivered()

    first, again, other = receiver.spans
    assert first.trace_id == turn_trace_id("m1")
    assert first.parent_span_id == observation_id("m1", "root")
    assert first.start_nanoseconds == first.end_nanoseconds == 1_760_000_002_000 * 1_000_000
    assert first.span_id == again.span_id != other.span_id
    assert first.attributes == {
        "gen_ai.evaluation.name": "user-feedback",
        "gen_ai.evaluation.score.value": 1.0,
        "gen_ai.evaluation.score.label": "thumbsUp",
        "gen_ai.evaluation.explanation": "accurate",
        "librechat.feedback.message_id": "m1",
        "librechat.feedback.rating": "thumbsUp",
    }


async def test_what_otlp_cannot_take_back_is_counted_and_said(
    otlp: OtlpDestination, receiver: FakeReceiver, events: Events
) -> None:
    """And is done with: it is never tried again."""
    correction = replace(RATING, type=ScoreType.CORRECTION, value="Better.")

    assert await otlp.followups.delete_score(RATING.id) == Delivered()
    assert await otlp.followups.delete_traces(trace_ids("m1", "m2")) == Delivered()
    assert await otlp.followups.put_score(correction) == Delivered()
    assert receiver.requests == []
    assert events.of(FollowupLeftOut) == [
        FollowupLeftOut(FollowupOperation.DELETE_SCORE, 1),
        FollowupLeftOut(FollowupOperation.DELETE_TRACES, 2),
    ]


async def test_nothing_is_posted_without_the_permit(receiver: FakeReceiver, events: Events) -> None:
    """It is waited for; and if it is in doubt right before the first byte, nothing is sent."""
    permit = Switch()
    async with reach(receiver.url, events, permit=permit) as otlp:
        sending = asyncio.create_task(otlp.spans.deliver(payload_of(otlp, "m1")))
        await permit.asked.wait()
        assert receiver.requests == []
        permit.still = False
        permit.given.set()
        assert await sending == Retry("lease in doubt")
        permit.still = True
        assert await otlp.spans.deliver(payload_of(otlp, "m1")) == Delivered()

    assert receiver.trace_ids() == trace_ids("m1")


@pytest.mark.parametrize(
    ("path", "hint"), [("/elsewhere", "nothing takes OTLP"), ("", None)], ids=["wrong path", "right path"]
)
async def test_the_start_finds_out_whether_anything_takes_otlp_there(
    receiver: FakeReceiver, events: Events, path: str, hint: str | None
) -> None:
    """By a request without spans, which leaves nothing."""
    async with reach(f"{receiver.url}{path}", events) as otlp:
        if hint is None:
            assert await otlp.prove() == Proven(None)
        else:
            with pytest.raises(DestinationError, match=hint):
                await otlp.prove()

    assert receiver.spans == []


async def test_a_receiver_that_is_unwell_at_the_start_is_told_as_one(
    otlp: OtlpDestination, receiver: FakeReceiver
) -> None:
    receiver.replies.append(Reply(503))

    assert await otlp.prove() == Unreachable("http_503")


async def test_http_to_a_receiver_that_speaks_https_is_found_out_at_the_start(
    otlp: OtlpDestination, receiver: FakeReceiver
) -> None:
    """A receiver in Go answers 400 in plain text on its TLS port: it has not read a span."""
    said = b"Client sent an HTTP request to an HTTPS server.\n"
    receiver.replies.append(Reply(400, said, {"content-type": "text/plain"}))

    with pytest.raises(DestinationError, match="http where the receiver speaks https"):
        await otlp.prove()


async def test_certificates_are_used_and_named_as_the_operator_knows_them(
    receiver: FakeReceiver,
    events: Events,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    authority = make_authority(tmp_path_factory.mktemp("authority"), "ours")
    client = authority.sign("client")
    tls = authority.serve(authority.sign("server"), ask_clients=True)
    async with gateway_to(receiver.url, tls=tls) as gateway:
        async with reach(
            gateway.url,
            events,
            files=CertificateFiles(authority.certificate, client.certificate, client.key, NAMES),
        ) as otlp:
            assert await otlp.spans.deliver(payload_of(otlp, "m1")) == Delivered()
        async with reach(gateway.url, events, files=CertificateFiles(settings=NAMES)) as stranger:
            proven = await stranger.prove()
    assert isinstance(proven, Unreachable)
    assert "set ca_file of [destinations.x]" in proven.detail
    with pytest.raises(DestinationError, match=r"ca_file of \[destinations.x\]"):
        async with reach(receiver.url, events, files=CertificateFiles(Path("/no/such/file"), settings=NAMES)):
            pass


async def test_metrics_are_reported_as_deltas_and_each_turn_once(
    otlp: OtlpDestination, receiver: FakeReceiver
) -> None:
    assert otlp.metrics is not None
    otlp.metrics.observe([make_trace("m1"), make_trace("m2")])
    await otlp.metrics.report()
    await otlp.metrics.report()
    otlp.metrics.observe([make_trace("m3")])
    await otlp.metrics.report()

    first, second = receiver.points
    assert (first.count, first.sum, second.count) == (2, 4.0, 1)
    assert first.metric == "gen_ai.client.operation.duration"
    assert first.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert second.start_nanoseconds >= first.time_nanoseconds
    assert [path for path, _, _ in receiver.requests] == ["/v1/metrics"] * 2


@pytest.mark.parametrize("reply", [Reply(503), Reply(401), Reply(cut=True), Reply(504, taken=True)])
async def test_a_report_that_was_not_taken_is_sent_again_as_it_is(
    otlp: OtlpDestination, receiver: FakeReceiver, events: Events, reply: Reply
) -> None:
    """What comes meanwhile is in the next one: no value is in two reports."""
    assert otlp.metrics is not None
    receiver.replies.append(reply)
    otlp.metrics.observe([make_trace("m1")])
    await otlp.metrics.report()
    otlp.metrics.observe([make_trace("m2")])
    await otlp.metrics.report()
    await otlp.metrics.report()

    bodies = [body for _, _, body in receiver.requests]
    assert bodies[0] == bodies[1] != bodies[2]
    assert [point.count for point in receiver.points] == ([1, 1, 1] if reply.taken else [1, 1])
    assert len(events.of(MetricsDelayed)) == 1


async def test_a_report_that_is_refused_for_good_is_dropped_and_said(
    otlp: OtlpDestination, receiver: FakeReceiver, events: Events
) -> None:
    assert otlp.metrics is not None
    receiver.replies.append(Reply(400))
    otlp.metrics.observe([make_trace("m1")])
    await otlp.metrics.report()
    await otlp.metrics.report()

    assert len(receiver.requests) == 1
    assert events.of(MetricsLost) == [MetricsLost("http_400")]


async def test_the_last_report_goes_out_at_the_end(receiver: FakeReceiver, events: Events) -> None:
    async with reach(receiver.url, events) as otlp:
        assert otlp.metrics is not None
        otlp.metrics.observe([make_trace("m1")])
        running = asyncio.create_task(otlp.metrics.run())
        await asyncio.sleep(0)
        running.cancel()

    assert [point.count for point in receiver.points] == [1]
