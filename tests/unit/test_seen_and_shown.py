"""What a model saw and showed: quotes, skills, sources, pictures, failed tools, summaries; and where a turn hangs."""

import base64
import os
import re
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import turn_trace_id
from tailer.core.librechat.media import without_bytes
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.observations import Level, Observation, ObservationType
from tailer.core.trace.otlp import SpanContext, encode_trace
from tests.unit.documents import (
    MISSING,
    Document,
    assemble,
    conversation,
    conversation_row,
    message,
    observations,
    response_row,
    row,
    select,
    tool_part,
    trace_of,
    turn_record,
    user_row,
)

TEXT = {"type": "text", "text": "Here."}
PICTURE = base64.b64encode(os.urandom(1_500_000)).decode()


def root_of(**response: Any) -> Observation:
    return trace_of(turn_record(response_row(**response), user_row())).root


def test_quotes_stand_before_the_question_as_the_model_got_them() -> None:
    """LibreChat keeps them apart from the text (0.8.7)."""
    question = user_row(text="and this one?", quotes=["the excerpt\nquoted", " ", 7])
    trace = trace_of(turn_record(response_row(), question))
    expected = "> the excerpt\n> quoted\n\nand this one?"

    assert trace.root.input == expected
    (call,) = observations(trace, ObservationType.GENERATION)
    assert call.input[-1] == {"role": "user", "content": expected}  # type: ignore[index]


def test_the_skills_of_a_question_are_named() -> None:
    question = user_row(manualSkills=["pdf", {"name": "charts"}], alwaysAppliedSkills=["house style", "pdf"])

    assert trace_of(turn_record(response_row(), question)).metadata["skills"] == "pdf, charts, house style"


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "[image/png, 3 bytes]"),
        ({"type": "image_url", "image_url": "https://x.test/a.png"}, "[image: https://x.test/a.png]"),
        ({"type": "image_file", "image_file": {"file_id": "f", "filename": "plot.png"}}, "[image: plot.png]"),
        ({"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}}, "[audio/wav, 1.5 MB]"),
        ({"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{PICTURE}"}}, "[video/mp4, 1.5 MB]"),
        ({"type": "image", "source": {"media_type": "image/webp", "data": "A" * 4_000}}, "[image, 3.0 kB]"),
        ({"type": "image_url"}, "[image]"),
    ],
)  # fmt: skip
def test_an_answer_of_a_picture_sound_or_video_is_a_placeholder(part: Document, shown: str) -> None:
    """And no empty trace."""
    trace = trace_of(turn_record(response_row(content=[part]), user_row()))
    (call,) = observations(trace, ObservationType.GENERATION)

    assert trace.root.output == shown
    assert call.output == {"role": "assistant", "content": shown}


def test_the_bytes_in_a_tools_output_are_a_placeholder_and_the_answer_is_whole() -> None:
    uri = f"data:image/png;base64,{PICTURE}"
    bare = f'[{{"type":"image","data":"{PICTURE}","mimeType":"image/png"}}]'
    parts = [tool_part(output=uri), tool_part(id="2", output=bare), TEXT]
    trace = trace_of(turn_record(response_row(content=parts), user_row()), bounds=Bounds(trace_bytes=5_000))

    assert [tool.output for tool in observations(trace, ObservationType.TOOL)] == [
        "[image/png, 1.5 MB]",
        '[{"type":"image","data":"[data, 1.5 MB]","mimeType":"image/png"}]',
    ]
    assert trace.root.output == "Here."


