"""The history of a turn: the chain of parents as chat messages, within a limit that says what it left out."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat.content import read_parts
from tailer.core.librechat.replay import chat_from_parts
from tailer.core.turn.history import Prompt, build_prompt
from tailer.core.turn.turns import TurnRecord
from tests.unit.documents import (
    CONTENTS,
    MISSING,
    Document,
    agent,
    agent_row,
    conversation,
    conversation_row,
    message,
    old_response_row,
    response_row,
    tool_part,
    turn_record,
    user_row,
)

LIMIT = 64_000


def prompt(
    *history: Document, question: Document | None = None, limit: int = LIMIT, **fields: object
) -> Prompt:
    record = turn_record(response_row(), question or user_row(text="And of Italy?"))
    record = replace(record, history=tuple(map(message, history)), **fields)  # type: ignore[arg-type]
    return build_prompt(record, byte_limit=limit)


def test_a_first_question_stands_alone() -> None:
    assert prompt() == Prompt(({"role": "user", "content": "And of Italy?"},), 0)


def test_ancestors_come_first_the_oldest_first_each_in_its_role() -> None:
    found = prompt(
        user_row(text="Hello"), response_row(), old_response_row(text="Old style", content=MISSING)
    )

    assert found.messages == (
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Paris."},
        {"role": "assistant", "content": "Old style"},
        {"role": "user", "content": "And of Italy?"},
    )


def test_the_system_prompt_is_the_agents_or_the_conversations() -> None:
    chat = conversation(conversation_row(promptPrefix="Be brief."))

    assert prompt(conversation=chat).messages[0] == {"role": "system", "content": "Be brief."}
    assert prompt(conversation=chat, agent=agent(agent_row())).messages[0] == {
        "role": "system",
        "content": "You know the weather.",
    }
    assert prompt(conversation=conversation(conversation_row())).messages[0]["role"] == "user"


def test_tools_steering_and_dropped_parts_are_replayed_as_librechat_does() -> None:
    """Reasoning, errors and blank text are not sent again; steering is a user's message."""
    parts = [
        {"type": "think", "think": "Hm."},
        {"type": "text", "text": ""},
        tool_part(),
        tool_part(id="call_2", args={"city": "Rome"}, output=MISSING),
        {"type": "steer", "steer": "Shorter!"},
        {"type": "text", "text": "18 degrees."},
        {"type": "error", "error": "cut"},
    ]

    assert chat_from_parts(read_parts(parts)) == [
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "call_1", "type": "function",
             "function": {"name": "get_weather_mcp_srv", "arguments": '{"city":"Paris"}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "call_2", "type": "function",
             "function": {"name": "get_weather_mcp_srv", "arguments": '{"city":"Rome"}'}}]},
        {"role": "user", "content": "Shorter!"},
        {"role": "assistant", "content": "18 degrees."},
    ]  # fmt: skip


def test_a_summary_stands_for_everything_before_it() -> None:
    summary = {"type": "summary", "content": [{"type": "text", "text": "They spoke of France."}]}
    found = prompt(
        user_row(text="long ago"),
        response_row(
            content=[{"type": "text", "text": "dropped"}, summary, {"type": "text", "text": "Paris."}]
        ),
        user_row(text="And then?"),
    )

    assert found.messages == (
        {"role": "system", "content": "They spoke of France."},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And then?"},
        {"role": "user", "content": "And of Italy?"},
    )
    assert found.left_out == 0


def test_an_empty_summary_stops_nothing() -> None:
    found = prompt(user_row(text="long ago"), response_row(content=[{"type": "summary"}]))

    assert {"role": "user", "content": "long ago"} in found.messages


def test_the_oldest_rows_give_way_to_the_limit_and_are_counted() -> None:
    rows = [user_row(text=f"{number}" * 10) for number in range(5)]
    found = prompt(*rows, limit=25)

    assert [item["content"] for item in found.messages] == ["3333333333", "4444444444", "And of Italy?"]
    assert found.left_out == 3


def test_rows_that_were_too_much_to_read_are_counted_too() -> None:
    assert prompt(user_row(text="a" * 30), limit=10, history_left_out=4).left_out == 5


TEXTS = st.lists(st.text(max_size=20), max_size=8)


@given(TEXTS, st.integers(0, 120))
def test_the_history_is_a_suffix_within_the_limit(texts: list[str], limit: int) -> None:
    """In bytes; and never less than would fit."""
    found = prompt(*(user_row(text=text) for text in texts), limit=limit)
    kept = [str(item["content"]) for item in found.messages[:-1]]
    sizes = [len(text.encode()) for text in texts]

    assert kept == texts[len(texts) - len(kept) :]
    assert found.left_out == len(texts) - len(kept)
    assert sum(sizes[found.left_out :]) <= limit
    assert found.left_out == 0 or sum(sizes[found.left_out - 1 :]) > limit


@given(st.lists(CONTENTS, max_size=4), st.integers(0, 200))
def test_no_content_stops_the_prompt(contents: list[object], limit: int) -> None:
    rows = [response_row(content=content) for content in contents]

    assert prompt(*rows, limit=limit).messages[-1]["content"] == "And of Italy?"


def test_large_tool_arguments_count_against_the_limit() -> None:
    large = response_row(content=[tool_part(args="x" * 1_000, output=MISSING)])

    assert prompt(large, limit=500).left_out == 1


def test_a_question_that_is_gone_leaves_its_history() -> None:
    record = TurnRecord(
        response=message(response_row()), question=None, history=(message(user_row(text="a")),)
    )

    assert build_prompt(record, byte_limit=LIMIT).messages == ({"role": "user", "content": "a"},)
