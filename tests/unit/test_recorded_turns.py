"""Every recorded turn of every release, read in memory: tokens, calls, models, texts and times beside the provider's.

What LibreChat does not store cannot be shown; then a mark must say so. The marks are checked too: a mark on a number
that is known is as wrong as a number without one.
"""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from tailer.core.policy.policies import Policies, TemporaryPolicy
from tailer.core.stream.hints import Interest, Operation, classify_message
from tailer.core.trace.export import Exported
from tailer.core.trace.observations import Observation, ObservationType, Trace
from tailer.core.trace.spending import Spending, build_spending_traces
from tests.recordings import NAMES, REPLAYED, ProviderRequest, TrueTurn, load, truth
from tests.unit.documents import export, replay, transactions, turn_record

TURNS = [
    pytest.param(name, turn, id=f"{name}-{number}")
    for name in (*NAMES, *REPLAYED)
    for number, turn in enumerate(truth(name).turns, start=1)
    if turn.response_message_id is not None
]
COUNTED_BY_LIBRECHAT = {
    "60-v0.7.9-basics": {"on anthropic [[cached]]"},
    "62-v0.7.9-agent-tools": {"claude thinks [[think]]"},
    "70-v0.7.7-basics": {
        "Hello old LibreChat",
        "Second turn [[cached]]",
        "Second turn, edited and resubmitted",
        "on custom with usage",
        "on custom without usage",
    },
}
"""Turns whose tokens the provider told and LibreChat stored otherwise: 0.7.7 counts plain prompts itself, and 0.7.9
doubles Anthropic's amounts. They are marked as estimated."""


def trace_of_turn(name: str, turn: TrueTurn) -> Trace:
    assert turn.response_message_id is not None
    record = replay(name).record(turn.response_message_id)
    assert record.response is not None
    record = replace(
        record,
        finished_milliseconds=max(written(name, record.response.key, "unfinished"), default=None),
        question_touches=tuple(sorted(written(name, record.question.key, None))) if record.question else (),
    )
    policies = Policies(temporary=TemporaryPolicy.FULL)
    made = export(record, deadline_passed=True, policies=policies)
    assert isinstance(made, Exported), made
    return made.traces[0]


def written(name: str, key: str, field: str | None) -> list[int]:
    """When a row was updated in a field, or in none, as the stream tells."""
    return [
        hint.written_milliseconds
        for hint in replay(name).hints
        if hint.document_key == key
        and hint.operation is Operation.UPDATE
        and hint.written_milliseconds is not None
        and (field in hint.changed if field is not None else classify_message(hint) is Interest.TOUCH)
    ]


def generations(trace: Trace) -> list[Observation]:
    return [item for item in trace.observations if item.type is ObservationType.GENERATION]


def told(request: ProviderRequest) -> tuple[int, int, int, int] | None:
    """Input without cache, output, cache read and written of one request, None where LibreChat was told nothing."""
    usage = request.usage
    if usage is None or not request.told_usage or request.status == "failed":
        return None
    if "prompt_tokens" in usage:
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens", 0)
        return usage["prompt_tokens"] - cached, usage["completion_tokens"], cached, 0
    read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    return usage["input_tokens"], usage["output_tokens"], read, written


def shown(call: Observation) -> tuple[int, int, int, int] | None:
    if call.usage is None:
        return None
    names = ("input", "output", "input_cached_tokens", "input_cache_creation")
    return tuple(call.usage.get(name, 0) for name in names)  # type: ignore[return-value]


def is_in(table: dict[str, set[str]], name: str, turn: TrueTurn) -> bool:
    return turn.text in table.get(name, set())


def sources(trace: Trace) -> set[str]:
    return {call.metadata["usage_source"] for call in generations(trace)}


