"""Every rule of the fake Langfuse server refuses the span that breaks it and lets the sample pass."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValueList

from tests.fakes.langfuse import FakeLangfuse, Rules
from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.samples import (
    GENERATION_ID,
    ROOT_ID,
    START,
    TRACE_ID,
    SampleSpan,
    compressed,
    encode_protobuf,
    generation_span,
    json_document,
    request_headers,
    root_span,
)

EXPORT = "/api/public/otel/v1/traces"
Change = Callable[[SampleSpan], SampleSpan]


async def send(fake: FakeLangfuse, *spans: SampleSpan) -> httpx.Response:
    """Post spans as an exporter would."""
    async with httpx.AsyncClient(base_url=fake.url) as client:
        return await client.post(EXPORT, content=encode_protobuf(spans), headers=request_headers())


async def send_json(fake: FakeLangfuse, document: dict[str, Any]) -> httpx.Response:
    """Post a JSON export."""
    async with httpx.AsyncClient(base_url=fake.url) as client:
        headers = request_headers(content_type="application/json")
        return await client.post(EXPORT, content=json.dumps(document), headers=headers)


def observation(key: str, value: Any) -> Change:
    """A change of one attribute."""
    return lambda span: span.having({key: value})


def fields(**changes: Any) -> Change:
    """A change of the span itself."""
    return lambda span: replace(span, **changes)


BROKEN: list[tuple[str, str, Change]] = [
    ("short trace id", "trace_id", fields(trace_id="0123456789abcdef")),
    ("zero trace id", "trace_id", fields(trace_id="0" * 32)),
    ("short span id", "span_id", fields(span_id="a1")),
    ("zero span id", "span_id", fields(span_id="0" * 16)),
    ("short parent id", "parent_span_id", fields(parent_span_id="a1")),
    ("zero parent id", "parent_span_id", fields(parent_span_id="0" * 16)),
    ("own parent", "parent_span_id", fields(parent_span_id=GENERATION_ID)),
    ("no name", "name", fields(name="")),
    ("no start", "timestamp_zero", fields(start=0)),
    ("no end", "timestamp_zero", fields(end=0)),
    ("milliseconds", "timestamp_unit", fields(start=1_760_000_000_123, end=1_760_000_000_124)),
    ("end before start", "ends_before_start", fields(end=START - 1)),
    ("key-value list", "attribute_value", observation("other", AnyValue(kvlist_value=KeyValueList()))),
    ("bytes", "attribute_value", observation("other", AnyValue(bytes_value=b"x"))),
    ("empty value", "attribute_value", observation("other", AnyValue())),
    (
        "array of numbers",
        "attribute_value",
        observation("other", AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1)]))),
    ),
    ("not a number", "attribute_value", observation("other", float("nan"))),
    ("no type", "observation_type", observation(names.TYPE, None)),
    ("unknown type", "observation_type", observation(names.TYPE, "llm")),
    ("unknown level", "level", observation(names.LEVEL, "INFO")),
    ("parameters that are no object", "json", observation(names.MODEL_PARAMETERS, "[1]")),
    ("usage that is no object", "json", observation(names.USAGE_DETAILS, "12")),
    ("cost that is no JSON", "json", observation(names.COST_DETAILS, "{")),
    ("unknown usage key", "usage_details", observation(names.USAGE_DETAILS, '{"prompt_tokens": 1}')),
    ("negative usage", "usage_details", observation(names.USAGE_DETAILS, '{"input": -1}')),
    ("fractional usage", "usage_details", observation(names.USAGE_DETAILS, '{"input": 1.5}')),
    ("boolean usage", "usage_details", observation(names.USAGE_DETAILS, '{"input": true}')),
    ("cost without total", "cost_details", observation(names.COST_DETAILS, '{"input": 0.1}')),
    ("negative cost", "cost_details", observation(names.COST_DETAILS, '{"total": -0.1}')),
    ("endless cost", "cost_details", observation(names.COST_DETAILS, '{"total": 1e999}')),
    ("cost as text", "cost_details", observation(names.COST_DETAILS, '{"total": "0.1"}')),
    (
        "model alone",
        "server_would_tokenise",
        lambda span: span.having({names.USAGE_DETAILS: None, names.COST_DETAILS: None}),
    ),
    (
        "model with empty usage",
        "server_would_tokenise",
        lambda span: span.having({names.USAGE_DETAILS: "{}", names.COST_DETAILS: None}),
    ),
    (
        "model of a failed call alone",
        "server_would_tokenise",
        lambda span: span.having({names.USAGE_DETAILS: None, names.COST_DETAILS: None, names.LEVEL: "ERROR"}),
    ),
    (
        "model with an answer's tokens only",
        "server_would_price",
        lambda span: span.having({names.USAGE_DETAILS: '{"output": 321}', names.COST_DETAILS: None}),
    ),
    (
        "first token without zone",
        "completion_start_time",
        observation(names.COMPLETION_START_TIME, "2025-10-09"),
    ),
    ("first token as text", "completion_start_time", observation(names.COMPLETION_START_TIME, "soon")),
    ("upper case environment", "environment", observation(names.ENVIRONMENT, "Test")),
    ("reserved environment", "environment", observation(names.ENVIRONMENT, "langfuse-test")),
    ("long environment", "environment", observation(names.ENVIRONMENT, "e" * 41)),
    ("long session id", "too_long", observation(names.SESSION_ID, "s" * 201)),
    ("long user id", "too_long", observation(names.USER_ID, "u" * 201)),
    ("user id that is a number", "attribute_type", observation(names.USER_ID, 7)),
    ("long tag", "tags", observation(names.TRACE_TAGS, ["t" * 201])),
    ("empty tag", "tags", observation(names.TRACE_TAGS, [""])),
    ("tags as text", "attribute_type", observation(names.TRACE_TAGS, "one,two")),
    ("public as text", "attribute_type", observation(names.TRACE_PUBLIC, "true")),
    ("no trace name", "missing_on_span", observation(names.TRACE_NAME, None)),
    ("no session", "missing_on_span", observation(names.SESSION_ID, None)),
    ("no user", "missing_on_span", observation(names.USER_ID, "")),
    ("no environment", "missing_on_span", observation(names.ENVIRONMENT, None)),
    ("another session", "trace_not_equal", observation(names.SESSION_ID, "conversation-2")),
    ("another user", "trace_not_equal", observation(names.USER_ID, "user-2")),
    ("another trace name", "trace_not_equal", observation(names.TRACE_NAME, "title")),
    ("another environment", "trace_not_equal", observation(names.ENVIRONMENT, "other")),
    ("trace input", "forbidden_attribute", observation("langfuse.trace.input", '"x"')),
    ("trace output", "forbidden_attribute", observation("langfuse.trace.output", '"x"')),
    ("picture in the input", "data_uri", observation(names.INPUT, '"data:image/png;base64,iVBORw0KGgo="')),
    ("picture in a tag", "data_uri", observation(names.TRACE_TAGS, ["data:image/png;base64,iVBORw0KGgo="])),
    ("unknown attribute", "unknown_attribute", observation("langfuse.observation.cost", "1")),
    ("metadata without key", "unknown_attribute", observation("langfuse.observation.metadata.", "1")),
]


@pytest.mark.parametrize(("rule", "change"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
async def test_a_broken_rule_refuses_the_whole_batch_and_names_the_span(rule: str, change: Change) -> None:
    """One bad span: status 400, nothing stored, the rule recorded and the span named."""
    bad = change(generation_span())
    good = root_span() if rule == "trace_not_equal" else root_span(trace_id="f" * 32)

    async with FakeLangfuse() as fake:
        response = await send(fake, good, bad)

        found = {violation.rule for violation in fake.violations}
        assert (response.status_code, found, fake.spans) == (400, {rule}, [])
        assert f"({bad.trace_id}/{bad.span_id})" in response.json()["message"]


async def test_the_sample_trace_breaks_no_rule() -> None:
    """A valid batch is stored with its attributes decoded and its JSON parsed."""
    async with FakeLangfuse() as fake:
        response = await send(fake, root_span(), generation_span())

        assert (response.status_code, response.json(), fake.violations) == (200, {}, [])
        root, generation = fake.trace(TRACE_ID)
        assert (root.arrival, root.type, root.input) == (0, "agent", "What is the time?")
        assert root.output == {"role": "assistant", "content": "Noon"}
        assert (root.metadata, root.attributes[names.TRACE_TAGS]) == ({"outcome": "complete"}, ("tag",))
        assert (generation.arrival, generation.parent_span_id) == (1, ROOT_ID)
        assert generation.usage_details == {"input": 120, "output": 30, "input_cached_tokens": 0}
        assert generation.cost_details["total"] == 0.003


@pytest.mark.parametrize("text", ["plain text", "[NaN]", "42", "{half", '"quoted"', ""])
async def test_a_text_is_kept_as_it_is(text: str) -> None:
    """Langfuse stores what stands there, as its own SDK sends it."""
    async with FakeLangfuse() as fake:
        await send(fake, root_span().having({names.INPUT: text}))

        assert (fake.violations, fake.spans[0].input) == ([], text)


async def test_a_trace_must_speak_with_one_voice_across_requests() -> None:
    """A later span is compared with what the trace said when its first span was stored."""
    async with FakeLangfuse() as fake:
        await send(fake, root_span())
        response = await send(fake, generation_span().having({names.USER_ID: "user-2"}))

        assert (response.status_code, [v.rule for v in fake.violations]) == (400, ["trace_not_equal"])


async def test_a_repeated_attribute_is_refused() -> None:
    """Which of two values Langfuse keeps is nobody's promise."""
    document = json_document([root_span()])
    sent = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
    sent.append(sent[0])

    async with FakeLangfuse() as fake:
        response = await send_json(fake, document)

        assert (response.status_code, [v.rule for v in fake.violations]) == (400, ["attribute_repeated"])


