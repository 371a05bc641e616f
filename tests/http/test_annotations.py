"""Scores and deletions over real HTTP: created, overwritten, deleted, and what fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.trace.followup import Score, ScoreType
from tailer.core.trace.otlp import SpanContext
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Refused, Rejected, Retry
from tailer.langfuse.annotations import LangfuseAnnotations
from tailer.langfuse.connection import Credentials, LangfuseConnection
from tailer.langfuse.spans import LangfuseSpans
from tests.evidence import make_trace, trace_ids
from tests.fakes.langfuse import (
    EVENTS_ONLY,
    FakeLangfuse,
    Fault,
    Route,
    answer,
    cut,
    garbage,
    hang,
    html_page,
)
from tests.http.wire import Wire

SCORE = Score(
    id="feedback-1",
    trace_id=turn_trace_id("m1"),
    name="user-feedback",
    type=ScoreType.BOOLEAN,
    value=1,
    comment="accurate — just so",
    metadata={"message_id": "m1", "rating": "thumbsUp"},
    timestamp_milliseconds=1_760_000_000_123,
)
CORRECTION = replace(
    SCORE, id="correction-1", name="output", type=ScoreType.CORRECTION, value="Noon", comment=None
)


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        server.release()
        assert server.violations == []


@pytest.fixture
def wire() -> Wire:
    return Wire()


@asynccontextmanager
async def connected(fake: FakeLangfuse, wire: Wire) -> AsyncIterator[LangfuseConnection]:
    credentials = Credentials(fake.url, fake.public_key, fake.secret_key)
    opened = LangfuseConnection(credentials, request_timeout=timedelta(seconds=0.5), connections=2)
    opened.http.event_hooks = {"request": [wire.note], "response": []}
    async with opened:
        yield opened


@pytest.fixture
async def connection(fake: FakeLangfuse, wire: Wire) -> AsyncIterator[LangfuseConnection]:
    async with connected(fake, wire) as opened:
        yield opened


@pytest.fixture
def annotations(connection: LangfuseConnection) -> LangfuseAnnotations:
    return LangfuseAnnotations(connection, environment="test")


async def test_a_score_is_what_was_meant(annotations: LangfuseAnnotations, fake: FakeLangfuse) -> None:
    """Every field of it, as Langfuse keeps it."""
    assert await annotations.put_score(SCORE) == Delivered()

    score = fake.score("feedback-1")
    assert score is not None
    assert score["subject"] == {"kind": "trace", "id": turn_trace_id("m1")}
    assert (score["name"], score["dataType"], score["value"]) == ("user-feedback", "BOOLEAN", True)
    assert (score["comment"], score["metadata"]) == ("accurate — just so", SCORE.metadata)
    assert score["environment"] == "test"
    moment = datetime.fromtimestamp(SCORE.timestamp_milliseconds / 1000, UTC)
    assert datetime.fromisoformat(score["timestamp"]) == moment


async def test_a_correction_keeps_its_text(annotations: LangfuseAnnotations, fake: FakeLangfuse) -> None:
    """A text as value, and no comment."""
    assert await annotations.put_score(CORRECTION) == Delivered()

    score = fake.score("correction-1")
    assert score is not None
    assert (score["name"], score["dataType"], score["value"], score["comment"]) == (
        "output",
        "CORRECTION",
        "Noon",
        None,
    )


async def test_a_score_overwrites_the_one_before(
    annotations: LangfuseAnnotations, fake: FakeLangfuse
) -> None:
    """Same id, name and day: one score, with the last value."""
    for value in (1, 0, 1, 0):
        assert await annotations.put_score(replace(SCORE, value=value)) == Delivered()

    assert [score["value"] for score in fake.scores.current.values()] == [False]
    assert len(fake.scores.posted) == 4


async def test_a_score_is_deleted_also_when_it_is_not_there(
    annotations: LangfuseAnnotations, fake: FakeLangfuse
) -> None:
    """Twice, and by a server that answers 404 for what is gone."""
    await annotations.put_score(SCORE)
    await annotations.put_score(CORRECTION)
    for _ in range(2):
        assert await annotations.delete_score("feedback-1") == Delivered()
    fake.faults.add(answer(404, route=Route.SCORE_DELETE))
    assert await annotations.delete_score("feedback-1") == Delivered()

    assert fake.score("feedback-1") is None
    assert fake.score("correction-1") is not None


async def test_traces_are_deleted_together(
    annotations: LangfuseAnnotations, connection: LangfuseConnection, fake: FakeLangfuse
) -> None:
    """In one request; those that are not there are no error, nor is a server that says so."""
    sink = LangfuseSpans(connection, SpanContext("test"))
    await sink.deliver(sink.frame([sink.encode(make_trace(f"m{number}")) for number in range(4)]))

    assert await annotations.delete_traces(trace_ids("m0", "m2", "gone")) == Delivered()
    assert fake.trace_ids() == trace_ids("m1", "m3")
    assert fake.requests[Route.TRACE_DELETE, "200"] == 1
    fake.faults.add(answer(404, route=Route.TRACE_DELETE))
    assert await annotations.delete_traces(trace_ids("gone")) == Delivered()


def paths_of(wire: Wire) -> list[str]:
    return [path.rpartition("/")[2] for _, path, _ in wire.requests]


@pytest.mark.parametrize("score", [SCORE, CORRECTION], ids=["feedback", "correction"])
async def test_a_score_keeps_the_time_at_which_it_was_given_on_an_older_server(
    wire: Wire, score: Score
) -> None:
    """4.16 refuses lists and dates single scores itself. What it refuses is not tried again for each score."""
    async with FakeLangfuse(release=EVENTS_ONLY) as fake, connected(fake, wire) as opened:
        annotations = LangfuseAnnotations(opened, environment="test")
        assert await annotations.put_score(score) == Delivered()
        assert await annotations.put_score(score) == Delivered()

        kept = fake.score(score.id)
        assert kept is not None
        moment = datetime.fromtimestamp(SCORE.timestamp_milliseconds / 1000, UTC)
        assert datetime.fromisoformat(kept["timestamp"]) == moment
        assert (kept["comment"], kept["environment"], kept["metadata"]) == (
            score.comment,
            "test",
            SCORE.metadata,
        )
        assert (fake.violations, len(fake.scores.current)) == ([], 1)
    assert paths_of(wire) == ["scores", "ingestion", "ingestion"]


async def test_a_server_without_lists_and_events_gets_the_score_alone(
    annotations: LangfuseAnnotations, fake: FakeLangfuse, wire: Wire
) -> None:
    """Better with a time of the server's own than not at all."""
    fake.faults.add(answer(400, route=Route.SCORES), html_page(404, route=Route.EVENTS))

    assert await annotations.put_score(SCORE) == Delivered()
    assert await annotations.put_score(SCORE) == Delivered()

    assert paths_of(wire) == ["scores", "ingestion", "scores", "scores"]
    score = fake.score("feedback-1")
    assert score is not None
    assert (score["value"], score["comment"], score["metadata"]) == (True, SCORE.comment, SCORE.metadata)