@pytest.mark.parametrize(("name", "turn"), TURNS)
def test_the_tokens_of_a_turn_are_the_providers_or_marked(name: str, turn: TrueTurn) -> None:
    trace = trace_of_turn(name, turn)
    true = [usage for request in turn.requests if (usage := told(request)) is not None]
    found = [usage for call in generations(trace) if (usage := shown(call)) is not None]

    if is_in(COUNTED_BY_LIBRECHAT, name, turn):
        assert sources(trace) == {"estimated"}
    elif true:
        assert [sum(column) for column in zip(*found, strict=True)] == [
            sum(column) for column in zip(*true, strict=True)
        ]
        assert sources(trace) <= {"reported", "billed", "unknown"}
    else:
        assert sources(trace) <= {"estimated", "unknown"}


@pytest.mark.parametrize(("name", "turn"), TURNS)
def test_each_request_to_the_provider_is_a_generation_with_its_own_numbers_and_model(
    name: str, turn: TrueTurn
) -> None:
    calls = generations(trace_of_turn(name, turn))
    # What LibreChat tries again is one call to it.
    tried_again = sum(
        1 for request in turn.requests[:-1] if isinstance(request.status, int) and request.status >= 500
    )

    assert len(calls) == len(turn.requests) - tried_again
    if turn.usage_is_known and not is_in(COUNTED_BY_LIBRECHAT, name, turn):
        true = Counter((request.model, told(request)) for request in turn.requests)
        assert Counter((call.model or call.metadata.get("model"), shown(call)) for call in calls) == true


@pytest.mark.parametrize(("name", "turn"), TURNS)
def test_no_text_is_under_a_model_that_did_not_write_it(name: str, turn: TrueTurn) -> None:
    """The provider's answers begin with the model's name; every answer that was seen is at some generation."""
    trace = trace_of_turn(name, turn)
    texts = []
    for call in generations(trace):
        text = str(call.output["content"]) if isinstance(call.output, dict) else ""
        texts.append(text)
        if text.startswith("Echo from "):
            assert text.startswith(f"Echo from {call.model or call.metadata['model']}:")
    if trace.root.output is not None and len(turn.requests) == 1:
        assert texts == [trace.root.output]
    assert "authorship" not in trace.root.metadata


@pytest.mark.parametrize(("name", "turn"), TURNS)
def test_calls_and_tools_fill_the_turn_one_after_the_other(name: str, turn: TrueTurn) -> None:
    """What ran side by side overlaps; nothing else does, and no time of the turn is left over."""
    trace = trace_of_turn(name, turn)
    root = trace.root
    own = [item for item in trace.observations[1:] if item.parent_id == root.id]
    lasting = [item for item in own if item.type is not ObservationType.EVENT]
    if root.start_milliseconds == root.end_milliseconds:
        assert {call.metadata["timing"] for call in generations(trace)} == {"not stored"}
        return
    for call in generations(trace):
        assert call.start_milliseconds < call.end_milliseconds
    spans = sorted((item.start_milliseconds, item.end_milliseconds) for item in lasting)
    covered = spans[0][0]
    for start, end in spans:
        # A tool without a stored duration takes a millisecond.
        assert start <= covered + len(lasting)
        covered = max(covered, end)
    assert spans[0][0] == root.start_milliseconds
    if any(end > root.end_milliseconds for _, end in spans):
        # A start that was taken from the wrong save: the tool alone ran longer.
        assert turn.is_regenerate
        return
    assert covered == pytest.approx(root.end_milliseconds, abs=len(lasting))
    calls = [item for item in own if item.type is ObservationType.GENERATION]
    if "side by side" not in turn.text and "parallel fan out" not in turn.text and "18-" not in name:
        assert all(before.end_milliseconds <= after.start_milliseconds for before, after in pairwise(calls))