async def test_a_json_export_is_stored_like_a_protobuf_export() -> None:
    """Both encodings give the same spans, but for their size."""
    async with FakeLangfuse() as fake:
        await send(fake, root_span(), generation_span())
        response = await send_json(fake, json_document([root_span(), generation_span()]))

        assert (response.status_code, len(fake.spans)) == (200, 4)
        first, second = (
            replace(stored.span, size_bytes=0, scope_name="") for stored in (fake.spans[1], fake.spans[3])
        )
        assert first == second


@pytest.mark.parametrize(
    "trace_id",
    [
        base64.b64encode(bytes.fromhex(TRACE_ID)).decode(),
        "01234567-89ab-cdef-0123-456789abcdef",
        TRACE_ID.upper(),
    ],
)
async def test_ids_that_langfuse_would_take_as_they_are_are_refused(trace_id: str) -> None:
    """Base64, dashed and upper case ids in JSON would silently make another trace."""
    document = json_document([root_span()])
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] = trace_id

    async with FakeLangfuse() as fake:
        response = await send_json(fake, document)

        assert (response.status_code, [v.rule for v in fake.violations]) == (400, ["trace_id"])
        assert "32 lower case hex digits" in response.json()["message"]


async def test_attributes_given_as_an_object_are_refused() -> None:
    """OTLP attributes are a list; an object cannot be read at all."""
    document = json_document([root_span()])
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] = {"user.id": "u"}

    async with FakeLangfuse() as fake:
        response = await send_json(fake, document)

        assert (response.status_code, "attributes must be an array" in response.json()["message"]) == (
            400,
            True,
        )


