"""Which parts each model call wrote: by the order of both, and by the model's name in an encoded agent id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat.content import read_parts
from tailer.core.trace.observations import ObservationType
from tailer.core.turn.calls import ModelCall
from tailer.core.turn.segments import assign_parts, split_segments
from tests.recordings import truth
from tests.unit.documents import Document, observations, replay, tool_part, trace_of


def text(content: str = "x", agent_id: str | None = None) -> Document:
    return {"type": "text", "text": content, **({} if agent_id is None else {"agentId": agent_id})}


def call(model: str | None = "gpt-4o") -> ModelCall:
    return ModelCall(model, "message", None, None)


SHAPES: dict[str, Document] = {
    "a": text(),
    "r": {"type": "think", "think": "x"},
    "t": tool_part(),
    "e": {"type": "error", "error": "x"},
    "h": {"type": "agent_update", "agent_update": {"agentId": "agent_b"}},
    "s": {"type": "steer", "steer": "x"},
    "c": {"type": "summary", "text": "x"},
    "b": text("x", "agent_b"),
    "d": {"type": "tool_call", "agentId": "agent_d", "tool_call": {"id": "call_0", "name": "look"}},
    "o": {"type": "hologram"},
}
"""a answer, r reasoning, t tool, e error, h hand-off, s steering, c compaction, o unknown; b and d by named agents."""


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("", []),
        ("a", ["a"]),
        ("ata", ["at", "a"]),
        ("atta", ["att", "a"]),
        ("tata", ["t", "at", "a"]),
        ("rata", ["rat", "a"]),
        ("atra", ["at", "ra"]),
        ("ate", ["ate"]),
        ("aths", ["ath", "s"]),
        ("tt", ["tt"]),
        ("bd", ["b", "d"]),
        ("bbdd", ["bb", "dd"]),
        ("bab", ["bab"]),
        ("ab", ["ab"]),
    ],
)
def test_after_its_tools_a_model_is_called_again_and_another_agent_is_another_call(
    kinds: str, expected: list[str]
) -> None:
    segments = split_segments(read_parts([SHAPES[kind] for kind in kinds]))

    assert [len(segment) for segment in segments] == [len(segment) for segment in expected]


@given(st.text("".join(SHAPES), max_size=12), st.integers(0, 6))
def test_every_part_is_somebodys_and_the_order_stays(kinds: str, calls: int) -> None:
    """However many calls were billed: no part is lost, and none is shown twice."""
    parts = read_parts([SHAPES[kind] for kind in kinds])
    segments = split_segments(parts)
    assigned = assign_parts(parts, [call(None)] * calls)

    assert [part for segment in segments for part in segment] == list(parts)
    assert all(segments)
    assert len(assigned) == calls
    if calls:
        assert [part for own in assigned for part in own] == list(parts)


def contents(parts: list[Document], *models: str | None) -> list[str]:
    found = assign_parts(read_parts(parts), [call(model) for model in models])
    return ["".join(getattr(part, "text", "t") for part in own) for own in found]


FIRST = text("first", "openAI__gpt-4o___GPT-4o")
SECOND = text("second", "anthropic__claude-sonnet-4___Claude____1")


@pytest.mark.parametrize("parts", [[FIRST, SECOND], [SECOND, FIRST]])
def test_the_encoded_model_tells_which_call_wrote_which_parallel_answer(parts: list[Document]) -> None:
    """Whichever answered first."""
    assert contents(parts, "gpt-4o", "claude-sonnet-4") == ["first", "second"]
    assert contents(parts, "claude-sonnet-4", "gpt-4o") == ["second", "first"]


def test_a_model_whose_name_begins_another_is_not_mistaken_for_it() -> None:
    parts = [text("small", "openAI__gpt-4o-mini____1"), text("large", "openAI__gpt-4o")]

    assert contents(parts, "gpt-4o", "gpt-4o-mini") == ["large", "small"]


def test_a_colon_in_a_models_name_is_two_underscores_in_the_id() -> None:
    parts = [text("other", "openAI__gpt-4o"), text("own", "FakeCo__llama3:8b".replace(":", "__"))]

    assert contents(parts, "llama3:8b", "gpt-4o") == ["own", "other"]


def test_ids_of_saved_agents_name_no_model_and_the_order_decides() -> None:
    parts = [text("first", "agent_a"), text("second", "agent_b")]

    assert contents(parts, "claude-sonnet-4", "gpt-4o") == ["first", "second"]


def test_more_calls_than_segments_wrote_nothing_and_fewer_leave_the_rest_to_the_last() -> None:
    loop = [text("a"), tool_part(), text("b"), tool_part(), text("c")]

    assert contents(loop, "m", "m", "m", "m") == ["at", "bt", "c", ""]
    assert contents(loop, "m", "m") == ["at", "btc"]
    assert contents(loop, "m") == ["atbtc"]
    assert contents(loop) == []
    assert contents([], "m", "m") == ["", ""]


def test_recorded_parallel_answers_are_their_own_models_in_both_orders() -> None:
    """In 18 the second turn's parts stand in the other order than its calls."""
    orders = set()
    for turn in truth("18-parallel-added-convo").turns:
        assert turn.response_message_id is not None
        record = replay("18-parallel-added-convo").record(turn.response_message_id)
        generations = observations(trace_of(record), ObservationType.GENERATION)
        assert record.response is not None
        orders.add(str(record.response.parts[0]).count("claude"))

        assert [item.model for item in generations] == [request.model for request in turn.requests]
        for item in generations:
            assert isinstance(item.output, dict)
            assert item.output["content"] == f"Echo from {item.model}: {turn.text}"
    assert len(orders) == 2
