"""The rows of detached sub-agents: how their task ended, which turn started it, and where it is counted."""

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.librechat.messages import SubagentTask
from tailer.core.trace.export import Exported
from tailer.core.trace.observations import ObservationType
from tailer.core.turn.turns import Outcome
from tests.unit.documents import (
    Document,
    completion_row,
    conversation,
    conversation_row,
    export,
    message,
    observations,
    old_response_row,
    prompt_row,
    response_row,
    tool_part,
    trace_of,
    turn_record,
    usage_metadata,
    user_row,
)

THREAD = {
    "parentConversationId": "c0",
    "parentMessageId": "first",
    "subagentType": "agent_C",
}
CHILD = conversation(conversation_row(subagentThread=THREAD))


def task_row(text: str, status: str, **fields: object) -> Document:
    """The result of a task that the second turn started: text alone, as LibreChat stores it."""
    task = {"attemptKey": "k", "parentRunId": "second", "status": status}
    own = {"content": None, "text": text, "endpoint": "agents", "model": None, "subagentTask": task}
    return response_row(**{**own, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"attemptKey": "k", "parentRunId": "m", "status": "running"}, SubagentTask("running", "m")),
        ({"attemptKey": "k", "status": "completed"}, SubagentTask("completed", None)),
        ({"parentRunId": 7, "status": []}, SubagentTask(None, None)),
        ({}, None),
        ("cancelled", None),
        (None, None),
    ],
)
def test_the_task_of_a_row_is_read_tolerantly(value: object, read: SubagentTask | None) -> None:
    assert message(response_row(subagentTask=value)).subagent_task == read


@pytest.mark.parametrize(
    ("status", "error", "outcome", "answer", "status_message"),
    [
        ("completed", False, Outcome.COMPLETE, "Some words.", None),
        ("cancelled", False, Outcome.ABORTED, None, "stopped before the answer was complete"),
        ("error", True, Outcome.ERROR, None, "Some words."),
        ("error", False, Outcome.ERROR, None, "Some words."),
    ],
)
def test_a_task_ends_as_its_row_says_and_what_librechat_says_of_it_is_no_answer(
    status: str, outcome: Outcome, answer: str | None, status_message: str | None, *, error: bool
) -> None:
    record = turn_record(task_row("Some words.", status, error=error), user_row(), conversation=CHILD)
    made = export(record)
    assert isinstance(made, Exported)
    root, *steps = made.traces[0].observations

    assert made.outcome is outcome
    assert (root.output, root.status_message) == (answer, status_message)
    assert ("Some words." in str([step.output for step in steps])) is (answer is not None)


def test_each_task_names_the_turn_that_started_it() -> None:
    """The conversation knows the first one only."""
    own = trace_of(turn_record(task_row("Done.", "completed"), user_row(), conversation=CHILD)).metadata
    older = trace_of(turn_record(response_row(), user_row(), conversation=CHILD)).metadata

    assert (own["parent_conversation_id"], own["subagent_type"]) == ("c0", "agent_C")
    assert (own["parent_turn_message_id"], own["parent_trace_id"]) == ("second", turn_trace_id("second"))
    assert (older["parent_turn_message_id"], older["parent_trace_id"]) == ("first", turn_trace_id("first"))


def test_a_task_that_was_billed_with_its_parent_shows_its_words_and_no_numbers() -> None:
    """LibreChat stores its usage with cost in the row too. Both would be counted."""
    row = task_row("Done.", "completed", metadata=usage_metadata(11_000, 1_200, cost=0.00237))
    elsewhere = trace_of(turn_record(row, user_row(), conversation=CHILD, billed_with="second"))
    (call,) = (item for item in elsewhere.observations if item.type.value == "generation")

    assert elsewhere.root.output == "Done."
    assert call.output == {"role": "assistant", "content": "Done."}
    assert (call.usage, call.cost, call.metadata["usage_source"]) == (None, None, "unknown")
    assert elsewhere.metadata["billed_in_trace_id"] == turn_trace_id("second")


@pytest.mark.parametrize("entries", [(), (prompt_row(100),)], ids=["no ledger", "a ledger of its own"])
def test_a_task_that_was_billed_nowhere_else_has_its_own_numbers(entries: tuple[Document, ...]) -> None:
    row = task_row("Done.", "completed", metadata=usage_metadata(11_000, 1_200, cost=0.00237))
    own = trace_of(turn_record(row, user_row(), *entries, conversation=CHILD))
    (call,) = (item for item in own.observations if item.type.value == "generation")

    assert call.usage == {"input": 11_000, "output": 1_200}
    assert call.cost == {"total": 0.00237}
    assert "billed_in_trace_id" not in own.metadata


def test_what_names_a_detached_task_is_shown_as_no_models_words() -> None:
    """The tool call ends at once with a name to ask for; what the sub-agent wrote stands in its own conversation."""
    handle = '{"background_task_id":"p7Nff","tool":"subagent","status":"running"}'
    asked = '{"description":"Quick","subagent_type":"agent_C","run_in_background":true}'
    content = [tool_part("subagent", args=asked, output=handle), {"type": "text", "text": "Started."}]
    rows = [
        prompt_row(173),
        completion_row(26),
        prompt_row(370),
        completion_row(27),
        prompt_row(116, context="subagent", model="m"),
        completion_row(28, context="subagent", model="m"),
    ]
    found = trace_of(turn_record(old_response_row(content=content), user_row(), *rows))
    by_model = {item.model: item for item in observations(found, ObservationType.GENERATION)}
    (tool,) = observations(found, ObservationType.TOOL)
    _, subagent = observations(found, ObservationType.AGENT)

    assert (by_model["m"].usage, by_model["m"].output) == ({"input": 116, "output": 28}, None)
    assert by_model["m"].parent_id == subagent.id
    assert (tool.output, subagent.input, subagent.output) == (handle, "Quick", None)
