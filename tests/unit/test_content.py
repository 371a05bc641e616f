"""Reading a response's parts: every type of the contract, holes, unknown types, and failures of tools."""

from typing import Any

import pytest
from bson import Code
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat.content import (
    ErrorPart,
    HandOffPart,
    OtherPart,
    Part,
    ReasoningPart,
    SteerPart,
    SummaryPart,
    TextPart,
    ToolCall,
    read_parts,
)
from tests.unit.documents import CONTENTS, MISSING, Document, moment, nested, stamp, tool_part


def only(part: Document) -> Part:
    (found,) = read_parts([part])
    return found


def tool(**fields: Any) -> ToolCall:
    found = only(tool_part(**fields))
    assert isinstance(found, ToolCall)
    return found


@given(CONTENTS)
def test_no_content_stops_the_reader(content: object) -> None:
    """Every part of a document's shape is kept, if only by its type; holes are left out."""
    parts = read_parts(content)

    documents = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    assert len(parts) == len(documents)


def test_a_type_that_is_code_is_no_type() -> None:
    """The driver makes BSON's code a kind of text, but without a hash."""
    assert only({"type": Code("text")}) == OtherPart("untyped")


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deep_nesting_in_any_place_does_not_stop_the_reader(depth: int) -> None:
    deep = nested(depth)
    kinds = ("text", "think", "tool_call", "error", "steer", "summary", "agent_update", "new")

    assert len(read_parts([{"type": kind, kind: deep} for kind in kinds])) == len(kinds)
    assert tool(output=deep, args=deep).output is not None


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "text", "text": "Paris."}, TextPart("Paris.")),
        ({"type": "text", "text": {"value": "Paris.", "annotations": []}}, TextPart("Paris.")),
        ({"type": "text", "text": "Paris.", "agentId": "a____1", "groupId": 1}, TextPart("Paris.", "a____1", 1)),
        ({"type": "text", "text": None}, TextPart("")),
        ({"type": "think", "think": "Hm."}, ReasoningPart("Hm.")),
        ({"type": "think", "think": {"value": "Hm."}}, ReasoningPart("Hm.")),
        ({"type": "error", "error": "429"}, ErrorPart("429")),
        ({"type": "error", "text": "429"}, ErrorPart("429")),
        ({"type": "steer", "steer": "Shorter!", "createdAt": moment(5)}, SteerPart("Shorter!", stamp(5))),
        ({"type": "summary", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, SummaryPart("ab")),
        ({"type": "summary", "text": "short", "model": "gpt-4o"}, SummaryPart("short", "gpt-4o")),
        ({"type": "summary", "summary": {"text": "short"}}, SummaryPart("short")),
        ({"type": "agent_update", "agent_update": {"index": 1, "runId": "r", "agentId": "agent_b"}}, HandOffPart("agent_b")),
        ({"type": "image_file", "image_file": {"file_id": "f"}}, TextPart("[image: f]")),
        ({"type": "image_file", "image_file": {"filepath": "/images/u/plot.png"}}, TextPart("[image: /images/u/plot.png]")),
        ({"type": "hologram", "hologram": {}}, OtherPart("hologram")),
        ({"type": "activity_label", "activity_label": "Looking"}, OtherPart("activity_label")),
        ({"type": "hologram"}, OtherPart("hologram")),
        ({"text": "no type"}, OtherPart("untyped")),
        ({"type": 7}, OtherPart("untyped")),
    ],
)  # fmt: skip
def test_each_type_of_part_is_read(part: Document, expected: Part) -> None:
    assert only(part) == expected


def test_the_order_stays_and_holes_go() -> None:
    """Partial saves leave null where a part was to come."""
    parts = read_parts([None, {"type": "text", "text": "a"}, "junk", {"type": "think", "think": "b"}, None])

    assert parts == (TextPart("a"), ReasoningPart("b"))


def test_a_finished_tool_call_is_read_with_all_it_stores() -> None:
    call = tool(runStepDurationMs=1234, runStepStatus="completed")

    assert call == ToolCall(
        call_id="call_1",
        name="get_weather_mcp_srv",
        arguments='{"city":"Paris"}',
        output="18 degrees",
        failed=False,
        awaits_approval=False,
        duration_milliseconds=1234,
        status="completed",
    )


@pytest.mark.parametrize(
    ("call", "name", "arguments", "output"),
    [
        ({"type": "function", "function": {"name": "f", "arguments": "{}", "output": "o"}}, "f", "{}", "o"),
        (
            {"type": "code_interpreter", "code_interpreter": {"input": "1+1", "outputs": [{"logs": "2"}]}},
            "code_interpreter",
            "1+1",
            '[{"logs":"2"}]',
        ),
        ({"type": "retrieval"}, "retrieval", None, None),
        ({}, "unnamed", None, None),
    ],
)
def test_the_assistants_shapes_of_a_tool_call_are_read(
    call: Document, name: str, arguments: object, output: str | None
) -> None:
    """They nest what the agents framework keeps flat."""
    found = only({"type": "tool_call", "tool_call": {"id": "c", **call}})

    assert isinstance(found, ToolCall)
    assert (found.name, found.arguments, found.output) == (name, arguments, output)


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({}, False),
        ({"output": "Error: no such city\n Please fix your mistakes."}, True),
        ({"output": "Error: this text is about errors"}, False),
        ({"output": "How to? Please fix your mistakes."}, False),
        ({"inputValidationError": True}, True),
        ({"inputValidationError": "yes"}, False),
        ({"runStepStatus": "failed"}, True),
        ({"runStepStatus": "completed"}, False),
        ({"output": MISSING}, False),
    ],
)
def test_a_failed_tool_is_known_by_what_the_agents_library_writes(fields: Document, *, failed: bool) -> None:
    assert tool(**fields).failed is failed


@pytest.mark.parametrize(
    ("fields", "waits"),
    [
        ({"approval": {"actionId": "a"}, "output": MISSING}, True),
        ({"approval": {"actionId": "a"}, "output": ""}, True),
        ({"approval": {"actionId": "a"}, "output": "done"}, False),
        ({"approval": "a", "output": MISSING}, False),
        ({"output": MISSING}, False),
    ],
)
def test_a_tool_call_waits_for_approval_until_it_has_an_output(fields: Document, *, waits: bool) -> None:
    assert tool(**fields).awaits_approval is waits


def test_a_hand_off_is_a_tool_call_by_its_name() -> None:
    assert tool(name="lc_transfer_to_agent_b").is_hand_off
    assert not tool().is_hand_off


@given(st.floats() | st.integers())
def test_a_duration_fits_into_a_span_or_is_none(duration: float) -> None:
    found = tool(runStepDurationMs=duration).duration_milliseconds

    assert found is None or 0 <= found <= 366 * 24 * 3_600_000
