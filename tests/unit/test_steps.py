"""What happened inside a turn: model calls with their parts, tools in order, hand-offs, steering, summaries."""

from typing import Any

import pytest

from tailer.core.trace.bounds import Bounds
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tests.recordings import truth
from tests.unit.documents import (
    MISSING,
    Document,
    agent,
    agent_row,
    completion_row,
    conversation,
    conversation_row,
    message,
    observations,
    old_response_row,
    prompt_row,
    replay,
    response_row,
    stamp,
    structured_prompt_row,
    tool_part,
    trace_of,
    turn_record,
    usage_metadata,
    user_row,
)


def text(content: str) -> Document:
    return {"type": "text", "text": content}


def call_rows(*outputs: int, **fields: Any) -> list[Document]:
    """The transactions of so many model calls."""
    return [
        row for output in outputs for row in (prompt_row(100, **fields), completion_row(output, **fields))
    ]


def trace(*content: Document | None, entries: list[Document] | None = None, **fields: Any) -> Trace:
    """The trace of a turn of 0.8.6, whose ledger is believed."""
    row = old_response_row(content=list(content), tokenCount=MISSING, **fields)
    return trace_of(turn_record(row, user_row(), *(entries or [])))


def generations(of: Trace) -> list[Observation]:
    return observations(of, ObservationType.GENERATION)


def tools(of: Trace) -> list[Observation]:
    return observations(of, ObservationType.TOOL)


def test_each_model_call_has_its_own_part_of_the_answer_and_its_own_numbers() -> None:
    found = trace(text("Let me look."), tool_part(), text("18 degrees."), entries=call_rows(10, 20))
    first, second = generations(found)

    assert first.output == {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [
            {"id": "call_1", "type": "function",
             "function": {"name": "get_weather_mcp_srv", "arguments": '{"city":"Paris"}'}}
        ],
    }  # fmt: skip
    assert second.output == {"role": "assistant", "content": "18 degrees."}
    assert (first.usage, second.usage) == ({"input": 100, "output": 10}, {"input": 100, "output": 20})


def test_calls_and_tools_stand_in_the_order_in_which_they_happened() -> None:
    found = trace(
        text("a"), tool_part("one"), text("b"), tool_part("two"), tool_part("three"), text("c"), entries=call_rows(1, 2, 3)
    )  # fmt: skip
    order = [
        item.name if item.type is ObservationType.TOOL else item.type.value for item in found.observations[1:]
    ]

    assert order == ["generation", "one", "generation", "two", "three", "generation"]
    starts = [item.start_milliseconds for item in found.observations[1:]]
    assert starts == sorted(set(starts))


def test_more_calls_than_segments_leave_calls_without_output() -> None:
    """A model that wrote nothing was still paid."""
    found = trace(text("a"), entries=call_rows(1, 2))
    first, second = generations(found)

    assert second.output == {"role": "assistant", "content": "a"}
    assert (first.output, first.usage) == (None, {"input": 100, "output": 1})
    assert first.input == second.input is not None


def test_fewer_calls_than_segments_leave_no_part_out() -> None:
    """Some LibreChat releases record only one pair for a whole loop."""
    found = trace(
        text("a"), tool_part("one"), text("b"), tool_part("two"), text("c"), entries=call_rows(1, 2)
    )

    assert [tool.name for tool in tools(found)] == ["one", "two"]
    assert [str(item.output) for item in generations(found)][1].count("'content': 'b c'") == 1


def test_the_only_call_of_a_turn_without_tools_has_the_turns_duration() -> None:
    (only,) = generations(trace(text("a"), entries=call_rows(5)))

    assert (only.start_milliseconds, only.end_milliseconds) == (stamp(0), stamp(2))
    assert "timing" not in only.metadata


def test_one_bill_for_several_rounds_is_one_call_that_says_so() -> None:
    (only,) = generations(trace(text("a"), tool_part(), text("b"), entries=call_rows(5)))

    assert (only.metadata["calls"], only.metadata["timing"]) == ("not told apart", "estimated")


