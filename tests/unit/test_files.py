"""Files: names, types and sizes as metadata, in the order question first; never their bytes."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tailer.core.trace.files import describe_files
from tailer.core.trace.otlp import SpanContext, encode_trace
from tests.recordings import truth
from tests.unit.documents import (
    VALUES,
    Document,
    message,
    replay,
    response_row,
    trace_of,
    traces_of,
    turn_record,
    user_row,
)

IMAGE = {
    "file_id": "f-1",
    "filename": "cat.png",
    "type": "image/png",
    "bytes": 70,
    "width": 2,
    "filepath": "/images/u/cat.png",
}
BYTES = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAYAAABytg0kAAAAFElEQVR4nGNk"
DATA_URI = f"data:image/png;base64,{BYTES}"


def described(
    files: list[Any], attachments: list[Any] | None = None, content: list[Document] | None = None
) -> Any:
    text = describe_files(
        turn_record(response_row(attachments=attachments or [], content=content or []), user_row(files=files))
    )
    return None if text is None else json.loads(text)


def test_a_file_has_name_type_size_and_id() -> None:
    assert described([IMAGE]) == [{"name": "cat.png", "type": "image/png", "bytes": 70, "file_id": "f-1"}]


def test_the_questions_files_come_before_those_that_a_tool_made() -> None:
    made = {"type": "text/csv", "toolCallId": "call_1", "file_id": "f-2", "filename": "table.csv"}

    assert [file["name"] for file in described([IMAGE], [made])] == ["cat.png", "table.csv"]


def test_a_turn_without_files_says_nothing_of_files() -> None:
    assert described([]) is None
    assert "files" not in trace_of(turn_record(response_row(), user_row())).metadata


def test_search_results_and_interface_parts_among_the_attachments_are_no_files() -> None:
    results = {"type": "web_search", "toolCallId": "c", "web_search": {"organic": [{"title": "x" * 500}]}}

    assert described([], [results, {"type": "ui_resources"}, None, "text"]) is None


def test_beyond_fifty_files_the_rest_is_counted() -> None:
    found = described([{"filename": f"{number}.txt"} for number in range(53)])

    assert [file["name"] for file in found[:-1]] == [f"{number}.txt" for number in range(50)]
    assert found[-1] == {"left_out": 3}
    assert len(described([{"filename": "a"}] * 50)) == 50


def test_no_bytes_of_an_inlined_image_are_sent_from_any_of_its_places() -> None:
    """Assistants and old releases inline images in the row."""
    parts = [
        {"type": "image_url", "image_url": {"url": DATA_URI}},
        {"type": "image_file", "image_file": {"filepath": DATA_URI, "filename": "made.png"}},
        {"type": "input_audio", "input_audio": {"data": BYTES}},
        {"type": "video_url", "video_url": {"url": DATA_URI}},
    ]
    record = turn_record(
        response_row(content=parts, attachments=[{"file_id": "f-2", "filepath": DATA_URI, "data": BYTES}]),
        user_row(files=[{**IMAGE, "filepath": DATA_URI, "preview": BYTES, "source": "text", "text": BYTES}]),
        history=(),
    )
    sent = b"".join(encode_trace(trace, SpanContext("test")) for trace in traces_of(record))

    assert BYTES.encode() not in sent
    assert b"data:image" not in sent
    assert b"cat.png" in sent


@given(st.lists(st.dictionaries(st.sampled_from([*IMAGE, "data"]), VALUES) | VALUES, max_size=5))
def test_no_broken_file_stops_a_turn_and_sizes_are_numbers(files: list[Any]) -> None:
    for file in described(files) or []:
        assert file.keys() <= {"name", "type", "bytes", "file_id"}
        assert isinstance(file.get("bytes", 0), int)
        assert file.get("bytes", 0) >= 0


def test_an_inlined_image_has_no_path() -> None:
    """Whoever reads files from paths finds bytes of nobody's choosing there."""
    (inlined,) = message(user_row(files=[{**IMAGE, "filepath": DATA_URI}])).files
    (stored,) = message(user_row(files=[IMAGE])).files

    assert (inlined.path, stored.path) == (None, "/images/u/cat.png")


def test_recorded_uploads_are_named() -> None:
    """10: an image and texts, each with name and type."""
    named: list[Any] = []
    for turn in truth("10-files").turns:
        assert turn.response_message_id is not None
        text = trace_of(replay("10-files").record(turn.response_message_id)).metadata.get("files")
        named += json.loads(text) if text is not None else []

    assert named
    assert all(file["name"] and file["type"] for file in named)
