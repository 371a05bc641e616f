"""Who said what: each part at the call of its agent, on its agent's model, and nowhere where that cannot be told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat.content import read_parts
from tailer.core.trace.observations import Observation, ObservationType, Trace
from tailer.core.turn.assignment import Step, assign_calls
from tailer.core.turn.authors import Authors
from tailer.core.turn.calls import ModelCall, Tokens
from tailer.core.turn.segments import split_stretches
from tests.recordings import truth
from tests.unit.documents import (
    MISSING,
    Document,
    agent,
    agent_row,
    completion_row,
    observations,
    prompt_row,
    replay,
    response_row,
    tool_part,
    trace_of,
    turn_record,
    usage_metadata,
    user_row,
)


def text(content: str, agent_id: str | None = None, group: int | None = None) -> Document:
    owner = {} if agent_id is None else {"agentId": agent_id}
    return {"type": "text", "text": content, **owner, **({} if group is None else {"groupId": group})}


def think(content: str, agent_id: str, group: int) -> Document:
    return {"type": "think", "think": content, "agentId": agent_id, "groupId": group}


MODELS = {"agent_a": "gpt-4o", "agent_b": "claude-sonnet-4", "agent_c": "gpt-4o-mini", "agent_A": "gpt-4o"}
AGENTS = {
    agent_id: agent(
        agent_row(id=agent_id, name=f"Agent {agent_id[-1]}", model=model, instructions=f"Be {agent_id}")
    )
    for agent_id, model in MODELS.items()
}
AUTHORS = Authors(AGENTS, None, None)


def call(model: str | None, output: int = 10, context: str = "message") -> ModelCall:
    return ModelCall(model, context, Tokens(1, output), None)


def contents(
    parts: list[Document], *calls: ModelCall, authors: Authors = AUTHORS, may_lack_last: bool = False
) -> list[tuple[str | None, str]]:
    """Model and words of each step; the model is `?` where it is shown without a call, and None without a row."""
    assigned = assign_calls(
        split_stretches(read_parts(parts)), list(enumerate(calls)), authors, may_lack_last=may_lack_last
    )

    def show(step: Step) -> tuple[str | None, str]:
        model = "?" if step.nameless else step.call.model if step.call is not None else None
        return model, "".join(getattr(part, "text", "t") for part in step.parts)

    return [show(step) for steps in assigned.stretches for step in steps] + [
        show(step) for step in assigned.silent
    ]


def test_the_agents_model_tells_and_not_the_order_of_the_ledger() -> None:
    parts = [text("of a", "agent_a"), text("of b", "agent_b", 1), text("of c", "agent_c", 1)]

    assert contents(parts, call("gpt-4o"), call("gpt-4o-mini"), call("claude-sonnet-4")) == [
        ("gpt-4o", "of a"),
        ("claude-sonnet-4", "of b"),
        ("gpt-4o-mini", "of c"),
    ]


def test_parts_that_stand_mixed_go_to_their_own_agent() -> None:
    """Two encoded models side by side: think, think, text, text."""
    mini, claude = "openAI__o4-mini", "anthropic__claude-sonnet-4-5____1"
    parts = [think("A thinks", mini, 1), think("B thinks", claude, 1), text("ANSWER-A", mini, 1), text("ANSWER-B", claude, 1)]  # fmt: skip

    assert contents(parts, call("o4-mini"), call("claude-sonnet-4-5")) == [
        ("o4-mini", "A thinksANSWER-A"),
        ("claude-sonnet-4-5", "B thinksANSWER-B"),
    ]


def test_a_model_whose_name_begins_another_is_not_mistaken_for_it() -> None:
    parts = [text("small", "openAI__gpt-4o-mini____1", 1), text("large", "openAI__gpt-4o", 1)]

    assert contents(parts, call("gpt-4o"), call("gpt-4o-mini")) == [
        ("gpt-4o-mini", "small"),
        ("gpt-4o", "large"),
    ]


def test_a_colon_in_a_models_name_is_two_underscores_in_the_id() -> None:
    parts = [text("other", "openAI__gpt-4o", 1), text("own", "FakeCo__llama3__8b____1", 1)]

    assert contents(parts, call("llama3:8b"), call("gpt-4o")) == [("gpt-4o", "other"), ("llama3:8b", "own")]


def test_agents_that_may_not_be_read_are_told_by_their_order_where_they_ran_in_turn() -> None:
    hidden = Authors({}, None, None)
    parts = [
        text("first", "agent_a"),
        tool_part(agentId="agent_a"),
        text("more", "agent_a"),
        text("second", "agent_b"),
    ]
    calls = [call("gpt-4o"), call("gpt-4o"), call("claude-sonnet-4")]

    assert contents(parts, *calls, authors=hidden) == [
        ("gpt-4o", "firstt"),
        ("gpt-4o", "more"),
        ("claude-sonnet-4", "second"),
    ]


@pytest.mark.parametrize("extra", [[], [call("o4-mini")]])
def test_agents_that_may_not_be_read_and_ran_side_by_side_are_not_told_apart(extra: list[ModelCall]) -> None:
    hidden = Authors({}, None, None)
    parts = [text("first", "agent_a", 1), text("second", "agent_b", 1)]
    found = contents(parts, call("gpt-4o"), call("claude-sonnet-4"), *extra, authors=hidden)

    assert found[:2] == [("?", "first"), ("?", "second")]
    assert {words for _, words in found[2:]} == {""}


def test_the_only_unknown_agent_has_the_only_other_model() -> None:
    known = Authors({"agent_a": AGENTS["agent_a"]}, None, None)
    parts = [text("first", "agent_a", 1), text("second", "agent_x", 1)]

    assert contents(parts, call("claude-sonnet-4"), call("gpt-4o"), authors=known) == [
        ("gpt-4o", "first"),
        ("claude-sonnet-4", "second"),
    ]


def test_a_deployments_name_is_the_model_of_the_only_agent() -> None:
    """A ledger may name the model otherwise than the row or the agent does."""
    parts = [text("a"), tool_part(), text("b")]
    own = Authors({}, None, "gpt-4o")

    assert contents(parts, call("my-deployment"), call("my-deployment"), authors=own) == [
        ("my-deployment", "at"),
        ("my-deployment", "b"),
    ]


def test_one_call_for_each_round_of_tools_and_the_last_words_are_the_last_calls() -> None:
    row = [tool_part(), tool_part(), tool_part(), text("answer")]

    assert contents(row, *[call("m")] * 4) == [("m", "t"), ("m", "t"), ("m", "t"), ("m", "answer")]
    assert contents(row, *[call("m")] * 2) == [("m", "ttt"), ("m", "answer")]
    assert contents(row, *[call("m")] * 3) == [("m", "ttt"), ("m", "answer"), ("m", "")]
    assert contents(row, call("m")) == [("m", "tttanswer")]
    assert contents(row, *[call("m")] * 5)[3:] == [("m", "answer"), ("m", "")]


def test_a_turn_that_was_cut_short_may_lack_the_row_of_its_last_call() -> None:
    parts = [text("a"), tool_part(), text("b")]

    assert contents(parts, call("m"), may_lack_last=True) == [("m", "at"), (None, "b")]
    assert contents(parts, call("m")) == [("m", "atb")]


def test_calls_of_one_model_side_by_side_are_told_by_the_length_of_what_they_wrote() -> None:
    """And marked: another order is possible."""
    parts = [text("x" * 400, "agent_a", 1), text("y", "agent_A", 1)]
    assigned = assign_calls(
        split_stretches(read_parts(parts)),
        list(enumerate([call("gpt-4o", 2), call("gpt-4o", 100)])),
        AUTHORS,
        may_lack_last=False,
    )
    steps = [step for steps in assigned.stretches for step in steps]

    assert [step.call.tokens.output for step in steps if step.call and step.call.tokens] == [100, 2]
    assert all(step.by_order for step in steps)


def generations(trace: Trace) -> list[Observation]:
    return observations(trace, ObservationType.GENERATION)


def outputs(trace: Trace) -> list[Any]:
    return [item.output["content"] if isinstance(item.output, dict) else None for item in generations(trace)]


def test_a_hand_off_names_agents_and_both_have_a_generation_also_without_a_ledger() -> None:
    parts = [
        text("I hand over", "agent_a"),
        {**tool_part("lc_transfer_to_agent_b"), "agentId": "agent_a"},
        {"type": "agent_update", "agent_update": {"agentId": "agent_b"}},
        text("B speaking", "agent_b"),
    ]
    record = turn_record(
        response_row(model="agent_a", content=parts, tokenCount=MISSING),
        user_row(),
        agent=AGENTS["agent_a"],
        agents=AGENTS,
    )
    trace = trace_of(record)
    (event,) = observations(trace, ObservationType.EVENT)
    (tool,) = observations(trace, ObservationType.TOOL)

    assert outputs(trace) == ["I hand over", "B speaking"]
    assert [item.metadata["agent_name"] for item in generations(trace)] == ["Agent a", "Agent b"]
    assert [item.metadata["model"] for item in generations(trace)] == ["gpt-4o", "claude-sonnet-4"]
    assert event.input == {"agent": "Agent b", "agent_id": "agent_b"}
    assert tool.name == "lc_transfer_to_Agent b"
    second = generations(trace)[1].input
    assert isinstance(second, list)
    assert second[0] == {"role": "system", "content": "Be agent_b"}
    assert {"role": "assistant", "content": "I hand over"} in second


def test_agents_side_by_side_all_have_the_question_and_the_root_tells_their_answers_apart() -> None:
    one, other = "openAI__o4-mini", "anthropic__claude-sonnet-4-5____1"
    parts = [text("ANSWER-A", one, 1), text("ANSWER-B", other, 1)]
    rows = [
        prompt_row(1, model="claude-sonnet-4-5"), completion_row(2, model="claude-sonnet-4-5"),
        prompt_row(3, model="o4-mini"), completion_row(4, model="o4-mini"),
    ]  # fmt: skip
    trace = trace_of(turn_record(response_row(content=parts), user_row(), *rows))

    assert trace.root.output == "[o4-mini]\nANSWER-A\n\n[claude-sonnet-4-5]\nANSWER-B"
    assert [item.model for item in generations(trace)] == ["o4-mini", "claude-sonnet-4-5"]
    for item in generations(trace):
        assert item.input == [{"role": "user", "content": "What is the capital of France?"}]
        assert (item.start_milliseconds, item.end_milliseconds) == (
            trace.root.start_milliseconds, trace.root.end_milliseconds,
        )  # fmt: skip


def test_what_cannot_be_told_stays_at_the_root() -> None:
    parts = [text("first", "agent_x", 1), text("second", "agent_y", 1)]
    rows = [prompt_row(1), completion_row(2), prompt_row(3, model="other"), completion_row(4, model="other")]
    report = usage_metadata(4, 6)
    trace = trace_of(turn_record(response_row(content=parts, metadata=report), user_row(), *rows))

    assert outputs(trace) == [None, None]
    assert {item.model for item in generations(trace)} == {"gpt-4o", "other"}
    assert trace.root.output == "[agent_x]\nfirst\n\n[agent_y]\nsecond"
    assert trace.root.metadata["authorship"] == "not told apart"


def test_a_sum_of_several_agents_calls_is_under_no_model() -> None:
    """A stopped turn reports one sum and has no ledger."""
    parts = [text("of a", "agent_a"), text("of b", "agent_b")]
    row = response_row(
        model="agent_a", content=parts, unfinished=True, text="of a", metadata=usage_metadata(40, 6)
    )
    record = turn_record(row, user_row(), agent=AGENTS["agent_a"], agents=AGENTS)
    found = generations(trace_of(record))
    (whole,) = [item for item in found if item.usage is not None]

    assert (whole.model, whole.usage, whole.output) == (None, {"input": 40, "output": 6}, None)
    assert whole.metadata["calls"] == "not told apart"
    assert [item.metadata["model"] for item in found if item.usage is None] == ["gpt-4o", "claude-sonnet-4"]


def test_one_call_too_many_joins_one_round_and_leaves_the_others_their_own_calls() -> None:
    """Three tools in each of two rounds, and four calls: which of the first three were called together is unknown."""
    used = [tool_part(id=f"call_{number}") for number in range(6)]
    parts = [*used[:3], text("then"), *used[3:], text("done")]
    rows = [made for number in (1, 2, 3, 4) for made in (prompt_row(number), completion_row(number))]
    trace = trace_of(turn_record(response_row(content=parts), user_row(), *rows))

    assert outputs(trace) == ["", None, "then", "done"]
    joined, _, third, last = generations(trace)
    assert joined.metadata["calls"] == "not told apart"
    assert [(item.usage, item.metadata["assignment"]) for item in (third, last)] == [
        ({"input": 3, "output": 3}, "by order"),
        ({"input": 4, "output": 4}, "by order"),
    ]


def test_calls_stand_in_the_order_of_the_ledger_also_where_several_asked_for_tools_in_a_row() -> None:
    """Two tools, one tool, then the answer: three calls. Seen at 0.7.9 to 0.8.4, where the second call stood before the
    first, as if it had been sent the question."""
    used = [tool_part(id=f"call_{number}") for number in range(3)]
    rows = [made for number in (1, 2, 3) for made in (prompt_row(number), completion_row(number))]
    trace = trace_of(turn_record(response_row(content=[*used, text("done")]), user_row(), *rows))
    calls = generations(trace)

    assert [item.usage for item in calls] == [{"input": number, "output": number} for number in (1, 2, 3)]
    assert [item.start_milliseconds for item in calls] == sorted(item.start_milliseconds for item in calls)
    assert [item.input is None for item in calls] == [False, True, True]
    assert outputs(trace) == ["", None, "done"]


def test_words_of_one_agent_are_one_call_although_another_one_spoke_too() -> None:
    """Two agents of one model, and the row of one call: it is the first one's."""
    parts = [text("of a", "agent_a"), text("of A", "agent_A")]
    row = response_row(model="agent_a", content=parts)
    record = turn_record(
        row, user_row(), prompt_row(1), completion_row(2), agent=AGENTS["agent_a"], agents=AGENTS
    )
    first, second = generations(trace_of(record))

    assert (first.usage, second.usage) == ({"input": 1, "output": 2}, None)
    assert "calls" not in first.metadata