def test_what_the_tools_leave_of_a_turn_is_shared_among_its_calls_by_their_tokens() -> None:
    """Two seconds, half a second of them for two tools that ran together."""
    pair = [tool_part("one", runStepDurationMs=500), tool_part("two", runStepDurationMs=400)]
    found = trace(text("a"), *pair, text("b"), entries=call_rows(10, 20))
    first, second = generations(found)

    assert (first.start_milliseconds, first.end_milliseconds) == (stamp(0), stamp(0.5))
    assert {tool.start_milliseconds for tool in tools(found)} == {stamp(0.5)}
    assert (second.start_milliseconds, second.end_milliseconds) == (stamp(1), stamp(2))
    assert {item.metadata["timing"] for item in (first, second)} == {"estimated"}


def test_calls_beside_the_answer_are_generations_of_their_own_without_text() -> None:
    found = trace(
        text("a"), entries=[*call_rows(5), *call_rows(7, context="summarization", model="gpt-4o-mini")]
    )
    summary, answer = generations(found)

    assert answer.output == {"role": "assistant", "content": "a"}
    assert (summary.name, summary.model, summary.output, summary.input) == (
        "summarization",
        "gpt-4o-mini",
        None,
        None,
    )
    assert summary.usage == {"input": 100, "output": 7}


def test_an_answer_is_shown_although_only_calls_beside_it_were_billed() -> None:
    """A stopped run bills its labels and not itself."""
    found = trace(
        text("a"), tool_part(), entries=call_rows(7, context="activity-label"), unfinished=True, text="a"
    )

    assert [tool.name for tool in tools(found)] == ["get_weather_mcp_srv"]
    assert [(item.name, item.usage) for item in generations(found)] == [
        ("gpt-4o", None),
        ("activity-label", {"input": 100, "output": 7}),
    ]


def test_a_tool_has_arguments_output_duration_and_ids() -> None:
    (tool,) = tools(trace(text("a"), tool_part(runStepDurationMs=1_500, agentId="agent_b")))

    assert tool.input == {"city": "Paris"}
    assert tool.output == "18 degrees"
    assert tool.end_milliseconds - tool.start_milliseconds == 1_500
    assert tool.metadata == {"timing": "duration stored", "tool_call_id": "call_1", "agent_id": "agent_b"}
    assert (tool.level, tool.status_message) == (Level.DEFAULT, None)


def test_a_tool_names_the_agent_that_called_it() -> None:
    clerk = agent(agent_row(id="agent_a", name="Clerk"))
    row = response_row(model="agent_a", content=[{**tool_part(), "agentId": "agent_a"}])
    (tool,) = tools(trace_of(turn_record(row, user_row(), agent=clerk, agents={"agent_a": clerk})))

    assert (tool.metadata["agent_id"], tool.metadata["agent_name"]) == ("agent_a", "Clerk")


def test_a_tool_with_a_paid_model_of_its_own_says_that_its_cost_is_not_stored() -> None:
    painted, plain = tools(trace(tool_part("image_gen_oai"), tool_part("look")))

    assert painted.metadata["cost"] == "not stored"
    assert "cost" not in plain.metadata


