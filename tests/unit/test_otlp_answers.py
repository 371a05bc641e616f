"""What an OTLP receiver's answer means, by the specification; the table in the documents has a row for each meaning."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

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
from tailer.otlp.answers import Meaning, understand
from tailer.otlp.spans import read_answer
from tailer.outbound.partial_success import PartialSuccess, read_partial_success

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
HTML = {"content-type": "text/html"}

ANSWERS = [
    (200, PROTOBUF, b"", Meaning.TAKEN, Delivered()),
    (202, {}, b"", Meaning.TAKEN, Delivered()),
    (200, HTML, b"<html></html>", Meaning.PAGE, Retry("answered with a page")),
    (307, {}, b"", Meaning.REDIRECT, Retry("http_307")),
    (400, PROTOBUF, b"", Meaning.INVALID, Rejected("http_400")),
    (415, PROTOBUF, b"", Meaning.INVALID, Rejected("http_415")),
    (422, JSON, b"{}", Meaning.INVALID, Rejected("http_422")),
    (400, {}, b"Client sent an HTTP request to an HTTPS server.\n", Meaning.GATE, Retry("http_400")),
    (400, HTML, b"<html>400 The SSL certificate error</html>", Meaning.GATE, Retry("http_400")),
    (400, {}, b"span without a name", Meaning.INVALID, Rejected("http_400")),
    (421, {}, b"", Meaning.GATE, Retry("http_421")),
    (401, {}, b"", Meaning.REFUSED, Refused("http_401")),
    (403, HTML, b"<html></html>", Meaning.REFUSED, Refused("http_403")),
    (407, HTML, b"<html></html>", Meaning.PROXY, Refused("http_407")),
    (404, {}, b"404 page not found", Meaning.NO_RECEIVER, Retry("http_404")),
    (405, {}, b"", Meaning.NO_RECEIVER, Retry("http_405")),
    (413, HTML, b"<html>nginx</html>", Meaning.TOO_LARGE, TooLarge()),
    (429, PROTOBUF, b"", Meaning.LIMITED, Retry("http_429")),
    (408, {}, b"", Meaning.UNWELL, Retry("http_408")),
    (503, PROTOBUF, b"", Meaning.UNWELL, Retry("http_503")),
    (503, JSON, b"{}", Meaning.UNWELL, Retry("http_503")),
    (503, {}, b"upstream connect error or disconnect/reset", Meaning.ANSWER_LOST, Unknown("http_503")),
    (503, HTML, b"<html>nginx</html>", Meaning.UNWELL, Retry("http_503")),
    (502, HTML, b"<html>nginx</html>", Meaning.ANSWER_LOST, Unknown("http_502")),
    (504, {}, b"", Meaning.ANSWER_LOST, Unknown("http_504")),
    (524, {}, b"", Meaning.ANSWER_LOST, Unknown("http_524")),
    (500, PROTOBUF, b"", Meaning.FAILED, Rejected("http_500")),
    (501, {}, b"", Meaning.FAILED, Rejected("http_501")),
]


@pytest.mark.parametrize(("status", "headers", "body", "meaning", "outcome"), ANSWERS)
def test_an_answer_is_told_as_what_it_is(
    status: int, headers: dict[str, str], body: bytes, meaning: Meaning, outcome: DeliveryOutcome
) -> None:
    response = httpx.Response(status, headers=headers, content=body)

    assert understand(response).meaning is meaning
    assert read_answer(response) == outcome


def test_every_meaning_is_in_the_table_of_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs" / "otlp.md").read_text("utf-8")

    table = text.split("## Answers", 1)[1].split("## Metrics", 1)[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {meaning.value for meaning in Meaning}
    assert {meaning for _, _, _, meaning, _ in ANSWERS} == set(Meaning)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_pause_that_is_asked_for_is_kept_in_every_form(status: int, form: str) -> None:
    """RFC 9110 has two."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    outcome = read_answer(
        httpx.Response(status, headers={"retry-after": "30" if form == "seconds" else date})
    )

    assert isinstance(outcome, Retry | Unknown)
    assert outcome.after_seconds == pytest.approx(30, abs=2)


