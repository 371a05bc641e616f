"""The wire format, read back with the protocol's own parser: what goes in comes out."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tailer.core.identity import ObservationId, TraceId
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.core.trace.otlp import SpanContext, encode_trace, frame_request
from tests.unit.documents import (
    ANY_TEXT,
    VALUES,
    response_row,
    trace_of,
    turn_record,
    usage_metadata,
    user_row,
)

CONTEXT = SpanContext("production", "v1.2.3")
HEX = st.sampled_from("0123456789abcdef")
LONG_TEXT = st.one_of(
    ANY_TEXT,
    # Lengths around those at which a length needs another byte.
    st.builds(lambda size, sign: sign * size, st.sampled_from([126, 127, 128, 129, 16_383, 16_384]), st.sampled_from("aé€😀\ud800\0")),
    st.just("x" * 2_097_153),
)  # fmt: skip
TIMES = st.integers(0, 7_258_118_400_000)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
NUMBERS = st.integers(0, 2**53)
OBSERVATIONS = st.builds(
    Observation,
    id=st.text(HEX, min_size=16, max_size=16).map(ObservationId),
    parent_id=st.none() | st.text(HEX, min_size=16, max_size=16).map(ObservationId),
    type=st.sampled_from(ObservationType),
    name=ANY_TEXT,
    start_milliseconds=TIMES,
    end_milliseconds=TIMES,
    level=st.sampled_from(Level),
    status_message=st.none() | ANY_TEXT,
    input=st.none() | LONG_TEXT | VALUES,
    output=st.none() | ANY_TEXT | VALUES,
    model=st.none() | ANY_TEXT,
    model_parameters=st.none() | st.dictionaries(NAMES, VALUES, max_size=3),
    usage=st.none() | st.dictionaries(NAMES, NUMBERS, max_size=3),
    cost=st.none() | st.dictionaries(NAMES, st.floats(0, 1e6), max_size=3),
    metadata=st.dictionaries(NAMES, ANY_TEXT, max_size=3),
)
TRACES = st.builds(
    Trace,
    id=st.text(HEX, min_size=32, max_size=32).map(TraceId),
    name=st.just("librechat-turn"),
    message_id=st.just("m"),
    document_key=st.just("k"),
    user_id=st.none() | ANY_TEXT,
    session_id=ANY_TEXT,
    tags=st.lists(ANY_TEXT, max_size=3).map(tuple),
    metadata=st.dictionaries(NAMES, ANY_TEXT, max_size=3),
    observations=st.lists(OBSERVATIONS, max_size=3).map(tuple),
)


def spans_in(request: bytes) -> list[Any]:
    parsed = ExportTraceServiceRequest.FromString(request)
    assert parsed.SerializeToString() is not None
    assert len(parsed.resource_spans) == 1
    assert len(parsed.resource_spans[0].scope_spans) == 1
    return list(parsed.resource_spans[0].scope_spans[0].spans)


def spans_of(trace: Trace, context: SpanContext = CONTEXT) -> list[Any]:
    return spans_in(frame_request([encode_trace(trace, context)], scope_version="0.1"))


def attributes(span: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for attribute in span.attributes:
        assert attribute.key not in found, "an attribute stands once"
        kind = attribute.value.WhichOneof("value")
        assert kind in ("string_value", "array_value")
        value = attribute.value
        found[attribute.key] = (
            value.string_value
            if kind == "string_value"
            else [item.string_value for item in value.array_value.values]
        )
    return found


LABEL_CHARACTERS = 200
METADATA_CHARACTERS = 4_000


def wire(text: str) -> str:
    """A lone surrogate has no UTF-8 form."""
    return text.encode("utf-8", "replace").decode()


def printable(text: str) -> str:
    """And a NUL is not for every database."""
    return wire(text).replace("\0", "\ufffd")


def expected_attributes(trace: Trace, item: Observation, context: SpanContext) -> dict[str, object]:
    found: dict[str, object] = {
        "langfuse.trace.name": trace.name,
        "session.id": printable(trace.session_id[:LABEL_CHARACTERS]),
        "langfuse.environment": context.environment,
        "langfuse.observation.type": item.type.value,
    }
    optional = {
        "user.id": trace.user_id[:LABEL_CHARACTERS] if trace.user_id is not None else None,
        "langfuse.release": context.release,
        "langfuse.observation.level": None if item.level is Level.DEFAULT else item.level.value,
        "langfuse.observation.status_message": item.status_message,
        "langfuse.observation.model.name": item.model[:LABEL_CHARACTERS] if item.model is not None else None,
        **{
            f"langfuse.trace.metadata.{name}": value[:METADATA_CHARACTERS]
            for name, value in trace.metadata.items()
        },
        **{
            f"langfuse.observation.metadata.{f'observation_{name}' if name in trace.metadata else name}": value
            for name, value in item.metadata.items()
            if trace.metadata.get(name) != value
        },
    }
    found.update({name: printable(value) for name, value in optional.items() if value is not None})
    if trace.tags:
        found["langfuse.trace.tags"] = [printable(tag) for tag in trace.tags]
    return found


CONTENT = {"langfuse.observation.input": "input", "langfuse.observation.output": "output"}
JSON_ATTRIBUTES = {
    **CONTENT,
    "langfuse.observation.model.parameters": "model_parameters",
    "langfuse.observation.usage_details": "usage",
    "langfuse.observation.cost_details": "cost",
}


@given(TRACES, st.none() | st.just("v1.2.3"))
@settings(max_examples=150)
def test_every_field_comes_back_as_it_went_in(trace: Trace, release: str | None) -> None:
    context = SpanContext("production", release)
    spans = spans_of(trace, context)

    assert len(spans) == len(trace.observations)
    for span, item in zip(spans, trace.observations, strict=True):
        assert span.trace_id.hex() == trace.id
        assert span.span_id.hex() == item.id
        assert span.parent_span_id.hex() == (item.parent_id or "")
        assert span.name == printable(item.name[:LABEL_CHARACTERS])
        assert span.kind == 1
        assert span.start_time_unix_nano == item.start_milliseconds * 1_000_000
        assert span.end_time_unix_nano == max(item.start_milliseconds, item.end_milliseconds) * 1_000_000
        assert span.status.code == (2 if item.level is Level.ERROR else 0)
        assert span.status.message == (
            printable(item.status_message or "") if item.level is Level.ERROR else ""
        )
        assert not span.events
        assert not span.links
        found = attributes(span)
        encoded = {name: found.pop(name) for name in JSON_ATTRIBUTES if name in found}
        assert found == expected_attributes(trace, item, context)
        assert encoded.keys() == {
            name for name, part in JSON_ATTRIBUTES.items() if getattr(item, part) is not None
        }
        for name, value in encoded.items():
            content = getattr(item, JSON_ATTRIBUTES[name])
            if name in CONTENT and isinstance(content, str):
                assert value == printable(content)
            else:
                json.loads(str(value))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def one(**fields: Any) -> Trace:
    item = Observation(
        id=ObservationId("0" * 15 + "1"),
        parent_id=None,
        type=ObservationType.AGENT,
        name="turn",
        start_milliseconds=1,
        end_milliseconds=2,
        **fields,
    )
    return Trace(TraceId("0" * 31 + "1"), "n", "m", "k", None, "s", (), {}, (item,))


@given(ANY_TEXT)
def test_a_text_goes_as_it_is(text: str) -> None:
    """In quotes and with escapes Langfuse's search would not find the first word of a line."""
    (span,) = spans_of(one(input=text, output=f"first\nsecond {text}"))
    found = attributes(span)

    assert found["langfuse.observation.input"] == printable(text)
    assert found["langfuse.observation.output"] == f"first\nsecond {printable(text)}"