def test_a_tool_without_stored_duration_says_so() -> None:
    (tool,) = tools(trace(tool_part()))

    assert tool.start_milliseconds == tool.end_milliseconds
    assert tool.metadata["timing"] == "order only"


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ('{"a":1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ('{"a":', '{"a":'),
        ("", ""),
        (None, None),
        ([1, None], [1, None]),
        (7, "7"),
    ],
)
def test_arguments_are_shown_as_they_were_stored(stored: object, shown: object) -> None:
    """JSON text or a document; what a stop cut off stays text."""
    (tool,) = tools(trace(tool_part(args=stored)))

    assert tool.input == shown


def test_a_failed_tool_is_an_error_and_the_turn_is_not() -> None:
    found = trace(tool_part(output="Error: no such city\n Please fix your mistakes."), text("Sorry."))
    (tool,) = tools(found)

    assert (tool.level, tool.status_message) == (Level.ERROR, "the tool failed")
    assert found.root.level is Level.DEFAULT


def test_a_tool_that_a_stop_interrupted_is_marked_and_a_finished_turns_is_not() -> None:
    """Some tools of finished turns have no output to store."""
    (stopped,) = tools(trace(tool_part(output=MISSING), unfinished=True, text="a"))
    (quiet,) = tools(trace(tool_part(output=MISSING), text("a")))

    assert (stopped.level, stopped.status_message) == (Level.WARNING, "no output was stored")
    assert (quiet.level, quiet.status_message) == (Level.DEFAULT, None)


def test_a_hand_off_that_ended_is_no_warning_although_it_never_has_an_output() -> None:
    """As LibreChat 0.8.8 stores one: no output, no progress, the state of its step."""
    older_call = tool_part("lc_transfer_to_agent_b", args="", output=MISSING, progress=MISSING)
    call = {"type": "tool_call", "tool_call": older_call["tool_call"] | {"runStepStatus": "completed"}}
    failure = {"type": "error", "error": "400 invalid request"}
    (done,) = tools(trace(call, text("b")))
    (before_a_failure,) = tools(trace(call, failure))
    (older,) = tools(trace(older_call, text("b")))
    (stopped,) = tools(trace(older_call, unfinished=True, text="a"))

    assert [tool.level for tool in (done, before_a_failure, older)] == [Level.DEFAULT] * 3
    assert stopped.level is Level.WARNING


@pytest.mark.parametrize("rounds", [1, 2])
def test_an_error_after_tools_is_that_of_the_call_that_was_made_with_their_outputs(rounds: int) -> None:
    """A call that fails at once writes nothing and has no rows; those before it went well."""
    error = {"type": "error", "error": "An error occurred while processing the request: 400 too long"}
    found = trace(*[tool_part()] * rounds, error, entries=call_rows(*range(7, 7 + rounds)))
    *done, failed = generations(found)

    assert [(item.level, item.usage) for item in done] == [
        (Level.DEFAULT, {"input": 100, "output": output}) for output in range(7, 7 + rounds)
    ]
    assert (failed.level, failed.status_message) == (Level.ERROR, "400 too long")
    assert (failed.usage, failed.metadata["model"]) == (None, "gpt-4o")
    assert found.root.level is Level.ERROR


def test_a_failed_call_after_tools_that_was_billed_has_its_numbers() -> None:
    error = {"type": "error", "error": "Overloaded"}
    done, failed = generations(trace(tool_part(), error, entries=call_rows(7, 2)))

    assert (done.level, done.usage) == (Level.DEFAULT, {"input": 100, "output": 7})
    assert (failed.level, failed.usage) == (Level.ERROR, {"input": 100, "output": 2})


def test_a_call_that_was_reported_had_not_failed_although_the_error_comes_after_its_words() -> None:
    """The next agent of a chain failed, of which nothing is stored. A call that fails midway is not reported."""
    content = [text("of the first"), {"type": "error", "error": "400 invalid request"}]
    stored = response_row(content=content, metadata=usage_metadata(100, 19))
    found = trace_of(turn_record(stored, user_row(), *call_rows(19)))
    (done,) = generations(found)
    (failed,) = generations(trace(*content, entries=call_rows(19)))

    assert (done.level, done.status_message) == (Level.DEFAULT, None)
    assert (found.root.level, found.root.status_message) == (Level.ERROR, "400 invalid request")
    assert failed.level is Level.ERROR


def test_of_agents_that_answered_side_by_side_none_has_the_error_that_may_be_any_ones() -> None:
    """One fails at once, LibreChat stops the other in the middle of its words, and stores the error behind these."""
    words = {"type": "text", "text": "Half", "agentId": "openAI__gpt-4o", "groupId": 1}
    found = trace(words, {"type": "error", "error": "400 invalid request"}, entries=call_rows(6))
    (half,) = generations(found)

    assert (half.level, half.output) == (Level.DEFAULT, {"role": "assistant", "content": "Half"})
    assert (found.root.level, found.root.status_message) == (Level.ERROR, "400 invalid request")


def test_an_error_after_a_hand_off_is_that_of_the_agent_that_received_it() -> None:
    """LibreChat 0.8.8 says of such a hand-off that its step failed: the receiver ran inside it."""
    call = tool_part("lc_transfer_to_agent_b", args="", output=MISSING, runStepStatus="failed")
    error = {"type": "error", "error": "400 invalid request"}
    first, failed = generations(trace(call | {"agentId": "agent_a"}, error, entries=call_rows(14)))

    assert (first.level, first.usage) == (Level.DEFAULT, {"input": 100, "output": 14})
    assert (failed.level, failed.usage) == (Level.ERROR, None)
    assert failed.metadata["agent_id"] == "agent_b"


def test_a_limit_of_librechats_own_between_two_calls_invents_no_call() -> None:
    error = {"type": "error", "error": "Recursion limit of 25 reached without hitting a stop condition."}
    (only,) = generations(trace(tool_part(), error, entries=call_rows(7)))

    assert only.usage == {"input": 100, "output": 7}


def test_a_report_of_all_calls_is_not_shown_as_the_first_ones_alone_where_a_tool_was_stopped() -> None:
    """LibreChat 0.8.8 writes no rows for a stopped answer, and reports the sum of the calls that ended: all of them
    where a tool was running. Where text was being written, its call is not in the sum."""
    parts = [text("a"), tool_part(), text("b")]
    stopped: dict[str, Any] = {"unfinished": True, "text": "a b", "metadata": usage_metadata(259, 53)}
    in_a_tool = response_row(content=[*parts, tool_part(output=MISSING)], **stopped)
    (both,) = generations(trace_of(turn_record(in_a_tool, user_row())))
    in_text = response_row(content=parts, **stopped)
    first, second = generations(trace_of(turn_record(in_text, user_row())))

    assert (both.usage, both.metadata["calls"]) == ({"input": 259, "output": 53}, "not told apart")
    assert (first.usage, second.usage) == ({"input": 259, "output": 53}, None)


def test_what_librechat_guesses_of_a_stopped_answer_is_not_shown_as_its_first_calls_alone() -> None:
    """Until 0.8.6 it charges for its own count of the question and of the whole answer, in place of what the calls that
    ended used. Where a provider told of the first call, the prompt is longer than the question."""
    row = old_response_row(content=[text("a"), tool_part(), text("b")], unfinished=True, text="a b")
    (both,) = generations(trace_of(turn_record(row, user_row(tokenCount=100), *call_rows(28))))
    first, second = generations(trace_of(turn_record(row, user_row(tokenCount=8), *call_rows(28))))

    assert both.usage == {"input": 100, "output": 28}
    assert (both.metadata["usage_source"], both.metadata["calls"]) == ("estimated", "not told apart")
    assert (first.usage, second.usage) == ({"input": 100, "output": 28}, None)


def test_hand_offs_steering_and_summaries_are_events_at_their_place() -> None:
    found = trace(
        {"type": "summary", "text": "They spoke of France."},
        text("a"),
        tool_part("lc_transfer_to_agent_b"),
        {"type": "agent_update", "agent_update": {"agentId": "agent_b"}},
        {"type": "steer", "steer": "Shorter!"},
        text("b"),
    )
    ids = [item.id for item in found.observations]

    assert [(item.name, item.input) for item in observations(found, ObservationType.EVENT)] == [
        ("summary", "They spoke of France."),
        ("hand-off", {"agent_id": "agent_b"}),
        ("steer", "Shorter!"),
    ]
    assert [tool.name for tool in tools(found)] == ["lc_transfer_to_agent_b"]
    assert len(set(ids)) == len(ids)


def test_an_answer_of_an_old_release_is_the_output_of_its_call() -> None:
    """It stands in `text`, and there are no parts."""
    record = turn_record(
        old_response_row(content=MISSING, text="Paris."), user_row(), prompt_row(1), completion_row(2)
    )
    (only,) = generations(trace_of(record))

    assert only.output == {"role": "assistant", "content": "Paris."}


def test_reasoning_is_metadata_of_the_call_that_thought_and_not_part_of_the_answer() -> None:
    found = trace(
        {"type": "think", "think": "Hm."}, text("a"), tool_part(), text("b"), entries=call_rows(1, 2)
    )
    first, last = generations(found)

    assert first.metadata["reasoning"] == "Hm."
    assert "reasoning" not in last.metadata
    assert "Hm." not in str((found.root.output, first.output, last.output))


def test_only_the_last_call_carries_the_error_of_the_turn() -> None:
    error = {"type": "error", "error": "An error occurred while processing the request: 500"}
    found = trace(text("a"), tool_part(), text("b"), error, entries=call_rows(1, 2))
    first, last = generations(found)

    assert (first.level, first.status_message) == (Level.DEFAULT, None)
    assert (last.level, last.status_message) == (Level.ERROR, "500")


def test_only_the_first_call_carries_the_history() -> None:
    """What the later ones were sent besides is the tools' output."""
    record = turn_record(
        old_response_row(content=[text("a"), tool_part(), text("b")]),
        user_row(text="And now?"),
        *call_rows(1, 2),
        history=(message(user_row(text="Hello")), message(response_row())),
    )
    first, last = generations(trace_of(record))

    assert first.input == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And now?"},
    ]
    assert last.input is None