def test_calls_without_a_model_are_those_of_the_agents_in_turn_where_there_are_as_many() -> None:
    """Until 0.8.2 a row may name an agent in place of a model: that says nothing against any agent."""
    parts = [text("of a", "agent_a"), text("of b", "agent_b"), text("more", "openAI__gpt-5")]
    calls = [call(None, output) for output in (1, 2, 3)]
    assigned = assign_calls(
        split_stretches(read_parts(parts)), list(enumerate(calls)), AUTHORS, may_lack_last=False
    )

    assert [[step.call for step in steps] for steps in assigned.stretches] == [[each] for each in calls]


def test_recorded_answers_side_by_side_are_their_own_models_in_both_orders() -> None:
    """In 18 the second turn's parts stand in the other order than its calls."""
    orders = set()
    for turn in truth("18-parallel-added-convo").turns:
        assert turn.response_message_id is not None
        trace = trace_of(replay("18-parallel-added-convo").record(turn.response_message_id))
        orders.add(tuple(item.model for item in generations(trace)) == tuple(r.model for r in turn.requests))

        assert {item.model for item in generations(trace)} == {request.model for request in turn.requests}
        for item in generations(trace):
            assert isinstance(item.output, dict)
            assert item.output["content"] == f"Echo from {item.model}: {turn.text}"
    assert orders == {True, False}


