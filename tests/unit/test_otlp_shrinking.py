"""A trace that is too large for a receiver: the longest texts are cut, and what was JSON stays JSON."""

import json

from hypothesis import given, settings

from tailer.core.trace.observations import Trace
from tailer.otlp.encoding import encode_resource, encode_trace, frame_request
from tailer.otlp.shrinking import shrink_chunk
from tests.fakes.otlp.decoding import ReceivedSpan, decode_spans
from tests.unit.documents import response_row, tool_part, traces_of, turn_record, user_row
from tests.unit.test_otlp import TRACES
from tests.unit.test_otlp_conventions import request_of


def read(chunk: bytes) -> list[ReceivedSpan]:
    return decode_spans(frame_request(encode_resource({"service.name": "x"}), [chunk]))


def large_turn() -> Trace:
    record = turn_record(
        response_row(
            content=[
                tool_part("fetch", args={"url": "https://example.com"}, output="o" * 30_000),
                {"type": "text", "text": 'quoted "é" ' * 2_000},
            ]
        ),
        user_row(text="q" * 1_000),
    )
    (trace,) = traces_of(record)
    return trace


def test_the_longest_texts_are_cut_first_and_say_so() -> None:
    chunk = encode_trace(large_turn())
    smaller = shrink_chunk(chunk)

    assert smaller is not None
    assert len(smaller) < len(chunk) * 0.8
    root, *_ = spans = read(smaller)
    tool = next(span for span in spans if "gen_ai.tool.name" in span.attributes)
    assert str(tool.attributes["gen_ai.tool.call.result"]).endswith("bytes left out]")
    (answer,) = json.loads(str(root.attributes["gen_ai.output.messages"]))
    assert "bytes left out]" in answer["parts"][0]["content"]
    (question,) = json.loads(str(root.attributes["gen_ai.input.messages"]))
    assert question["parts"][0]["content"] == "q" * 1_000
    assert root.attributes["librechat.cut_to_fit"] == "true"


def test_ids_times_names_and_numbers_stay() -> None:
    chunk = encode_trace(large_turn())
    smaller = shrink_chunk(chunk)
    assert smaller is not None

    for before, after in zip(read(chunk), read(smaller), strict=True):
        assert (before.trace_id, before.span_id, before.name, before.kind) == (
            after.trace_id,
            after.span_id,
            after.name,
            after.kind,
        )
        assert before.start_nanoseconds == after.start_nanoseconds
        assert after.attributes.keys() - before.attributes.keys() <= {"librechat.cut_to_fit"}
        for name, value in before.attributes.items():
            if not isinstance(value, str):
                assert after.attributes[name] == value


def test_again_and_again_until_nothing_is_long() -> None:
    chunk: bytes | None = encode_trace(large_turn())
    sizes = []
    while chunk is not None:
        sizes.append(len(chunk))
        for span in read(chunk):
            for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
                json.loads(str(span.attributes.get(name, "[]")))
        chunk = shrink_chunk(chunk)

    assert len(sizes) > 3
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 8_000


@settings(max_examples=40)
@given(TRACES)
def test_whatever_a_trace_holds_it_can_be_made_smaller_or_not_at_all(trace: Trace) -> None:
    chunk = encode_trace(trace)
    smaller = shrink_chunk(chunk)

    assert smaller is None or len(read(smaller)) == len(read(chunk))
    assert request_of([trace])