def test_history_that_was_left_out_is_counted() -> None:
    record = turn_record(
        response_row(), user_row(), history=(message(user_row(text="x" * 100)),), history_left_out=3
    )
    (only,) = generations(trace_of(record, bounds=Bounds(history_bytes=50)))

    assert only.metadata["history_messages_left_out"] == "4"


def test_parameters_are_those_of_the_conversation_or_of_the_saved_agent() -> None:
    chat = conversation(conversation_row())
    rows = [prompt_row(5), completion_row(6)]
    (plain,) = generations(trace_of(turn_record(response_row(), user_row(), *rows, conversation=chat)))
    (saved,) = generations(
        trace_of(turn_record(response_row(), user_row(), *rows, conversation=chat, agent=agent(agent_row())))
    )

    assert plain.model_parameters == {"temperature": 0.5}
    assert saved.model_parameters == {"temperature": 0.1}


def test_a_model_without_numbers_is_named_in_metadata_only() -> None:
    """Else Langfuse counts the text by itself and shows its guess as usage."""
    record = turn_record(old_response_row(tokenCount=MISSING), user_row())
    (only,) = generations(trace_of(record))

    assert (only.model, only.usage, only.cost) == (None, None, None)
    assert only.metadata["model"] == "gpt-4o"
    assert (only.metadata["usage_source"], only.metadata["cost_source"]) == ("unknown", "unknown")


