"""The sink for Langfuse over real HTTP: what each answer means, what can be found again, what proves the keys."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus

import httpx
import pytest
from aiohttp import web

from tailer.core.trace.otlp import SpanContext
from tailer.errors import DestinationError
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    Found,
    Refused,
    Rejected,
    Retry,
    TooLarge,
    Unanswered,
    Unknown,
    Unreadable,
)
from tailer.langfuse.connection import Credentials, LangfuseConnection, Proven, Unreachable
from tailer.langfuse.spans import LangfuseSpans, read_answer
from tests.evidence import make_trace, observation_ids, probes
from tests.fakes.langfuse import FakeLangfuse, Route, answer, cut, garbage, hang, html_page
from tests.fakes.langfuse.server import DEFAULT_KEYS
from tests.http.wire import Wire, spans_to

OVERLOADED = '{"message":"Request is taking too long to process.","error":"Request timed out"}'


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server


@pytest.fixture
async def sink(fake: FakeLangfuse) -> AsyncIterator[LangfuseSpans]:
    async with spans_to(fake, Wire()) as spans:
        yield spans


def connect_to(host: str, secret_key: str | None = None) -> LangfuseConnection:
    credentials = Credentials(host, DEFAULT_KEYS[0], secret_key or DEFAULT_KEYS[1])
    return LangfuseConnection(credentials, request_timeout=timedelta(seconds=1), connections=1)


async def test_what_was_delivered_is_what_was_meant(sink: LangfuseSpans, fake: FakeLangfuse) -> None:
    """The strict server finds nothing wrong, and reads back ids, texts and times."""
    trace = make_trace("m1", text='Ünïcode, "quotes" and \x00')
    assert await sink.deliver(sink.frame([sink.encode(trace)])) == Delivered()

    (span,) = fake.spans
    assert fake.violations == []
    assert (span.trace_id, span.span_id, span.parent_span_id) == (trace.id, trace.root.id, None)
    assert (span.session_id, span.user_id, span.type) == ("conversation-1", "user-1", "agent")
    assert (span.input, span.output) == ('Ünïcode, "quotes" and \ufffd', "Noon")
    assert span.span.start_nanoseconds == 1_760_000_000_000 * 1_000_000


async def test_a_payload_is_always_the_same_and_comes_apart_again(sink: LangfuseSpans) -> None:
    """No time, no random number in it: a retry after a restart is the same request."""
    chunks = [sink.encode(make_trace(f"m{number}", text="x" * number * 100)) for number in range(20)]

    assert sink.frame(chunks) == sink.frame(list(chunks))
    # A gzip header holds a time in these four bytes, and zero says that there is none.
    assert sink.frame(chunks)[4:8] == bytes(4)
    assert list(sink.unframe(sink.frame(chunks), [len(chunk) for chunk in chunks])) == chunks
    assert sink.encode(make_trace("m1")) == sink.encode(make_trace("m1"))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Delivered()),
        (202, Delivered()),
        (301, Retry("http_301")),
        (400, Rejected("http_400")),
        (401, Refused("http_401")),
        (403, Refused("http_403")),
        (404, Retry("http_404")),
        (408, Retry("http_408")),
        (413, TooLarge()),
        (415, Rejected("http_415")),
        (422, Rejected("http_422")),
        (429, Retry("http_429")),
        (500, Retry("http_500")),
        (502, Unknown("http_502")),
        (503, Retry("http_503")),
        (504, Unknown("http_504")),
    ],
)
async def test_every_status_has_a_meaning(
    sink: LangfuseSpans, fake: FakeLangfuse, status: int, outcome: DeliveryOutcome
) -> None:
    """As it arrives over HTTP."""
    fake.faults.add(answer(status))

    assert await sink.deliver(sink.frame([sink.encode(make_trace("m1"))])) == outcome


@pytest.mark.parametrize(
    ("body", "media", "rejected"),
    [
        (b"{}", "application/json", 0),
        (b'{"partialSuccess": {}}', "application/json", 0),
        (b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "x"}}', "application/json", 3),
        (b'[{"queue": "otel-ingestion-queue"}]', "application/json", 0),
        (b'{"partial', "application/json", 0),
        (b'{"partialSuccess": {"rejectedSpans": 1e999}}', "application/json", 0),
        (b"[" * 200_000, "application/json", 0),
        (b"\x0a\x07\x08\xac\x02\x12\x02no", "application/x-protobuf", 300),
        (b"\x0a\x04\x12\x02no", "application/x-protobuf", 0),
        (b"", "application/x-protobuf", 0),
        (b"\xff", "application/x-protobuf", 0),
    ],
)
def test_a_request_that_was_taken_in_part_says_how_many_spans_were_not(
    body: bytes, media: str, rejected: int
) -> None:
    """OTLP's own word for it, of a collector before Langfuse; it must not be sent again."""
    outcome = read_answer(httpx.Response(200, headers={"content-type": media}, content=body))

    assert isinstance(outcome, Delivered)
    assert outcome.rejected_spans == rejected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("17", 17.0), ("1.5", 1.5), ("-4", 0.0), ("soon", None), ("", None),
        ("inf", 3600.0), ("nan", None), ("1e300", 3600.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0), ("Wed, 99 Oct 2015", None),
        ("Fri, 31 Dec 2027 23:59:59 +999999999999999999999", None),
    ],
)  # fmt: skip
def test_a_pause_is_read_in_every_form(value: str, seconds: float | None) -> None:
    """Seconds, dates, and what proxies make of them; never more than an hour, never an exception."""
    response = httpx.Response(429, headers={"retry-after": value})

    assert read_answer(response) == Retry("http_429", seconds)


