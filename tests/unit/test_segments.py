"""A response's parts by agent and by model call, as far as the parts alone tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat.content import read_parts
from tailer.core.turn.segments import split_stretches, split_tools
from tests.unit.documents import Document, tool_part


def text(content: str = "x", agent_id: str | None = None, group: int | None = None) -> Document:
    agent = {} if agent_id is None else {"agentId": agent_id}
    return {"type": "text", "text": content, **agent, **({} if group is None else {"groupId": group})}


SHAPES: dict[str, Document] = {
    "a": text(),
    "-": text(""),
    "r": {"type": "think", "think": "x"},
    "t": tool_part(),
    "e": {"type": "error", "error": "x"},
    "h": {"type": "agent_update", "agent_update": {"agentId": "agent_b"}},
    "s": {"type": "steer", "steer": "x"},
    "c": {"type": "summary", "text": "x"},
    "b": text("x", "agent_b"),
    "B": {**tool_part(), "agentId": "agent_b"},
    "d": {"type": "tool_call", "agentId": "agent_d", "tool_call": {"id": "call_0", "name": "look"}},
    "o": {"type": "hologram"},
    "1": text("x", "agent_1", 1),
    "2": text("x", "agent_2", 1),
    "T": {**tool_part(), "agentId": "agent_1", "groupId": 1},
}
"""a answer, - an empty one, r reasoning, t tool, e error, h hand-off, s steering, c compaction, o unknown; b, its tool
B, and d by named agents; 1, 2 and T by agents that ran side by side."""


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
        ("-t-ta", ["-t-t", "a"]),
        ("tota", ["tot", "a"]),
        ("ats", ["at", "s"]),
        ("tt", ["tt"]),
        ("bd", ["b", "d"]),
        ("bbdd", ["bb", "dd"]),
        ("bab", ["bab"]),
        ("ab", ["a", "b"]),
        ("-b", ["-b"]),
        ("-bB", ["-bB"]),
        ("atha", ["ath", "a"]),
        ("1212", ["11", "22"]),
        ("T21", ["T", "1", "2"]),
        ("b1212b", ["b", "11", "22", "b"]),
    ],
)
def test_a_new_call_begins_after_tools_and_with_another_agent(kinds: str, expected: list[str]) -> None:
    stretches = split_stretches(read_parts([SHAPES[kind] for kind in kinds]))

    assert [len(parts) for stretch in stretches for parts in stretch.rounds] == [
        len(each) for each in expected
    ]


def test_after_a_hand_off_parts_without_an_agent_are_the_receivers() -> None:
    stretches = split_stretches(read_parts([SHAPES[kind] for kind in "atha"]))

    assert [stretch.agent_id for stretch in stretches] == [None, "agent_b"]


@given(st.text("".join(SHAPES), max_size=12))
def test_every_part_is_in_one_round_and_a_rounds_pieces_have_one_tool(kinds: str) -> None:
    parts = read_parts([SHAPES[kind] for kind in kinds])
    rounds = [parts for stretch in split_stretches(parts) for parts in stretch.rounds]
    shown = [id(part) for each in rounds for part in each]

    assert sorted(shown) == sorted(map(id, parts))
    assert all(rounds)
    for each in rounds:
        assert [part for piece in split_tools(each) for part in piece] == each