def test_what_an_observation_notes_under_a_name_of_the_trace_has_a_name_of_its_own() -> None:
    """Langfuse shows the trace's value under that name; the same value is not sent twice."""
    trace = replace(
        one(metadata={"agent_id": "b", "sender": "A", "tool": "x"}), metadata={"agent_id": "a", "sender": "A"}
    )
    (span,) = spans_of(trace)
    found = {name: value for name, value in attributes(span).items() if ".metadata." in name}

    assert found == {
        "langfuse.trace.metadata.agent_id": "a",
        "langfuse.trace.metadata.sender": "A",
        "langfuse.observation.metadata.observation_agent_id": "b",
        "langfuse.observation.metadata.tool": "x",
    }


@given(JSON_VALUES.filter(lambda value: not isinstance(value, str | None)), st.dictionaries(NAMES, NUMBERS))
def test_input_output_and_numbers_are_json_of_what_went_in(value: object, usage: Mapping[str, int]) -> None:
    (span,) = spans_of(one(input=value, output=[value], usage=usage, cost={"total": 0.25}))
    found = attributes(span)

    assert json.loads(str(found["langfuse.observation.input"])) == value
    assert json.loads(str(found["langfuse.observation.output"])) == [value]
    assert json.loads(str(found["langfuse.observation.usage_details"])) == usage
    assert found["langfuse.observation.cost_details"] == '{"total":0.25}'


