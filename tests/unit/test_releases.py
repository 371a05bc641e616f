"""What no recording holds: rows of releases 0.7.5 to 0.8.7, of the assistants endpoints, and rare parts of the newest.

Shapes are those of the data contract's version table. Each test is one row as that release writes it, and its trace.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tailer.core.policy.policies import CopyPolicy, Policies, TemporaryPolicy
from tailer.core.trace.export import Exported
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.core.turn.transactions_by_time import assign_by_time
from tailer.core.turn.turns import Outcome, TurnRecord, Wait
from tests.unit.documents import (
    CONVERSATION,
    MISSING,
    QUESTION,
    RESPONSE,
    Document,
    agent,
    agent_row,
    completion_row,
    conversation,
    conversation_row,
    export,
    message,
    moment,
    observations,
    old_response_row,
    prompt_row,
    response_row,
    row,
    stamp,
    structured_prompt_row,
    tool_part,
    trace_of,
    traces_of,
    transactions,
    turn_record,
    usage_metadata,
    user_row,
)

SAID = {"type": "text", "text": "Paris."}


def oldest_response_row(at: float = 2, **fields: Any) -> Document:
    """0.7.5 to 0.7.8: the answer is text, `content` and `attachments` are not there."""
    return old_response_row(
        at, **{"content": MISSING, "attachments": MISSING, "text": "Paris.", "tokenCount": 13, **fields}
    )


def oldest_user_row(at: float = 0, **fields: Any) -> Document:
    return user_row(at, isTemporary=MISSING, expiredAt=MISSING, **fields)


def unnamed(*rows: Document) -> list[Document]:
    """Before 0.8.3 transactions name no message, and they are written after the response."""
    return [{name: value for name, value in entry.items() if name != "messageId"} for entry in rows]


def by_time(response: Document, question: Document, entries: list[Document], **fields: Any) -> TurnRecord:
    """The record as it is read back: unnamed transactions are given to the turn by their times."""
    rows = {document["messageId"]: row(document) for document in (response, question)}
    found = assign_by_time(transactions(*entries), rows).get(response["messageId"], ())
    return replace(turn_record(response, question), transactions=tuple(found), **fields)


def generations(of: Trace) -> list[Observation]:
    return observations(of, ObservationType.GENERATION)


def tools(of: Trace) -> list[Observation]:
    return observations(of, ObservationType.TOOL)


def subagents(of: Trace) -> list[Observation]:
    return [item for item in observations(of, ObservationType.AGENT) if item.parent_id is not None]


def outcome_of(record: TurnRecord, **fields: Any) -> Outcome | Wait | str:
    made = export(record, **fields)
    return made.outcome if isinstance(made, Exported) else made


def test_0_7_5_an_answer_in_text_with_transactions_that_name_no_message() -> None:
    entries = unnamed(prompt_row(108, createdAt=moment(2.5)), completion_row(13, createdAt=moment(2.6)))
    record = by_time(oldest_response_row(), oldest_user_row(), entries)
    found = trace_of(record)
    (only,) = generations(found)

    assert (found.root.input, found.root.output) == ("What is the capital of France?", "Paris.")
    assert only.output == {"role": "assistant", "content": "Paris."}
    assert (only.model, only.usage) == ("gpt-4o", {"input": 108, "output": 13})
    assert (only.metadata["usage_source"], only.metadata["cost_source"]) == ("estimated", "estimated")
    assert only.cost == {"input": 0.00027, "output": 0.00013, "total": 0.0004}
    assert (found.root.start_milliseconds, found.root.end_milliseconds) == (stamp(0), stamp(2))


def test_0_7_5_cached_tokens_are_buckets_of_their_own() -> None:
    entries = unnamed(
        structured_prompt_row(500, write=3, read=512, createdAt=moment(3)),
        completion_row(10, createdAt=moment(3)),
    )
    (only,) = generations(trace_of(by_time(oldest_response_row(), oldest_user_row(), entries)))

    assert only.usage == {
        "input": 500, "input_cached_tokens": 512, "input_cache_creation": 3, "output": 10,
    }  # fmt: skip


def test_before_0_8_3_the_title_of_the_first_turn_is_its_own_trace_too() -> None:
    entries = unnamed(
        prompt_row(108, createdAt=moment(2.5)),
        completion_row(13, createdAt=moment(2.5)),
        prompt_row(142, context="title", createdAt=moment(4)),
        completion_row(5, context="title", createdAt=moment(4)),
    )
    turn, title = traces_of(by_time(oldest_response_row(), oldest_user_row(), entries))

    assert [item.usage for item in generations(turn)] == [{"input": 108, "output": 13}]
    assert title.root.usage == {"input": 142, "output": 5}


def test_until_0_7_8_the_model_that_chose_the_plugins_wrote_the_answer_if_no_other_was_asked() -> None:
    """`gptPlugins` with `skipCompletion`, seen at 0.7.5; the row names the model that was not asked."""
    call = {"model": "gpt-4o-mini", "context": "plugins", "createdAt": moment(1)}
    chosen = unnamed(prompt_row(108, **call), completion_row(13, **call))
    completed = unnamed(prompt_row(90, createdAt=moment(1.5)), completion_row(12, createdAt=moment(1.6)))

    (only,) = generations(trace_of(by_time(oldest_response_row(), oldest_user_row(), chosen)))
    both = generations(trace_of(by_time(oldest_response_row(), oldest_user_row(), [*chosen, *completed])))

    assert (only.model, only.usage) == ("gpt-4o-mini", {"input": 108, "output": 13})
    assert only.output == {"role": "assistant", "content": "Paris."}
    assert {item.model: item.output for item in both} == {"gpt-4o": only.output, "gpt-4o-mini": None}


def test_0_7_5_without_a_ledger_only_the_answers_tokens_are_known() -> None:
    (only,) = generations(trace_of(turn_record(oldest_response_row(), oldest_user_row())))

    assert (only.usage, only.cost) == ({"output": 13}, None)
    assert (only.metadata["usage_source"], only.metadata["cost_source"]) == ("output_only", "unknown")


def test_until_0_8_1_a_stopped_answer_is_marked_by_its_finish_reason() -> None:
    """`unfinished` is false; LibreChat charges its own guess, with a surcharge."""
    entries = unnamed(
        prompt_row(108, context="incomplete", createdAt=moment(2)),
        completion_row(15, context="incomplete", createdAt=moment(2)),
    )
    stopped = oldest_response_row(finish_reason="incomplete", text="Par")
    record = by_time(stopped, oldest_user_row(), entries)
    found = trace_of(record)

    assert outcome_of(record) is Outcome.ABORTED
    assert (found.root.level, found.root.output) == (Level.WARNING, "Par")
    assert {item.metadata["usage_source"] for item in generations(found)} == {"estimated"}


def test_0_7_8_a_provider_error_is_the_text_of_the_row() -> None:
    """Denied and moderated requests store JSON in every release."""
    text = '{"type":"moderation","info":"flagged"}'
    record = turn_record(oldest_response_row(error=True, text=text, tokenCount=MISSING), oldest_user_row())
    found = trace_of(record)

    assert outcome_of(record) is Outcome.ERROR
    assert (found.root.level, found.root.status_message) == (Level.ERROR, text)
    assert found.root.output is None
    assert generations(found) == []


def test_until_0_8_1_an_error_after_partial_text_is_a_stopped_answer_that_keeps_it() -> None:
    record = turn_record(oldest_response_row(unfinished=True, text="Par"), oldest_user_row())

    assert outcome_of(record) is Outcome.ABORTED
    assert trace_of(record).root.output == "Par"


@pytest.mark.parametrize("release", ["0.7.7", "0.8.5"])
def test_before_0_8_6_only_the_expiry_says_that_a_chat_is_temporary(release: str) -> None:
    del release
    record = turn_record(
        oldest_response_row(expiredAt=moment(3_600)), user_row(isTemporary=MISSING, expiredAt=moment(3_600))
    )

    assert export(record) == "temporary"
    assert "temporary" in trace_of(record, policies=Policies(temporary=TemporaryPolicy.FULL)).tags


def test_since_0_8_6_an_expiry_is_no_sign_of_a_temporary_chat() -> None:
    """`retentionMode: all` dates every chat."""
    record = turn_record(
        response_row(isTemporary=False, expiredAt=moment(3_600)), user_row(expiredAt=moment(3_600))
    )

    assert outcome_of(record) is Outcome.COMPLETE


def test_0_7_9_answers_are_parts_and_a_failure_is_one_of_them() -> None:
    error = {"type": "error", "error": "An error occurred while processing the request: 500 overloaded"}
    record = turn_record(old_response_row(text="", content=[SAID, error]), oldest_user_row())
    found = trace_of(record)

    assert (found.root.level, found.root.status_message) == (Level.ERROR, "500 overloaded")
    assert found.root.output == "Paris."


def test_0_8_3_transactions_name_their_message_and_nothing_else_is_guessed() -> None:
    record = turn_record(old_response_row(), oldest_user_row(), prompt_row(108), completion_row(13))
    (only,) = generations(trace_of(record))

    assert (only.usage, only.metadata["usage_source"]) == ({"input": 108, "output": 13}, "billed")


def test_0_8_2_to_0_8_6_a_stopped_agents_turn_has_neither_numbers_nor_a_charge() -> None:
    """Its transactions are never written; nothing is made up in their place."""
    record = turn_record(
        old_response_row(unfinished=True, text="Par", content=[{"type": "text", "text": "Par"}], tokenCount=MISSING),
        oldest_user_row(),
    )  # fmt: skip
    (only,) = generations(trace_of(record))

    assert (only.usage, only.metadata["usage_source"]) == (None, "unknown")
    assert only.cost is None


def test_0_8_7_a_stopped_turn_reports_what_it_used() -> None:
    record = turn_record(
        response_row(unfinished=True, text="Par", langfuseSampled=MISSING, metadata=usage_metadata(108, 2)),
        user_row(),
    )
    (only,) = generations(trace_of(record))

    assert trace_of(record).metadata["outcome"] == "aborted"
    assert (only.usage, only.metadata["usage_source"]) == ({"input": 108, "output": 2}, "reported")


def test_a_closed_tab_waits_for_its_end_and_is_then_one_complete_turn() -> None:
    """0.8.2 and later store what there is, without `text`, and go on."""
    left = turn_record(old_response_row(unfinished=True, text=MISSING), oldest_user_row())
    ended = turn_record(
        old_response_row(unfinished=False), oldest_user_row(), finished_milliseconds=stamp(30)
    )

    assert outcome_of(left) is Wait.FINISH
    assert outcome_of(left, deadline_passed=True) is Outcome.PARTIAL
    assert outcome_of(ended) is Outcome.COMPLETE
    assert trace_of(ended).root.end_milliseconds == stamp(30)


ASSISTANT = "asst_V8KyqV2Zl0h2M9"


def assistant_rows(*content: Document, **fields: Any) -> tuple[Document, Document]:
    """The assistants endpoints: the assistant's id as model on both rows, a thread, texts with annotations."""
    shared: Document = {
        "model": ASSISTANT,
        "endpoint": "assistants",
        "thread_id": "thread_1",
        "isTemporary": MISSING,
    }
    return (
        old_response_row(**{**shared, "content": list(content), "tokenCount": MISSING, **fields}),
        user_row(expiredAt=MISSING, **shared),
    )