async def test_a_score_that_is_refused_in_every_shape_is_refused_for_good(
    annotations: LangfuseAnnotations, fake: FakeLangfuse, wire: Wire
) -> None:
    """It was not the list; the next score is sent as one again."""
    fake.faults.add(answer(400, route=Route.SCORES, times=2), answer(400, route=Route.EVENTS))

    assert await annotations.put_score(SCORE) == Rejected("http_400")
    assert fake.scores.posted == []
    assert await annotations.put_score(SCORE) == Delivered()
    assert wire.requests[-1][2].startswith(b"[")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ('{"accepted": 0, "rejected": 1, "errors": [{"message": "no"}]}', Rejected("http_400")),
        ('{"successes": [], "errors": [{"id": "x", "status": 500}]}', Retry("http_500")),
        ('{"successes": [], "errors": [{"id": "x", "status": 401}]}', Refused("http_401")),
        ('{"successes": [{"id": "x", "status": 201}], "errors": []}', Delivered()),
        ('{"errors": [{"id": "x", "status": "500"}]}', Rejected("http_400")),
        ('{"errors": "strange"}', Delivered()),
        ("[" * 200_000, Delivered()),
    ],
)
async def test_an_answer_for_each_score_is_read(
    annotations: LangfuseAnnotations, fake: FakeLangfuse, body: str, outcome: DeliveryOutcome
) -> None:
    """207 alone says nothing of the one score in it."""
    fake.faults.add(answer(207, body=body, route=Route.SCORES), answer(207, body=body, route=Route.EVENTS))
    fake.faults.add(answer(400, route=Route.SCORES))

    assert await annotations.put_score(SCORE) == outcome