def test_side_by_side_each_agent_has_its_own_words_and_the_question() -> None:
    """In 55 a leader fans out to two agents; the ledger names them in another order than the answer."""
    (turn,) = [turn for turn in truth("55-chains").turns if "fan out" in turn.text]
    trace = trace_of_turn("55-chains", turn)
    leader, *both = generations(trace)

    assert {call.metadata["agent_name"] for call in both} == {"Writer", "Critic"}
    for call in both:
        assert isinstance(call.input, list)
        assert {"role": "user", "content": turn.text} in call.input
        assert isinstance(leader.output, dict)
        assert call.input[-1] == leader.output
    assert str(trace.root.output).split("\n")[::3] == ["[Fan]", "[Critic]", "[Writer]"]


def test_the_later_agent_of_a_chain_has_what_the_earlier_ones_wrote() -> None:
    turn = truth("55-chains").turns[1]
    first, second, third = generations(trace_of_turn("55-chains", turn))

    assert [call.metadata["agent_name"] for call in (first, second, third)] == ["Lead", "Writer", "Critic"]
    assert isinstance(second.input, list)
    assert isinstance(third.input, list)
    assert second.input[-2:] == [{"role": "user", "content": turn.text}, first.output]
    assert third.input[-2:] == [first.output, second.output]


def test_a_sub_agents_calls_and_tools_are_under_the_tool_that_started_it() -> None:
    """Two at once, on one model: which call is whose is told by the length of what each wrote, and marked."""
    (turn,) = [turn for turn in truth("55-chains").turns if "two subagents" in turn.text]
    trace = trace_of_turn("55-chains", turn)
    starters = [item for item in trace.observations if item.name == "subagent"]
    agents = [item for item in trace.observations[1:] if item.type is ObservationType.AGENT]

    assert [agent.parent_id for agent in agents] == [starter.id for starter in starters]
    assert [agent.name for agent in agents] == ["Writer", "Writer"]
    assert agents[0].input == "compute [[tool:calculator|{}]]"
    under = [
        [(item.name, shown(item)) for item in trace.observations if item.parent_id == agent.id]
        for agent in agents
    ]
    assert under == [
        [("gpt-4o-mini", (119, 21, 0, 0)), ("calculator", None), ("gpt-4o-mini", (126, 18, 0, 0))],
        [("gpt-4o-mini", (114, 9, 0, 0))],
    ]


def test_a_message_that_moderation_refused_asked_no_model() -> None:
    rows = [row for row in replay("46-violations").rows.values() if row.get("error") is True]
    made = [export(turn_record(row)) for row in rows]

    assert made
    for each in made:
        assert isinstance(each, Exported)
        assert [item.type for item in each.traces[0].observations] == [ObservationType.AGENT]


def test_a_made_up_price_is_an_estimate_however_it_is_shown() -> None:
    """In 37 LibreChat shows costs, and has no price for the deployments."""
    for turn in truth("37-azure").turns:
        assert {call.metadata["cost_source"] for call in generations(trace_of_turn("37-azure", turn))} == {
            "estimated"
        }


def test_the_model_that_was_chosen_is_named_beside_the_deployment_that_answered() -> None:
    trace = trace_of_turn("37-azure", truth("37-azure").turns[1])

    assert trace.metadata["chosen_model"] == "gpt-4o"
    assert generations(trace)[0].model == "prod-4o"


def test_every_route_of_the_remote_api_is_a_trace() -> None:
    """One stores an empty conversation, one none; a refused call stores nothing."""
    rows = [
        event.full_document
        for event in load("53-remote-api").events
        if event.collection == "transactions" and event.full_document is not None
    ]
    calls = []
    for reference in dict.fromkeys(row["messageId"] for row in rows):
        entries = transactions(*(row for row in rows if row["messageId"] == reference))
        spending = Spending("k", reference, rows[0]["conversationId"], None, entries)  # type: ignore[arg-type]
        (trace,) = build_spending_traces(spending, user_name=None, tags=())
        assert trace.name == "librechat-api-usage"
        calls += [shown(call) for call in generations(trace)]
    requests = truth("53-remote-api")

    assert not requests.turns
    assert calls == [(114, 8, 0, 0), (115, 9, 0, 0)]
    assert not replay("53-remote-api").rows