def structured_text(value: str) -> Document:
    return {"type": "text", "text": {"value": value, "annotations": []}}


def test_an_assistants_turn_has_its_text_its_tools_and_its_bill() -> None:
    function = {
        "id": "call_1", "type": "function", "progress": 1,
        "function": {"name": "look_up", "arguments": '{"city":"Paris"}', "output": "18 degrees"},
    }  # fmt: skip
    code = {
        "id": "call_2", "type": "code_interpreter", "progress": 1,
        "code_interpreter": {"input": "print(1)", "outputs": [{"type": "logs", "logs": "1"}]},
    }  # fmt: skip
    retrieval = {"id": "call_3", "type": "retrieval", "progress": 1}
    response, question = assistant_rows(
        *({"type": "tool_call", "tool_call": call} for call in (function, code, retrieval)),
        structured_text("18 degrees."),
    )
    entries = unnamed(
        prompt_row(300, model="gpt-4o", createdAt=moment(3)),
        completion_row(20, model="gpt-4o", createdAt=moment(3)),
    )
    found = trace_of(by_time(response, question, entries))
    (only,) = generations(found)

    assert found.root.output == "18 degrees."
    assert [(tool.name, tool.input, tool.output) for tool in tools(found)] == [
        ("look_up", {"city": "Paris"}, "18 degrees"),
        ("code_interpreter", "print(1)", '[{"type":"logs","logs":"1"}]'),
        ("retrieval", None, None),
    ]
    assert (only.model, only.usage) == ("gpt-4o", {"input": 300, "output": 20})
    assert found.metadata["endpoint"] == "assistants"