def test_a_model_with_the_tokens_of_the_answer_only_is_named_in_metadata_only() -> None:
    """Else Langfuse puts a price on the answer alone, and the trace has a cost that no one paid."""
    record = turn_record(old_response_row(tokenCount=321), user_row())
    (only,) = generations(trace_of(record))

    assert (only.model, only.usage, only.cost) == (None, {"output": 321}, None)
    assert (only.name, only.metadata["model"], only.metadata["cost_source"]) == (
        "gpt-4o",
        "gpt-4o",
        "unknown",
    )


def test_cache_tokens_are_buckets_of_their_own() -> None:
    """Langfuse adds the buckets up; `input` is without cache."""
    record = turn_record(
        response_row(metadata=usage_metadata(900, 210, write=3, read=512, cost=0.25)), user_row()
    )
    (only,) = generations(trace_of(record))

    assert only.usage == {"input": 900, "input_cached_tokens": 512, "input_cache_creation": 3, "output": 210}
    assert only.cost == {"total": 0.25}
    assert (only.model, only.metadata["usage_source"]) == ("gpt-4o", "reported")


def test_the_cost_of_cached_tokens_is_told_by_their_buckets() -> None:
    """Langfuse adds costs up by the names of the usage's buckets."""
    entries = [
        prompt_row(100, rate=3, tokenValue=-300),
        completion_row(10),
        structured_prompt_row(0, write=0, read=100, tokenValue=-30),
        completion_row(10),
        structured_prompt_row(0, write=200, read=0, tokenValue=-750),
        completion_row(10),
    ]
    found = trace(tool_part(), text("a"), tool_part(id="call_2"), text("b"), entries=entries)
    _, read, written = [item.cost for item in generations(found)]

    assert read == {"input_cached_tokens": 0.00003, "output": 0.0001, "total": 0.00013}
    assert written == {"input_cache_creation": 0.00075, "output": 0.0001, "total": 0.00085}


def test_the_recorded_tools_are_all_there_with_what_they_gave() -> None:
    """Two model calls and a tool in each turn of 09-agent-tools."""
    for turn in truth("09-agent-tools").turns:
        assert turn.response_message_id is not None
        record = replay("09-agent-tools").record(turn.response_message_id)
        found = trace_of(record)
        asked = [request.tool_name for request in turn.requests if request.tool_name is not None]

        assert [tool.name for tool in tools(found)] == asked
        assert all(tool.output for tool in tools(found))
        assert len(generations(found)) == len(turn.requests)


def test_a_recorded_rejection_of_a_tool_is_shown() -> None:
    """In 23 the first tool was approved and the second blocked."""
    found = [
        tools(trace_of(replay("23-hitl-tool-approval").record(turn.response_message_id)))[0].output
        for turn in truth("23-hitl-tool-approval").turns
        if turn.response_message_id is not None
    ]

    assert [str(output).split()[0] for output in found] == ["E2E", "Blocked:"]
