"""A trace that a gateway does not take is cut: still a request that the protocol's own parser reads."""

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailer.core.trace.cutting import cut_chunk, read_fields
from tailer.core.trace.observations import Level, Trace
from tailer.core.trace.otlp import SpanContext, encode_trace, frame_request
from tests.unit.documents import ANY_TEXT
from tests.unit.test_otlp import TRACES, attributes, one, spans_in

CONTEXT = SpanContext("production")
LONG = st.builds(lambda text, times: text * times, ANY_TEXT.filter(bool), st.integers(50, 2000))


def spans_of(chunk: bytes) -> list[Any]:
    return spans_in(frame_request([chunk], scope_version="0.1"))


def shrink_fully(chunk: bytes) -> list[bytes]:
    """Every chunk on the way to the smallest."""
    found = [chunk]
    while (smaller := cut_chunk(found[-1])) is not None:
        found.append(smaller)
    return found


@given(TRACES, LONG, LONG)
@settings(max_examples=60)
def test_a_cut_trace_is_smaller_and_keeps_everything_but_the_ends_of_long_texts(
    trace: Trace, question: str, status: str
) -> None:
    item = one(input=question, status_message=status, level=Level.ERROR).observations[0]
    chunk = encode_trace(replace(trace, observations=(item, *trace.observations)), CONTEXT)
    found = shrink_fully(chunk)

    for before, after in itertools.pairwise(found):
        assert len(after) < len(before) + 200
        for old, new in zip(spans_of(before), spans_of(after), strict=True):
            assert (old.trace_id, old.span_id, old.parent_span_id, old.name) == (
                new.trace_id,
                new.span_id,
                new.parent_span_id,
                new.name,
            )
            assert (old.start_time_unix_nano, old.end_time_unix_nano) == (
                new.start_time_unix_nano,
                new.end_time_unix_nano,
            )
            shown = attributes(new)
            for name, value in attributes(old).items():
                if shown[name] != value:
                    kept = re.sub(r"… \[cut: \d+ bytes left out\]$", "", str(shown[name]))
                    assert str(value).startswith(kept)
                    assert shown["langfuse.observation.metadata.cut_to_fit"] == "true"
    assert len(found[-1]) <= len(chunk)


def test_a_text_that_is_cut_twice_says_how_much_is_missing_of_the_whole() -> None:
    text = "é" * 10_000
    (*_, once, twice) = shrink_fully(encode_trace(one(input=text), CONTEXT))[:3]

    for chunk in (once, twice):
        shown = str(attributes(spans_of(chunk)[0])["langfuse.observation.input"])
        kept, _, mark = shown.partition("…")
        assert f" [cut: {2 * (len(text) - len(kept))} bytes left out]" == mark


def test_numbers_model_and_parameters_are_never_cut() -> None:
    """Half a number would be another one."""
    usage = {f"input_{number}": number for number in range(200)}
    chunk = encode_trace(one(input="x" * 5000, usage=usage, model_parameters={"stop": "y" * 5000}), CONTEXT)
    (last,) = spans_of(shrink_fully(chunk)[-1])
    (first,) = spans_of(chunk)

    for name in ("langfuse.observation.usage_details", "langfuse.observation.model.parameters"):
        assert attributes(last)[name] == attributes(first)[name]


def test_a_trace_of_short_texts_cannot_be_cut() -> None:
    assert cut_chunk(encode_trace(one(input="x" * 300), CONTEXT)) is None


@given(st.binary(max_size=40))
def test_bytes_that_are_no_message_are_an_error_and_nothing_else(content: bytes) -> None:
    try:
        fields = list(read_fields(content))
    except ValueError:
        return
    assert sum(len(inner) for _, _, inner in fields) <= len(content)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_half_a_message_is_an_error(cut: int) -> None:
    chunk = encode_trace(one(input="x"), CONTEXT)

    with pytest.raises(ValueError, match="not a message"):
        list(read_fields(chunk[:-cut]))