def test_an_assistants_model_is_the_conversations_and_never_the_assistants_id() -> None:
    response, question = assistant_rows(structured_text("Paris."))
    chat = conversation(
        conversation_row(
            endpoint="assistants", model="gpt-4o", agent_id=MISSING, instructions="Be brief.", title="A"
        )
    )
    (only,) = generations(trace_of(turn_record(response, question, conversation=chat)))
    (unknown,) = generations(trace_of(turn_record(response, question)))

    assert only.metadata["model"] == "gpt-4o"
    assert only.input == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    assert "model" not in unknown.metadata


def test_an_assistant_that_failed_is_an_error_with_its_message() -> None:
    response, question = assistant_rows(error=True, text='{"type":"invalid_assistant"}', content=MISSING)

    assert trace_of(turn_record(response, question)).root.status_message == '{"type":"invalid_assistant"}'


@pytest.mark.parametrize("content", [[], [structured_text("Roses are")]])
def test_an_assistant_that_was_stopped_is_aborted_whatever_it_had_written(content: list[Document]) -> None:
    """LibreChat stores what it finds in the thread, without a sender and without a text."""
    response, question = assistant_rows(*content, sender=MISSING, text=MISSING, endpoint="azureAssistants")
    failed, _ = assistant_rows(text="")

    assert trace_of(turn_record(response, question)).metadata["outcome"] == "aborted"
    assert trace_of(turn_record(failed, question)).metadata["outcome"] == "error"