async def test_a_parent_that_never_arrives_is_listed() -> None:
    """Children may come first; who stays an orphan is told on request."""
    async with FakeLangfuse() as fake:
        await send(fake, generation_span())
        alone = fake.unresolved_parents()
        await send(fake, root_span())

        assert (alone, fake.unresolved_parents()) == ([(TRACE_ID, GENERATION_ID)], [])


async def test_duplicates_are_kept_and_listed() -> None:
    """Langfuse does not deduplicate what it reads, so neither does the fake."""
    async with FakeLangfuse() as fake:
        await send(fake, root_span(), generation_span())
        await send(fake, root_span())

        assert (fake.duplicates(), len(fake.spans)) == ([(TRACE_ID, ROOT_ID)], 3)


@pytest.mark.parametrize(
    ("header", "value", "status", "part"),
    [
        ("x-langfuse-ingestion-version", "3", 400, "ingestion_version"),
        ("x-langfuse-ingestion-version", None, 400, "ingestion_version"),
        ("Content-Encoding", "deflate", 415, "deflate"),
        ("Content-Encoding", "identity", 415, "identity"),
        ("Content-Encoding", "gzip", 400, "decompress"),
        ("Content-Type", "text/plain", 400, "content type"),
        ("Authorization", "Basic nonsense", 401, "credentials"),
        ("Authorization", None, 401, "credentials"),
    ],
)
async def test_a_wrong_header_is_refused(header: str, value: str | None, status: int, part: str) -> None:
    """Version, encoding, type and keys are checked before the body counts for anything."""
    headers = {key: text for key, text in {**request_headers(), header: value}.items() if text is not None}

    async with FakeLangfuse() as fake, httpx.AsyncClient(base_url=fake.url) as client:
        response = await client.post(EXPORT, content=encode_protobuf([root_span()]), headers=headers)

        assert (response.status_code, part in response.json()["message"], fake.spans) == (status, True, [])