SPEAKERS = st.lists(
    st.tuples(
        st.sampled_from([*MODELS, "agent_unknown", "openAI__o4-mini", None]),
        st.sampled_from([None, 1, 2]),
        st.sampled_from(["text", "tool", "text"]),
    ),
    max_size=7,
)
LEDGER = st.lists(
    st.tuples(st.sampled_from([*MODELS.values(), "o4-mini", "another"]), st.integers(1, 500)), max_size=6
)


@given(SPEAKERS, LEDGER, st.sampled_from(["report", "ledger"]))
def test_no_text_is_under_a_generation_whose_agent_or_model_did_not_write_it(
    speakers: list[tuple[str | None, int | None, str]], ledger: list[tuple[str, int]], source: str
) -> None:
    """Whatever agents spoke and whatever was billed: each word is at most at one call, of a model that is its agent's;
    and the calls add up to the ledger."""
    parts: list[Document] = []
    for number, (agent_id, group, kind) in enumerate(speakers):
        if kind == "text":
            parts.append(text(f"<{agent_id}:{number}>", agent_id, group))
        else:
            parts.append({**tool_part(id=f"call_{number}"), "agentId": agent_id, "groupId": group})
    rows = [
        row
        for model, count in ledger
        for row in (prompt_row(count, model=model), completion_row(count, model=model))
    ]
    total = sum(count for _, count in ledger)
    metadata = usage_metadata(total, total) if source == "report" and ledger else MISSING
    record = turn_record(
        response_row(model="agent_a", content=parts, tokenCount=None, metadata=metadata),
        user_row(),
        *rows,
        agent=AGENTS["agent_a"],
        agents=AGENTS,
    )
    trace = trace_of(record)
    known = {**MODELS, "openAI__o4-mini": "o4-mini"}
    one_model = len({model for model, _ in ledger}) == 1
    one_agent = len({agent_id for agent_id, _, _ in speakers}) == 1
    words = []

    for item in generations(trace):
        output = item.output["content"] if isinstance(item.output, dict) else ""
        for word in filter(None, output.replace("<", ">").split(">")):
            agent_id = word.split(":")[0].strip()
            if not agent_id:
                continue
            words.append(word)
            if agent_id in known and not (one_agent and one_model):
                assert (item.model or item.metadata.get("model")) == known[agent_id]
    assert len(words) == len(set(words))
    assert sum((item.usage or {}).get("output", 0) for item in generations(trace)) == total
    tools = observations(trace, ObservationType.TOOL)
    assert len(tools) == sum(1 for _, _, kind in speakers if kind == "tool")
    assert len({item.id for item in trace.observations}) == len(trace.observations)
    for item in trace.observations[1:]:
        assert trace.root.start_milliseconds <= item.start_milliseconds <= trace.root.end_milliseconds