def test_an_assistant_whose_picture_is_a_part_names_it_beside_its_text() -> None:
    picture = {
        "type": "image_file",
        "image_file": {"file_id": "file-1", "filename": "plot.png", "filepath": "x"},
    }
    response, question = assistant_rows(structured_text("Here."), picture)

    assert trace_of(turn_record(response, question)).root.output == "Here. [image: plot.png]"


def test_a_subagents_calls_are_under_the_agent_that_a_tool_started_and_its_answer_is_the_tools_output() -> (
    None
):
    """Context `subagent` under the parent's message; the report holds the sum."""
    subagent = tool_part("subagent", args='{"task":"count"}', output="42")
    record = turn_record(
        response_row(content=[subagent, SAID], metadata=usage_metadata(300, 30)),
        user_row(),
        prompt_row(100),
        completion_row(10),
        prompt_row(50, context="subagent", model="gpt-4o-mini"),
        completion_row(5, context="subagent", model="gpt-4o-mini"),
        prompt_row(150),
        completion_row(15),
    )
    found = trace_of(record)

    assert [(item.name, item.usage) for item in generations(found)] == [
        ("gpt-4o", {"input": 100, "output": 10}),
        ("gpt-4o-mini", {"input": 50, "output": 5}),
        ("gpt-4o", {"input": 150, "output": 15}),
    ]
    (ran,) = subagents(found)
    assert (ran.name, ran.parent_id, ran.output) == ("sub-agent", tools(found)[0].id, "42")
    assert generations(found)[1].parent_id == ran.id
    assert [(tool.name, tool.input, tool.output) for tool in tools(found)] == [
        ("subagent", {"task": "count"}, "42")
    ]
    assert {item.metadata["usage_source"] for item in generations(found)} == {"reported"}


def test_all_calls_of_the_only_subagent_are_below_it_also_those_whose_words_are_not_stored() -> None:
    inner = {"context": "subagent", "model": "gpt-4o-mini"}
    record = turn_record(
        response_row(content=[tool_part("subagent", args='{"task":"count"}', output="42"), SAID]),
        user_row(),
        prompt_row(9),
        completion_row(3),
        prompt_row(50, **inner),
        completion_row(5, **inner),
        prompt_row(60, **inner),
        completion_row(6, **inner),
        prompt_row(9),
        completion_row(3),
    )
    found = trace_of(record)
    (ran,) = subagents(found)

    below = [item.parent_id for item in generations(found) if item.model == "gpt-4o-mini"]
    assert below == [ran.id, ran.id]