def test_a_pause_until_a_date_lasts_until_then() -> None:
    """Half a minute from now, give or take the second that a date cannot show."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    outcome = read_answer(httpx.Response(429, headers={"retry-after": date}))

    assert isinstance(outcome, Retry)
    assert outcome.after_seconds == pytest.approx(30, abs=2)


async def test_a_host_without_a_server_takes_nothing_and_that_is_said() -> None:
    """Nothing listens: certain, not unknown. And the lookup has no answer."""
    async with connect_to("http://127.0.0.1:9") as connection:
        sink = LangfuseSpans(connection, _context())
        sent, found = await sink.deliver(b"x"), await sink.find(probes("m1"))

    assert sent == Retry("connection")
    assert isinstance(sent, Retry)
    assert found == Unanswered("ConnectError")
    assert isinstance(found, Unanswered)
    assert (
        sent.remedy
        == found.remedy
        == "the connection was refused: nothing listens there, or at the proxy before it"
    )


async def test_an_answer_that_cannot_be_decoded_is_an_unknown_outcome() -> None:
    """A proxy that says gzip and sends something else."""

    async def garble(_request: web.Request) -> web.Response:
        return web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", garble)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with connect_to(f"http://127.0.0.1:{runner.addresses[0][1]}") as connection:
        sink = LangfuseSpans(connection, _context())
        assert await sink.deliver(b"x") == Unknown("DecodingError")
        assert await sink.find(probes("m1")) == Unanswered("DecodingError")
        assert await connection.prove() == Unreachable("DecodingError")
    await runner.cleanup()


async def test_what_was_delivered_is_found_and_nothing_else(sink: LangfuseSpans, fake: FakeLangfuse) -> None:
    """Once Langfuse shows it."""
    fake.state.visible_after_seconds = 1000
    await sink.deliver(sink.frame([sink.encode(make_trace("m1")), sink.encode(make_trace("m2"))]))
    assert await sink.find(probes("m1", "m3")) == Found(frozenset())

    fake.state.visible_after_seconds = 0
    assert await sink.find(probes("m1", "m3", "m2")) == Found(frozenset(observation_ids("m1", "m2")))


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (answer(500), Unanswered("http_500")),
        (answer(429), Unanswered("http_429")),
        (answer(422, body=OVERLOADED), Unanswered("http_422")),
        (answer(408), Unanswered("http_408")),
        (answer(502), Unanswered("http_502")),
        (answer(401), Unreadable("http_401")),
        (answer(403), Unreadable("http_403")),
        (html_page(200), Unreadable("answered with a page")),
        (html_page(404), Unreadable("http_404")),
        (answer(200, body='{"data": 7}'), Unreadable("unknown shape")),
        (garbage(), Unreadable("http_200")),
        (answer(200, body="[" * 200_000), Unreadable("http_200")),
        (cut(stored=False), Unanswered("RemoteProtocolError")),
        (hang(stored=False), Unanswered("ReadTimeout")),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_lookup_that_gives_no_answer_says_whether_one_may_come(
    sink: LangfuseSpans, fake: FakeLangfuse, fault: object, found: object
) -> None:
    """The server's own trouble passes; keys that may not read do not."""
    assert isinstance(fault, type(answer(200)))
    fake.faults.add(replace(fault, route=Route.OBSERVATIONS))

    assert await sink.find(probes("m1")) == found


async def test_good_keys_are_proven_by_their_project(fake: FakeLangfuse) -> None:
    """The first thing that a start asks."""
    async with connect_to(fake.url) as connection:
        assert await connection.prove() == Proven("Test project")
    assert fake.requests[Route.PROJECTS, "200"] == 1


async def test_bad_keys_are_an_error_that_names_the_settings_and_not_the_secret(fake: FakeLangfuse) -> None:
    """401 at the start is for a human."""
    async with connect_to(fake.url, secret_key="sk-lf-wrong") as connection:
        with pytest.raises(DestinationError, match="LANGFUSE_SECRET_KEY") as refused:
            await connection.prove()
        assert "sk-lf-wrong" not in f"{refused.value} {refused.value!r} {connection.credentials!r}"


@pytest.mark.parametrize("fault", [html_page(404), answer(301), answer(405)])
async def test_an_address_that_is_no_langfuse_is_an_error(fake: FakeLangfuse, fault: object) -> None:
    """Something answers there, and it is not what LANGFUSE_HOST should lead to."""
    assert isinstance(fault, type(answer(200)))
    fake.faults.add(replace(fault, route=Route.PROJECTS))
    async with connect_to(fake.url) as connection:
        with pytest.raises(DestinationError, match="LANGFUSE_HOST"):
            await connection.prove()


@pytest.mark.parametrize("status", [HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.TOO_MANY_REQUESTS])
async def test_a_server_that_is_not_well_is_not_a_wrong_address(
    fake: FakeLangfuse, status: HTTPStatus
) -> None:
    """It may be better later."""
    fake.faults.add(answer(status, route=Route.PROJECTS))
    async with connect_to(fake.url) as connection:
        assert await connection.prove() == Unreachable(f"http_{status.value}")


async def test_a_project_of_unknown_shape_still_proves_the_keys(fake: FakeLangfuse) -> None:
    """A later release may describe projects otherwise."""
    fake.faults.add(answer(200, body='{"data": [{"title": "x"}]}', route=Route.PROJECTS))
    async with connect_to(fake.url) as connection:
        assert await connection.prove() == Proven(None)


def _context() -> SpanContext:
    return SpanContext("test")