@pytest.mark.parametrize("sign", ["x", '"', "\n", "é", "\ud800"])
async def test_a_correction_of_any_length_is_taken(
    annotations: LangfuseAnnotations, fake: FakeLangfuse, sign: str
) -> None:
    """Langfuse takes a request of 1 MB; quotes and line ends are two bytes each there. The cut says that it is one."""
    assert await annotations.put_score(replace(CORRECTION, value=sign * 1_200_000)) == Delivered()

    score = fake.score("correction-1")
    assert score is not None
    assert "bytes left out]" in score["value"][-40:]
    assert score["value"].startswith((sign if sign != "\ud800" else "?") * 250_000)
    assert fake.requests[Route.SCORES, "413"] == 0


async def test_an_event_meets_the_same_troubles(annotations: LangfuseAnnotations, fake: FakeLangfuse) -> None:
    """An older server can be away too."""
    for fault, outcome in (
        (answer(503, route=Route.EVENTS), Retry("http_503")),
        (cut(stored=False, route=Route.EVENTS), Retry("RemoteProtocolError")),
        (html_page(200, route=Route.EVENTS), Retry("answered with a page")),
    ):
        fake.faults.clear()
        fake.faults.add(fault, answer(400, route=Route.SCORES))
        assert await annotations.put_score(SCORE) == outcome


async def test_a_page_of_another_product_deletes_nothing(
    annotations: LangfuseAnnotations, fake: FakeLangfuse
) -> None:
    """404 with a page is no word of Langfuse's: what is to be deleted may well be there."""
    fake.faults.add(html_page(404, route=Route.SCORE_DELETE), html_page(404, route=Route.TRACE_DELETE))

    assert await annotations.delete_score("feedback-1") == Retry("http_404")
    assert await annotations.delete_traces(trace_ids("m1")) == Retry("http_404")


@pytest.mark.parametrize("route", [Route.SCORES, Route.SCORE_DELETE, Route.TRACE_DELETE])
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (answer(500), Retry("http_500")),
        (answer(502), Retry("http_502")),
        (answer(503), Retry("http_503")),
        (answer(429), Retry("http_429")),
        (answer(408), Retry("http_408")),
        (answer(409), Retry("http_409")),
        (answer(301), Retry("http_301")),
        (answer(401), Refused("http_401")),
        (answer(403), Refused("http_403")),
        (html_page(400), Refused("http_400")),
        (html_page(431), Refused("http_431")),
        (answer(503, body="upstream connect error", content_type="text/plain"), Retry("http_503")),
        (answer(200, body="[" * 200_000), Delivered()),
        (cut(stored=False), Retry("RemoteProtocolError")),
        (hang(stored=False), Retry("ReadTimeout")),
        (answer(200, body='{"unheard": "of"}'), Delivered()),
        (answer(204), Delivered()),
        (garbage(), Delivered()),
    ],
    ids=lambda value: str(getattr(value, "status", "") or value)[:24],
)
async def test_every_failure_says_whether_it_passes(
    annotations: LangfuseAnnotations, fake: FakeLangfuse, route: Route, fault: Fault, outcome: DeliveryOutcome
) -> None:
    """One request each: repeating is somebody else's work, and none of it can do harm twice."""
    fake.faults.add(replace(fault, route=route))
    calls = {
        Route.SCORES: lambda: annotations.put_score(SCORE),
        Route.SCORE_DELETE: lambda: annotations.delete_score("feedback-1"),
        Route.TRACE_DELETE: lambda: annotations.delete_traces(trace_ids("m1")),
    }

    assert await calls[route]() == outcome
    assert sum(count for (seen, _), count in fake.requests.items() if seen is route) == 1


async def test_an_address_where_nothing_listens_is_said_for_scores_and_deletions(
    annotations: LangfuseAnnotations, fake: FakeLangfuse
) -> None:
    await fake.stop()
    outcomes = [
        await annotations.put_score(SCORE),
        await annotations.delete_score("feedback-1"),
        await annotations.delete_traces(trace_ids("m1")),
    ]

    for outcome in outcomes:
        assert isinstance(outcome, Retry)
        assert (
            outcome.remedy == "the connection was refused: nothing listens there, or at the proxy before it"
        )


async def test_a_page_is_no_acknowledgement(annotations: LangfuseAnnotations, fake: FakeLangfuse) -> None:
    """200 with a web page comes from a login or a proxy: the score and the traces are still as they were."""
    fake.faults.add(html_page(200, route=Route.SCORES), html_page(200, route=Route.TRACE_DELETE))

    assert await annotations.put_score(SCORE) == Retry("answered with a page")
    assert await annotations.delete_traces(trace_ids("m1")) == Retry("answered with a page")