def test_a_subagents_only_call_holds_all_of_its_words_also_in_a_turn_that_was_stopped() -> None:
    """A stopped turn may lack the row of its own last call; that of a sub-agent that ended is there."""
    words = [{"type": "text", "text": "first"}, tool_part("look", id="in"), {"type": "text", "text": "then"}]
    part = tool_part("subagent", args='{"subagent_type":"agent_e"}', subagent_content=words)
    inner = {"context": "subagent", "model": "gpt-4o-mini"}
    record = turn_record(
        response_row(content=[part], unfinished=True, text=""),
        user_row(),
        prompt_row(9),
        completion_row(3),
        prompt_row(50, **inner),
        completion_row(5, **inner),
    )
    (own,) = [item for item in generations(trace_of(record)) if item.model == "gpt-4o-mini"]

    assert "first" in str(own.output)
    assert "then" in str(own.output)
    assert own.metadata["calls"] == "not told apart"


def test_a_subagent_of_the_kind_self_is_the_agent_that_answers_also_where_that_one_may_not_be_read() -> None:
    part = tool_part("subagent", args='{"subagent_type":"self","description":"count"}')
    (ran,) = subagents(trace_of(turn_record(response_row(model="agent_hidden", content=[part]), user_row())))

    assert ran.metadata["agent_id"] == "agent_hidden"


def test_a_hand_off_is_a_tool_call_and_an_event_and_the_next_agents_call_is_its_own() -> None:
    record = turn_record(
        response_row(
            model="agent_a",
            content=[
                {**tool_part("lc_transfer_to_agent_b", args="{}", output="Successfully transferred"), "agentId": "agent_a"},
                {"type": "agent_update", "agent_update": {"index": 1, "runId": RESPONSE, "agentId": "agent_b"}},
                {"type": "text", "text": "I am b.", "agentId": "agent_b"},
            ],
        ),
        user_row(),
        prompt_row(100),
        completion_row(10),
        prompt_row(120, model="claude-sonnet-4", context="sequential"),
        completion_row(12, model="claude-sonnet-4", context="sequential"),
        agent=agent(agent_row(id="agent_a")),
    )  # fmt: skip
    found = trace_of(record)

    assert found.root.output == "I am b."
    assert [tool.name for tool in tools(found)] == ["lc_transfer_to_agent_b"]
    assert [(item.name, item.input) for item in observations(found, ObservationType.EVENT)] == [
        ("hand-off", {"agent_id": "agent_b"})
    ]
    assert [(item.name, item.usage) for item in generations(found)] == [
        ("gpt-4o", {"input": 100, "output": 10}),
        ("claude-sonnet-4", {"input": 120, "output": 12}),
    ]
    assert found.metadata["agent_id"] == "agent_a"


def test_a_summary_is_an_event_with_a_call_of_its_own_and_the_next_turn_begins_with_it() -> None:
    """0.8.5 and later."""
    summary = {
        "type": "summary",
        "content": [{"type": "text", "text": "They spoke of France."}],
        "tokenCount": 5,
    }
    compacted = response_row(
        content=[summary, SAID], metadata=usage_metadata(150, 15), parentMessageId=QUESTION
    )
    record = turn_record(
        compacted,
        user_row(),
        prompt_row(50, context="summarization", model="gpt-4o-mini"),
        completion_row(5, context="summarization", model="gpt-4o-mini"),
        prompt_row(100),
        completion_row(10),
    )
    found = trace_of(record)

    assert [(item.name, item.usage) for item in generations(found)] == [
        ("summarization", {"input": 50, "output": 5}),
        ("gpt-4o", {"input": 100, "output": 10}),
    ]
    assert generations(found)[0].output == {"role": "assistant", "content": "They spoke of France."}
    assert [(item.name, item.input) for item in observations(found, ObservationType.EVENT)] == [
        ("summary", "They spoke of France.")
    ]
    following = turn_record(
        response_row(), user_row(text="And then?"), history=(message(user_row()), message(compacted))
    )
    assert generations(trace_of(following))[0].input == [
        {"role": "system", "content": "They spoke of France."},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And then?"},
    ]