async def test_a_body_that_is_no_protobuf_is_refused() -> None:
    """What cannot be decoded is answered with 400."""
    async with FakeLangfuse() as fake, httpx.AsyncClient(base_url=fake.url) as client:
        response = await client.post(EXPORT, content=b"\xff\xff\xff", headers=request_headers())

        assert response.status_code == 400


async def test_a_compressed_body_is_measured_on_the_wire() -> None:
    """The body limit counts compressed bytes, as a proxy does; both sizes are kept."""
    body = encode_protobuf([root_span().having({names.INPUT: json.dumps("a" * 100_000)})])
    headers = {**request_headers(), "Content-Encoding": "gzip"}

    async with (
        FakeLangfuse(rules=Rules(body_limit_bytes=10_000)) as fake,
        httpx.AsyncClient(base_url=fake.url) as client,
    ):
        small = await client.post(EXPORT, content=compressed(body), headers=headers)
        large = await client.post(EXPORT, content=body, headers=request_headers())

        assert (small.status_code, large.status_code) == (200, 413)
        assert (fake.state.spans.wire_bytes, fake.state.spans.body_bytes) == (
            len(compressed(body)),
            len(body),
        )


async def test_a_body_that_grows_beyond_measure_is_refused() -> None:
    """The decompressed size has a limit of its own."""
    async with (
        FakeLangfuse(rules=Rules(decompressed_limit_bytes=100)) as fake,
        httpx.AsyncClient(base_url=fake.url) as client,
    ):
        headers = {**request_headers(), "Content-Encoding": "gzip"}
        body = compressed(encode_protobuf([root_span()]))

        assert (await client.post(EXPORT, content=body, headers=headers)).status_code == 413


async def test_a_span_above_the_limit_is_refused() -> None:
    """Langfuse drops an oversized span with status 200; the fake says so."""
    async with FakeLangfuse(rules=Rules(span_limit_bytes=1_000)) as fake:
        response = await send(fake, root_span().having({names.INPUT: json.dumps("a" * 2_000)}))

        assert (response.status_code, [v.rule for v in fake.violations]) == (400, ["span_too_large"])