@pytest.mark.parametrize(
    "size", [0, 1, 125, 126, 127, 128, 129, 16_382, 16_383, 16_384, 2_097_151, 2_097_152, 2_097_153]
)
@pytest.mark.parametrize("sign", ["a", "é", "😀"])
def test_texts_of_every_length_keep_their_length(size: int, sign: str) -> None:
    """At 128, 16,384 and 2,097,152 bytes a length takes another byte; so does every message around it."""
    text = sign * (size // len(sign.encode()))
    (span,) = spans_of(one(status_message=text))

    assert attributes(span)["langfuse.observation.status_message"] == text


@given(ANY_TEXT, st.integers(0, 5_000))
def test_what_anybody_may_have_stored_is_cut_where_every_span_repeats_it(text: str, repeats: int) -> None:
    """Langfuse refuses longer session and user ids, and a model's name of a megabyte would be sent with each span."""
    long = text + "x" * repeats
    (item,) = one(model=long).observations
    trace = replace(
        one(),
        user_id=long,
        session_id=long,
        metadata={"sender": long},
        observations=(replace(item, name=long),),
    )
    (span,) = spans_of(trace)
    found = attributes(span)

    label = printable(long[:LABEL_CHARACTERS])
    assert span.name == label
    for name in ("user.id", "session.id", "langfuse.observation.model.name"):
        assert found[name] == label
    assert found["langfuse.trace.metadata.sender"] == printable(long[:METADATA_CHARACTERS])


@given(st.lists(TRACES, max_size=5), st.integers(0, 5))
@settings(max_examples=50)
def test_chunks_can_be_joined_and_split_without_encoding_anything_again(
    traces: list[Trace], cut: int
) -> None:
    """A batch that is too large goes in two, and each span is sent once."""
    chunks = [encode_trace(trace, CONTEXT) for trace in traces]
    whole = spans_in(frame_request(chunks, scope_version="0.1"))
    halves = [frame_request(half, scope_version="0.1") for half in (chunks[:cut], chunks[cut:])]

    assert whole == [span for half in halves for span in spans_in(half)]
    assert whole == [span for trace in traces for span in spans_of(trace)]
    assert frame_request([b"".join(chunks)], scope_version="0.1") == frame_request(
        chunks, scope_version="0.1"
    )


def test_a_request_names_the_service_and_the_version_that_made_it() -> None:
    parsed = ExportTraceServiceRequest.FromString(frame_request([], scope_version="0.1"))
    (resource_spans,) = parsed.resource_spans
    (scope_spans,) = resource_spans.scope_spans

    assert [(item.key, item.value.string_value) for item in resource_spans.resource.attributes] == [
        ("service.name", "librechat-tailer")
    ]
    # Under another beginning Langfuse copies every attribute into the metadata.
    assert (scope_spans.scope.name, scope_spans.scope.version) == ("langfuse-sdk-librechat-tailer", "0.1")


@given(TRACES)
@settings(max_examples=30)
def test_a_retry_is_the_same_bytes(trace: Trace) -> None:
    assert encode_trace(trace, CONTEXT) == encode_trace(trace, CONTEXT)


def test_a_real_turn_says_the_same_on_every_span() -> None:
    """Langfuse takes a trace's session, user and tags from any of its spans."""
    record = turn_record(response_row(metadata=usage_metadata(108, 13)), user_row())
    spans = spans_of(trace_of(record, tags=("team-a",)))
    shared = [
        {
            name: value
            for name, value in attributes(span).items()
            if not name.startswith("langfuse.observation.")
        }
        for span in spans
    ]

    assert len(spans) == 2
    assert shared[0] == shared[1]
    assert shared[0]["langfuse.trace.tags"] == ["team-a"]


@pytest.mark.parametrize("environment", ["production", "a", "0_-", "x" * 40, "my-langfuse"])
def test_an_environment_that_langfuse_shows_is_accepted(environment: str) -> None:
    assert SpanContext(environment).environment == environment


@pytest.mark.parametrize(
    "environment", ["", "x" * 41, "Prod", "langfuse", "langfuse-test", "a b", "ü", "prod\n", "a.b"]
)
def test_an_environment_that_langfuse_would_show_as_default_is_refused(environment: str) -> None:
    """It does so without a word."""
    with pytest.raises(ValueError, match="environment"):
        SpanContext(environment)