def test_steering_is_an_event_and_the_next_turn_sees_it_as_a_question() -> None:
    steered = response_row(
        content=[SAID, {"type": "steer", "steer": "Shorter!", "createdAt": moment(1)}, {"type": "text", "text": "P."}]
    )  # fmt: skip
    found = trace_of(turn_record(steered, user_row()))
    following = turn_record(response_row(), user_row(text="And?"), history=(message(steered),))

    assert [(item.name, item.input) for item in observations(found, ObservationType.EVENT)] == [
        ("steer", "Shorter!")
    ]
    assert "Shorter!" not in str(found.root.output)
    assert {"role": "user", "content": "Shorter!"} in generations(trace_of(following))[0].input  # type: ignore[operator]


@pytest.mark.parametrize("context", ["activity-label", "activity-phase", "reasoning-label"])
def test_a_label_is_a_small_call_beside_the_answer_and_none_of_its_text(context: str) -> None:
    label = {
        "type": "activity_label", "activity_label": "Looked at the weather", "status": "ok",
        "tool_call_ids": ["call_1"],
    }  # fmt: skip
    record = turn_record(
        response_row(content=[tool_part(), label, SAID], metadata=usage_metadata(107, 13)),
        user_row(),
        prompt_row(100),
        completion_row(10),
        prompt_row(7, context=context, model="gpt-4o-mini"),
        completion_row(3, context=context, model="gpt-4o-mini"),
    )
    found = trace_of(record)

    assert found.root.output == "Paris."
    assert [(item.name, item.usage) for item in generations(found)] == [
        ("gpt-4o", {"input": 100, "output": 10}),
        (context, {"input": 7, "output": 3}),
    ]


def test_a_background_tool_has_its_output_once_it_is_stored() -> None:
    """The row is patched after it is complete; until then the tool is neither failed nor a stop."""
    running = tool_part(output=MISSING, backgrounded=True, runStepStatus="completed")
    patched = tool_part(output="done", backgrounded=True, runStepStatus="completed", runStepDurationMs=90_000)
    (before,) = tools(trace_of(turn_record(response_row(content=[running, SAID]), user_row())))
    (after,) = tools(trace_of(turn_record(response_row(content=[patched, SAID]), user_row())))

    assert (before.output, before.level) == (None, Level.DEFAULT)
    assert (after.output, after.level) == ("done", Level.DEFAULT)
    assert after.end_milliseconds - after.start_milliseconds == 90_000
    assert before.id == after.id


def test_an_approval_that_never_came_is_a_partial_turn_after_its_deadline() -> None:
    waiting = tool_part(output=MISSING, approval={"actionId": "a", "allowed_decisions": ["approve"]})
    record = turn_record(response_row(unfinished=True, text="", content=[SAID, waiting]), user_row())

    assert outcome_of(record) is Wait.APPROVAL
    assert outcome_of(record, deadline_passed=True) is Outcome.PARTIAL
    (tool,) = tools(trace_of(record, deadline_passed=True))
    assert (tool.level, tool.status_message) == (Level.WARNING, "no output was stored")


def test_tools_of_servers_keep_their_whole_name_and_a_login_is_one_of_them() -> None:
    parts = [
        tool_part("search_mcp_github"),
        tool_part("oauth_mcp_github", auth="https://example.org", output=""),
    ]
    found = tools(trace_of(turn_record(response_row(content=[*parts, SAID]), user_row())))

    assert [tool.name for tool in found] == ["search_mcp_github", "oauth_mcp_github"]
    assert "https://example.org" not in str(found)


def test_equal_call_ids_of_two_agents_are_two_tools() -> None:
    """Providers count from zero for each."""
    parts = [{**tool_part(id="call_0"), "agentId": name} for name in ("agent_a", "agent_b")]
    found = tools(trace_of(turn_record(response_row(content=parts), user_row())))

    assert [tool.metadata["agent_id"] for tool in found] == ["agent_a", "agent_b"]
    assert len({tool.id for tool in found}) == 2