def test_a_refusal_names_what_to_check() -> None:
    outcome = read_answer(httpx.Response(401))

    assert isinstance(outcome, Refused)
    assert "OTEL_EXPORTER_OTLP_HEADERS" in outcome.remedy


def test_http_where_the_receiver_speaks_https_is_named_and_nothing_is_rejected() -> None:
    """What a receiver in Go says on its TLS port, in plain text."""
    outcome = read_answer(httpx.Response(400, content=b"Client sent an HTTP request to an HTTPS server.\n"))

    assert isinstance(outcome, Retry)
    assert "http where the receiver speaks https" in outcome.remedy


def test_a_limit_and_a_server_in_trouble_are_counted_apart() -> None:
    limited, unwell = read_answer(httpx.Response(429)), read_answer(httpx.Response(503, headers=PROTOBUF))

    assert isinstance(limited, Retry)
    assert isinstance(unwell, Retry)
    assert (limited.result, unwell.result) == (RequestResult.RATE_LIMITED, RequestResult.SERVER_ERROR)


def told(rejected: int, message: str) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = message
    encoded: bytes = answer.SerializeToString()
    return encoded


def told_of_points(rejected: int) -> bytes:
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = rejected
    encoded: bytes = answer.SerializeToString()
    return encoded


@pytest.mark.parametrize(
    ("body", "media", "expected"),
    [
        (b"", "application/x-protobuf", PartialSuccess()),
        (told(3, "too old"), "application/x-protobuf", PartialSuccess(3, has_message=True)),
        (told(0, "slow down"), "application/x-protobuf", PartialSuccess(0, has_message=True)),
        (told(-1, ""), "application/x-protobuf", PartialSuccess()),
        (told_of_points(5), "application/x-protobuf; charset=x", PartialSuccess(5)),
        (b"{}", "application/json", PartialSuccess()),
        (b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"no"}}', "application/json", PartialSuccess(2, has_message=True)),
        (b'{"partialSuccess":{"rejectedDataPoints":4}}', "application/json", PartialSuccess(4)),
        (b'{"partialSuccess":[]}', "application/json", PartialSuccess()),
        (b'{"partialSuccess":{"rejectedSpans":"many"}}', "application/json", PartialSuccess()),
        (b'{"partialSuccess":{"rejectedSpans":1e999}}', "application/json", PartialSuccess()),
        (b'{"partialSuccess":{"rejectedSpans":"' + b"9" * 5000 + b'"}}', "application/json", PartialSuccess()),
        (b"[" * 200_000, "application/json", PartialSuccess()),
        (b"[1]", "application/json", PartialSuccess()),
        (b"{", "application/json", PartialSuccess()),
        (b"\xff", "application/x-protobuf", PartialSuccess()),
        (b"ok", "text/plain", PartialSuccess()),
    ],
)  # fmt: skip
def test_what_was_not_taken_is_read_in_every_form(body: bytes, media: str, expected: PartialSuccess) -> None:
    response = httpx.Response(200, headers={"content-type": media}, content=body)

    assert read_partial_success(response) == expected
    outcome = read_answer(response)
    assert isinstance(outcome, Delivered)
    assert outcome.rejected_spans == expected.rejected


@given(
    st.integers(200, 599),
    st.sampled_from(["", "text/html", "application/json", "application/x-protobuf"]),
    st.binary(max_size=50),
)
def test_every_answer_has_a_meaning_and_a_short_reason(status: int, media: str, body: bytes) -> None:
    """Never a part of the body: it may repeat what was sent."""
    response = httpx.Response(status, headers={"content-type": media}, content=body)

    assert understand(response).reason in (f"http_{status}", "answered with a page")
    assert read_answer(response) is not None