@given(st.binary(min_size=600, max_size=3_000))
def test_no_long_stretch_of_base64_stays_in_a_tools_output(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    shown = without_bytes(f"see {encoded} and data:x/y;base64,{encoded}!")

    assert "base64," not in shown
    assert encoded not in shown or not all(
        any(map(kind, encoded)) for kind in (str.islower, str.isupper, str.isdigit)
    )


def test_base64_in_lines_is_a_placeholder_too() -> None:
    wrapped = "\n".join(textwrap.wrap(PICTURE[:4_000], 76))

    assert without_bytes(f"$ base64 a.png\n{wrapped}\n$") == "$ base64 a.png\n[data, 3.0 kB]\n$"


RUNS = st.builds(
    lambda size, end: ("aB3/+" * 100)[:size] + end,
    # Lengths around those at which a run, or a line of one, counts.
    st.sampled_from([1, 59, 60, 61, 76, 399, 400, 401]),
    st.sampled_from(["", "=", "==", "\n", "\r\n", "\\n", " ", "é", "€", "😀", "\ud800", "\0"]),
)


@given(st.lists(RUNS, max_size=12).map("".join))
def test_what_is_looked_for_in_vain_is_found_by_no_slower_look(text: str) -> None:
    """The quick look before the expression passes over nothing that the expression would find."""
    found = re.search(r"[A-Za-z0-9+/]{400}|(?:[A-Za-z0-9+/]{60,}(?:\r?\n|\\n)){5}", text)

    assert (without_bytes(text) == text) == (found is None)


@pytest.mark.parametrize("text", ["-" * 900, "7" * 900, "ab" * 450, "A long line of words. " * 60])
def test_text_that_only_looks_long_stays(text: str) -> None:
    assert without_bytes(text) == text


@pytest.mark.parametrize(
    ("call", "level", "status"),
    [
        ({"output": MISSING, "progress": 0.1}, Level.WARNING, "no output was stored"),
        ({"output": MISSING, "progress": MISSING}, Level.WARNING, "no output was stored"),
        ({"output": "Error: [MCP][srv][x] tool call failed: timeout"}, Level.ERROR, "the tool failed"),
        (
            {"output": "Something went wrong when trying to generate the image. 400"},
            Level.ERROR,
            "the tool failed",
        ),
        ({"output": 'Error processing tool: Tool "add" not found.'}, Level.ERROR, "the tool failed"),
        (
            {"output": "API call to http://api.test failed: The server responded with status 500: no"},
            Level.ERROR,
            "the tool failed",
        ),
        ({"output": "API call to the bank failed to convince"}, Level.DEFAULT, None),
        ({"runStepStatus": "cancelled"}, Level.ERROR, "the tool ended as cancelled"),
        ({"output": "Errors are found in nature"}, Level.DEFAULT, None),
        ({}, Level.DEFAULT, None),
    ],
)
def test_a_tool_that_did_not_end_well_has_a_level_in_a_complete_answer_too(
    call: Document, level: Level, status: str | None
) -> None:
    (tool,) = observations(
        trace_of(turn_record(response_row(content=[tool_part(**call), TEXT]), user_row())),
        ObservationType.TOOL,
    )

    assert (tool.level, tool.status_message) == (level, status)


def test_parts_of_unknown_types_are_named() -> None:
    parts = [{"type": "brand_new", "x": 1}, {"type": "activity_label"}, {"type": "brand_new"}, TEXT]
    trace = trace_of(turn_record(response_row(content=parts), user_row()))

    assert trace.metadata["parts_not_shown"] == "brand_new"
    assert "parts_not_shown" not in trace_of(turn_record(response_row(), user_row())).metadata


WEB = {
    "type": "web_search",
    "toolCallId": "call_1",
    "web_search": {
        "turn": 0,
        "organic": [
            {"title": "One", "link": "https://example.com/one"},
            {"title": "Two", "link": "https://example.com/two"},
        ],
    },
}
FILES = {
    "type": "file_search",
    "file_search": {"sources": [{"fileName": "a.pdf", "fileId": "f1", "relevance": 0.8, "pages": [2]}]},
}


def test_the_sources_of_a_search_are_a_retriever_below_its_tool() -> None:
    """With names, addresses, and whether the answer cites them."""
    answer = {"type": "text", "text": "So it is. \\ue202turn0search1"}
    search = tool_part("web_search", args='{"query":"age"}')
    trace = trace_of(turn_record(response_row(content=[search, answer], attachments=[WEB]), user_row()))
    (tool,) = observations(trace, ObservationType.TOOL)
    (found,) = observations(trace, ObservationType.RETRIEVER)

    assert (found.name, found.parent_id, found.input) == ("web_search", tool.id, {"query": "age"})
    assert found.output == [
        {"name": "One", "address": "https://example.com/one"},
        {"name": "Two", "address": "https://example.com/two", "cited": True},
    ]
    assert (found.start_milliseconds, found.end_milliseconds) == (
        tool.start_milliseconds,
        tool.end_milliseconds,
    )


def test_sources_without_a_tool_call_are_below_the_root() -> None:
    trace = trace_of(turn_record(response_row(attachments=[FILES, {"type": "ui_resources"}]), user_row()))
    (found,) = observations(trace, ObservationType.RETRIEVER)

    assert found.parent_id == trace.root.id
    assert found.output == [{"name": "a.pdf", "address": "f1", "relevance": 0.8, "pages": [2]}]
    assert b"a.pdf" in encode_trace(trace, SpanContext("test"))


EARLIER = (
    message(user_row(messageId="q0", text="long ago")),
    message(response_row(messageId="r0", content=[{"type": "text", "text": "old answer"}])),
    message(user_row(messageId="q1", text="just now")),
)


def prompt_of(*parts: Document) -> list[tuple[object, object]]:
    trace = trace_of(turn_record(response_row(content=[*parts, TEXT]), user_row(), history=EARLIER))
    call = observations(trace, ObservationType.GENERATION)[0]
    assert isinstance(call.input, list)
    return [(item["role"], item["content"]) for item in call.input]


def summary(message_id: str | None) -> Document:
    part: Document = {"type": "summary", "content": [{"type": "text", "text": "They talked."}]}
    return part if message_id is None else {**part, "boundary": {"messageId": message_id, "contentIndex": 0}}


def test_a_summary_stands_in_place_of_the_history_that_it_replaced() -> None:
    question = ("user", "What is the capital of France?")

    assert prompt_of(summary("r0")) == [("system", "They talked."), ("user", "just now"), question]
    assert prompt_of(summary("elsewhere")) == [("system", "They talked."), question]
    assert len(prompt_of(summary(None))) == 4


def test_a_parent_over_the_byte_limit_is_shown_cut() -> None:
    parent = message(response_row(messageId="r0", content=[{"type": "text", "text": "é" * 2_000}]))
    record = turn_record(response_row(), user_row(), history=(EARLIER[0], parent))
    trace = trace_of(record, bounds=Bounds(history_bytes=1_001))
    (call,) = observations(trace, ObservationType.GENERATION)
    shown = call.input[0]["content"]  # type: ignore[index]

    assert shown.startswith("é" * 500)
    assert shown.endswith("… [cut: 3000 bytes left out]")
    assert call.metadata["history_messages_left_out"] == "1"


@pytest.mark.parametrize("endpoint", ["assistants", "azureAssistants"])
def test_a_failed_run_of_an_assistant_is_an_error_although_its_answer_is_only_empty(endpoint: str) -> None:
    root = root_of(endpoint=endpoint, content=[], text="")

    assert (root.level, root.output) == (Level.ERROR, None)
    assert root.status_message == "the run ended without an answer, and LibreChat stores no reason"
    assert root_of(endpoint=endpoint, content=[], text="Yes").level is Level.DEFAULT


def test_a_tool_call_that_an_assistant_stored_twice_is_one() -> None:
    call = {"id": "c", "type": "code_interpreter", "code_interpreter": {"input": "6*7", "outputs": []}}
    parts = [
        {"type": "tool_call", "tool_call": {**call, "progress": 0.01}},
        {"type": "tool_call", "tool_call": {**call, "progress": 1}},
        {"type": "tool_call", "tool_call": {**call, "id": "d", "progress": 0.5}},
    ]
    trace = trace_of(turn_record(response_row(content=[*parts, TEXT], endpoint="assistants"), user_row()))

    assert [tool.metadata["tool_call_id"] for tool in observations(trace, ObservationType.TOOL)] == ["c", "d"]


@pytest.mark.parametrize(
    "fields",
    [
        {"subagentThread": {"parentConversationId": "p", "parentMessageId": "m", "subagentType": "self"}},
        {"parentConversationId": "p", "parentMessageId": "m", "subagentType": "self"},
    ],
)
def test_a_conversation_of_a_sub_agent_names_the_turn_that_started_it(fields: Document) -> None:
    record = turn_record(response_row(), user_row(), conversation=conversation(conversation_row(**fields)))
    found = trace_of(record).metadata

    assert found["parent_conversation_id"] == "p"
    assert found["parent_turn_message_id"] == "m"
    assert found["parent_trace_id"] == turn_trace_id("m")
    assert found["subagent_type"] == "self"


@pytest.mark.parametrize(
    ("earlier", "reason"),
    [
        (response_row(3, messageId="r1", parentMessageId="q1"), "edited"),
        (response_row(3, messageId="r1", parentMessageId="q1", error=True), "asked_again"),
        (None, "asked_again"),
    ],
    ids=["answered", "refused", "without an answer"],
)
def test_a_question_after_a_refused_one_was_not_edited(earlier: Document | None, reason: str) -> None:
    rows = [
        user_row(1, messageId="q1", parentMessageId="p"),
        user_row(5, messageId="q2", parentMessageId="p"),
        response_row(7, messageId="r2", parentMessageId="q2"),
        *([] if earlier is None else [earlier]),
    ]
    by_id = {item["messageId"]: row(item) for item in rows}
    record = assemble(
        select(by_id["r2"], by_id, 1_000),
        {row(item).key: message(item) for item in rows},
        None,
        (),
    )

    assert record is not None
    assert trace_of(record).metadata["branch_reason"] == reason