@pytest.mark.parametrize(
    "document",
    [
        # An import of another product's export: labels of its own, no times of writing.
        old_response_row(sender="GPT-3.5", updatedAt=MISSING, createdAt=moment(-9_999)),
        old_response_row(sender="GPT-3.5", updatedAt=MISSING, createdAt=MISSING),
    ],
    ids=["import", "import without times"],
)
def test_copies_of_older_releases_are_recognised_and_cost_nothing(document: Document) -> None:
    record = turn_record(document, user_row())
    found = trace_of(record, policies=Policies(copies=CopyPolicy.EXPORT))

    assert export(record) == "copied"
    assert "copied" in found.tags
    assert not any(item.usage or item.cost for item in found.observations)


def test_an_old_conversation_without_parents_is_a_turn_without_question() -> None:
    """Very old rows and rows of the Responses API name no parent."""
    record = turn_record(oldest_response_row(parentMessageId=None), None)
    found = trace_of(record)

    assert (found.root.input, found.root.output) == (None, "Paris.")
    assert "parent_message_id" not in found.metadata
    assert found.session_id == CONVERSATION


def test_a_preliminary_row_is_a_turn_of_its_own_id() -> None:
    """A tab closed before the real id was known leaves `<question>_` behind."""
    orphan = old_response_row(messageId=f"{QUESTION}_", unfinished=True, text=MISSING)
    record = turn_record(orphan, oldest_user_row())

    assert outcome_of(record) is Wait.FINISH
    assert trace_of(record, deadline_passed=True).id != trace_of(turn_record(response_row())).id


def test_steps_of_every_shape_keep_the_order_they_were_stored_in() -> None:
    parts: list[Document] = [
        {"type": "think", "think": "Hm."},
        tool_part("one", id="call_0"),
        {"type": "agent_update", "agent_update": {"agentId": "agent_b"}},
        {"type": "steer", "steer": "Go on."},
        tool_part("two", id="call_0"),
        {"type": "hologram", "hologram": 1},
        SAID,
    ]
    found = trace_of(turn_record(response_row(content=parts), user_row()))
    inner = [item for item in found.observations[1:] if item.type is not ObservationType.GENERATION]

    assert [item.name for item in inner] == ["one", "hand-off", "steer", "two"]
    assert all(before.start_milliseconds < after.start_milliseconds for before, after in pairwise(inner))


def chain_of_two(first: str, second: str, *entries: Document, **fields: Any) -> list[Observation]:
    """The generations of a chain before 0.8.6: a saved agent on the one provider, then one on the other."""
    response = old_response_row(2, model="agent_a", endpoint="agents", **fields)
    models = {"openAI": "gpt-4o", "anthropic": "claude-sonnet-4"}
    a, b = (
        agent(agent_row(id=agent_id, provider=provider, model=models[provider]))
        for agent_id, provider in (("agent_a", first), ("agent_b", second))
    )
    record = turn_record(response, user_row(), *entries, agent=a, agents={"agent_a": a, "agent_b": b})
    return generations(trace_of(record))


@pytest.mark.parametrize(
    "parts",
    [
        [
            SAID,
            {"type": "agent_update", "agent_update": {"index": 1, "runId": "r", "agentId": "agent_b"}},
            {**SAID, "agentId": "agent_b"},
        ],
        [SAID, SAID],
    ],
)
def test_before_0_8_6_each_agents_call_is_counted_as_its_own_provider_counts(parts: list[Document]) -> None:
    """Seen at 0.7.7, 0.7.9 and 0.8.4: `inputTokens` of OpenAI hold the cached tokens, those of Anthropic never do, and
    are doubled in some of these releases."""
    entries = [
        structured_prompt_row(500, write=0, read=64),
        completion_row(10),
        structured_prompt_row(300, write=8, read=20, model="claude-sonnet-4"),
        completion_row(30, model="claude-sonnet-4"),
    ]

    found = chain_of_two("openAI", "anthropic", *entries, content=parts)

    assert [item.usage for item in found] == [
        {"input": 436, "input_cached_tokens": 64, "output": 10},
        {"input": 300, "input_cached_tokens": 20, "input_cache_creation": 8, "output": 30},
    ]
    assert [item.metadata["usage_source"] for item in found] == ["billed", "estimated"]
    assert [item.metadata["cost_source"] for item in found] == ["billed", "estimated"]


