"""What an answer means, whoever gives it; the table in the documents has a row for each meaning."""

import re
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.langfuse.answers import Meaning, understand

JSON = {"content-type": "application/json; charset=utf-8"}
HTML = {"content-type": "text/html; charset=utf-8"}
XML = {"content-type": "application/xml"}
TEXT = {"content-type": "text/plain"}
SUSPENDED = b'{"message":"Ingestion suspended: Usage threshold exceeded. Please upgrade your plan.","error":"ForbiddenError"}'
PAGE = b"<!DOCTYPE html><html></html>"

ANSWERS = [
    (200, JSON, b"{}", Meaning.TAKEN),
    (200, {}, b"", Meaning.TAKEN),
    (207, JSON, b"{}", Meaning.TAKEN),
    (200, HTML, PAGE, Meaning.PAGE),
    (200, {"content-type": "text/plain"}, b"\n <HTML>", Meaning.PAGE),
    (302, HTML, b"", Meaning.REDIRECT),
    (401, JSON, b'{"message":"Invalid credentials"}', Meaning.WRONG_KEYS),
    (403, JSON, b"{}", Meaning.WRONG_KEYS),
    (403, JSON, SUSPENDED, Meaning.USAGE_THRESHOLD),
    (403, HTML, PAGE, Meaning.GATE),
    (403, XML, b"<Error><Code>AccessDenied</Code></Error>", Meaning.GATE),
    (401, TEXT, b"RBAC: access denied", Meaning.GATE),
    (400, HTML, b"<html>400 The SSL certificate error</html>", Meaning.GATE),
    (400, {}, b"", Meaning.INVALID),
    (400, {}, b"Client sent an HTTP request to an HTTPS server.\n", Meaning.GATE),
    (431, {}, b"", Meaning.GATE),
    (421, TEXT, b"Misdirected Request", Meaning.GATE),
    (431, HTML, PAGE, Meaning.GATE),
    (451, XML, b"<Error/>", Meaning.GATE),
    (407, HTML, PAGE, Meaning.PROXY),
    (404, JSON, b"{}", Meaning.NOT_THERE),
    (404, HTML, PAGE, Meaning.NO_LANGFUSE),
    (404, {"content-type": "text/plain"}, b"default backend - 404", Meaning.NO_LANGFUSE),
    (405, HTML, b"<html>405 Not Allowed</html>", Meaning.NO_LANGFUSE),
    (413, HTML, b"<html>nginx</html>", Meaning.TOO_LARGE),
    (400, JSON, b"{}", Meaning.INVALID),
    (422, JSON, b"{}", Meaning.INVALID),
    (429, JSON, b"{}", Meaning.LIMITED),
    (429, HTML, PAGE, Meaning.LIMITED),
    (408, JSON, b"{}", Meaning.UNWELL),
    (500, JSON, b"{}", Meaning.UNWELL),
    (500, HTML, PAGE, Meaning.UNWELL),
    (503, JSON, b'{"message":"Service Unavailable"}', Meaning.UNWELL),
    (503, HTML, PAGE, Meaning.UNWELL),
    (503, TEXT, b"upstream connect error or disconnect/reset before headers", Meaning.ANSWER_LOST),
    (502, HTML, PAGE, Meaning.ANSWER_LOST),
    (504, JSON, b"{}", Meaning.ANSWER_LOST),
    (524, HTML, PAGE, Meaning.ANSWER_LOST),
]


@pytest.mark.parametrize(("status", "headers", "body", "meaning"), ANSWERS)
def test_an_answer_is_told_as_what_it_is(
    status: int, headers: dict[str, str], body: bytes, meaning: Meaning
) -> None:
    assert understand(httpx.Response(status, headers=headers, content=body)).meaning is meaning


def test_a_gate_names_what_it_may_ask_for() -> None:
    """Headers, a certificate, or https: nginx says 400 with a page to a certificate that has expired."""
    remedy = understand(httpx.Response(400, headers=HTML, content=PAGE)).remedy

    for setting in (
        "TAILER_LANGFUSE_HEADERS",
        "TAILER_LANGFUSE_CERT_FILE",
        "TAILER_LANGFUSE_KEY_FILE",
        "LANGFUSE_HOST",
    ):
        assert setting in remedy


def test_a_proxy_that_asks_for_a_password_is_told_apart_from_a_gateway() -> None:
    """Only the proxy on our side answers 407: the headers for Langfuse are not for it."""
    remedy = understand(httpx.Response(407, headers=HTML, content=PAGE)).remedy

    assert "HTTPS_PROXY" in remedy
    assert "password" in remedy
    assert "TAILER_LANGFUSE_HEADERS" not in remedy


def test_every_meaning_is_in_the_table_of_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs" / "langfuse-answers.md").read_text("utf-8")

    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {meaning.value for meaning in Meaning}
    assert {meaning for _, _, _, meaning in ANSWERS} == set(Meaning)


@given(
    st.integers(200, 599),
    st.sampled_from(["", "text/html", "application/json", "application/problem+json", "x"]),
    st.binary(max_size=50),
)
def test_every_answer_has_a_meaning_and_a_short_reason(status: int, media: str, body: bytes) -> None:
    """Never a part of the body: it may repeat what was sent."""
    found = understand(httpx.Response(status, headers={"content-type": media}, content=body))

    assert found.reason in (f"http_{status}", "usage_threshold", "answered with a page")