def test_before_0_8_6_a_call_is_billed_also_where_the_first_agent_of_the_chain_was_charged_nothing() -> None:
    """What is charged is the second agent's, and its provider is none whose amounts are doubtful."""
    entries = [structured_prompt_row(500, write=0, read=64), completion_row(10)]

    found = chain_of_two("anthropic", "openAI", *entries, content=[SAID, {**SAID, "agentId": "agent_b"}])

    (charged,) = [item for item in found if item.usage]
    assert charged.usage == {"input": 436, "input_cached_tokens": 64, "output": 10}
    assert charged.metadata["usage_source"] == "billed"


def test_before_0_8_6_a_model_beside_anthropics_has_its_cached_tokens_once() -> None:
    entries = [
        structured_prompt_row(300, write=0, read=20, model="claude-sonnet-4"),
        completion_row(30, model="claude-sonnet-4"),
        structured_prompt_row(500, write=0, read=64),
        completion_row(10),
    ]
    parts = [SAID, {**SAID, "agentId": "agent_b"}]

    found = chain_of_two("anthropic", "openAI", *entries, content=parts)

    assert [item.usage for item in found] == [
        {"input": 300, "input_cached_tokens": 20, "output": 30},
        {"input": 436, "input_cached_tokens": 64, "output": 10},
    ]


def test_0_8_4_a_model_that_was_added_is_counted_as_its_provider_counts() -> None:
    """The ids of the parts name endpoint and model."""
    response = old_response_row(
        2,
        content=[
            {**SAID, "agentId": "openAI__gpt-4o", "groupId": 1},
            {**SAID, "agentId": "anthropic__claude-sonnet-4____1", "groupId": 1},
        ],
    )
    entries = [
        structured_prompt_row(500, write=0, read=64),
        completion_row(10),
        structured_prompt_row(300, write=0, read=20, model="claude-sonnet-4"),
        completion_row(30, model="claude-sonnet-4"),
    ]

    found = generations(trace_of(turn_record(response, user_row(), *entries)))

    assert {item.model: item.usage for item in found} == {
        "gpt-4o": {"input": 436, "input_cached_tokens": 64, "output": 10},
        "claude-sonnet-4": {"input": 300, "input_cached_tokens": 20, "output": 30},
    }
    assert {item.model: item.metadata["usage_source"] for item in found} == {
        "gpt-4o": "billed",
        "claude-sonnet-4": "estimated",
    }


@pytest.mark.parametrize(
    ("charged", "source"), [(48, "estimated"), (45, "billed"), (49, "billed"), (1_048, "billed")]
)
def test_before_0_8_6_a_prompt_that_librechat_counted_by_itself_says_so(charged: int, source: str) -> None:
    """Its own count is that of all messages and 3 for the beginning of the answer. Where the provider told its count,
    LibreChat makes the messages' sum equal to it. Seen at 0.7.9, 0.8.0, 0.8.1 and 0.8.4, in first and later turns."""
    entries = [prompt_row(charged), completion_row(21)]
    record = turn_record(
        old_response_row(2),
        user_row(tokenCount=15),
        *entries,
        earlier_tokens=30,
        history=(message(user_row(-9)),),
    )
    (only,) = generations(trace_of(record))

    assert only.usage == {"input": charged, "output": 21}
    assert (only.metadata["usage_source"], only.metadata["cost_source"]) == (source, source)


@pytest.mark.parametrize(
    ("entries", "earlier"),
    [
        ([prompt_row(48), completion_row(21)], None),
        ([structured_prompt_row(48, write=0, read=8), completion_row(21)], 30),
        ([prompt_row(48), completion_row(21), prompt_row(90), completion_row(4)], 30),
    ],
)
def test_where_not_all_messages_or_several_calls_were_counted_the_ledger_is_believed(
    entries: list[Document], earlier: int | None
) -> None:
    record = turn_record(old_response_row(2), user_row(tokenCount=15), *entries, earlier_tokens=earlier)

    assert {item.metadata["usage_source"] for item in generations(trace_of(record))} == {"billed"}
