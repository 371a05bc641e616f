"""What LibreChat writes after a trace went out: known by marks, told once, never counted twice."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat.messages import ReportedUsage
from tailer.core.librechat.transactions import Transaction
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import ContentChoice
from tailer.core.trace.followup import Edit, EditedText, SentTurn, mark_text
from tailer.core.trace.late import (
    build_late_trace,
    find_continuation,
    find_late_transactions,
    find_news,
    find_second_run,
    mark_parts,
)
from tests.sent import make_sent
from tests.unit.documents import message, response_row


def make_masker() -> Masker:
    return Masker(compile_rules([], []), b"a deployment's own key")


_LEDGER = ("message", "abort", "incomplete", "title", "subagent", "memory", "summarization")


def entry(
    key: str, context: str = "message", kind: str = "completion", tokens: int = 3, cost: float = 0.5
) -> Transaction:
    return Transaction(
        "m1", "conversation-1", "user-1", kind, context, "gpt-5", tokens, None, None, None, cost, 2.0, 1_760_000_200_000, key,
    )  # fmt: skip


def sent_turn(**fields: object) -> SentTurn:
    known = {"parts": (), "transactions": ("t1",), "usage_source": "billed", "content": ContentChoice.FULL}
    return replace(make_sent("m1"), **{**known, **fields})  # type: ignore[arg-type]


def row(*parts: dict[str, object], **fields: Any) -> dict[str, object]:
    return response_row(content=list(parts), **fields)


def late_tool(name: str, choice: ContentChoice) -> str:
    """What the trace of a result that came late calls the tool."""
    call = {"id": "c1", "name": name, "args": "{}", "output": "42"}
    stored = message(row({"type": "tool_call", "tool_call": call}))
    sent = sent_turn(content=choice)
    news = find_news(sent, stored, [], 0)
    assert news is not None
    trace = build_late_trace(sent, news, make_masker)
    assert trace is not None
    return trace.root.metadata["tool"]


def test_a_late_tool_that_is_named_after_an_agent_is_named_as_in_the_turn_itself() -> None:
    """A hand-off is called after the agent that takes over."""
    name = "lc_transfer_to_anna.smith@example.com"

    assert late_tool(name, ContentChoice.FULL) == name
    assert "anna" not in late_tool(name, ContentChoice.MASKED)
    assert late_tool(name, ContentChoice.NONE) == "lc_transfer_to"
    assert [late_tool("bg", choice) for choice in ContentChoice] == ["bg"] * 3


def tool(output: str | None, call_id: str = "c1") -> dict[str, object]:
    call = {"id": call_id, "name": "bg", "args": "{}"}
    return {"type": "tool_call", "tool_call": call if output is None else {**call, "output": output}}


def test_the_same_row_has_no_news() -> None:
    stored = message(row(tool("42"), {"type": "think", "think": "hm"}, {"type": "text", "text": "ok"}))

    assert find_news(sent_turn(parts=mark_parts(stored)), stored, [entry("t1")], 0) is None


def test_an_output_that_was_missing_is_news_and_one_that_is_still_missing_is_not() -> None:
    pending, done = message(row(tool(None))), message(row(tool("42")))
    sent = sent_turn(parts=mark_parts(pending))

    assert find_news(sent, pending, [], 0) is None
    news = find_news(sent, done, [], 0)
    assert news is not None
    trace = build_late_trace(sent, news, None)
    assert trace is not None
    assert [(item.name, item.output) for item in trace.observations] == [("tool-result", "42")]
    assert trace.record_id == f"{sent.trace_id}:late:0"


def test_calls_that_share_an_id_are_told_apart() -> None:
    """Some providers number their calls anew in each response, so that one answer has a `call_0` for each of them."""
    rounds = [tool("first", "call_0"), tool(None, "call_0"), tool("third", "call_0")]
    sent = sent_turn(parts=mark_parts(message(row(*rounds, {"type": "text", "text": "fin"}))))

    assert find_news(sent, message(row(*rounds, {"type": "text", "text": "fin, by hand"})), [], 0) is None
    news = find_news(sent, message(row(rounds[0], tool("second", "call_0"), rounds[2])), [], 0)
    assert news is not None
    trace = build_late_trace(sent, news, None)
    assert trace is not None
    assert [(item.output, item.metadata["tool_call_id"]) for item in trace.observations] == [
        ("second", "call_0")
    ]


def test_a_record_that_has_one_key_for_calls_that_share_an_id_is_understood() -> None:
    """As the first records are."""
    stored = message(row(tool("first", "call_0"), tool("second", "call_0")))
    marks = [(key.removesuffix(":2"), mark) for key, mark in mark_parts(stored)]
    assert [key for key, _ in marks] == ["tool:call_0"] * 2

    assert find_news(sent_turn(parts=tuple(marks)), stored, [], 0) is None


def test_an_edited_part_tells_both_lengths_and_a_new_one_its_own() -> None:
    def thought(words: str) -> dict[str, object]:
        return {"type": "think", "think": words}

    sent = sent_turn(parts=mark_parts(message(row(thought("hm")))))
    news = find_news(sent, message(row(thought("hmmm"), thought("new"))), [], 0)
    assert news is not None
    trace = build_late_trace(sent, news, None)
    assert trace is not None

    assert [
        (item.metadata.get("old_characters"), item.metadata["new_characters"]) for item in trace.observations
    ] == [("2", "4"), (None, "3")]


def test_late_observations_stand_at_the_end_of_the_root() -> None:
    """So that they do not stretch the latency of the trace."""
    sent = sent_turn(parts=())
    news = find_news(sent, message(row(tool("42"))), [entry("t2", "subagent")], 0)
    assert news is not None
    trace = build_late_trace(sent, news, None)
    assert trace is not None

    assert {item.start_milliseconds for item in trace.observations} == {sent.end_milliseconds}
    assert {item.end_milliseconds for item in trace.observations} == {sent.end_milliseconds}
    assert len({item.id for item in trace.observations}) == 2


def test_a_record_of_an_earlier_release_tells_nothing_to_be_late() -> None:
    sent = sent_turn(parts=None, transactions=None)

    assert find_news(sent, message(row(tool("42"))), [entry("t2", "subagent")], 0) is None


@pytest.mark.parametrize("choice", [ContentChoice.NONE])
def test_no_text_is_shown_where_none_was(choice: ContentChoice) -> None:
    sent = sent_turn(content=choice, parts=())
    news = find_news(
        sent, message(row(tool("SECRET"), attachments=[{"file_id": "f", "filename": "SECRET.csv"}])), [], 0
    )
    assert news is not None
    trace = build_late_trace(sent, news, None)

    assert trace is not None
    assert "SECRET" not in repr(trace)


def test_rows_of_the_answer_are_in_its_own_report_however_late_they_come() -> None:
    """`metadata.usage` has all calls of the answer; a detached call is none of them."""
    sent = sent_turn(transactions=(), usage_source="reported")

    late = find_late_transactions(sent, [entry("a"), entry("b", "subagent"), entry("c", "title")])
    assert [row.key for row in late] == ["b"]


def test_output_tokens_that_the_row_told_are_not_counted_again() -> None:
    """A turn whose ledger came late had its `tokenCount` as output; the cost of both halves is new."""
    sent = sent_turn(transactions=(), usage_source="output_only")
    news = find_news(sent, message(row()), [entry("p", kind="prompt", tokens=100), entry("c")], 0)
    assert news is not None
    trace = build_late_trace(sent, news, None)

    assert trace is not None
    (generation,) = trace.observations
    assert not (generation.usage or {}).get("output")
    assert (generation.usage or {})["input"] == 100
    assert (generation.cost or {})["total"] == pytest.approx(1.0)


@pytest.mark.parametrize("first", ["p", "c"])
def test_the_cost_of_both_halves_of_a_late_call_is_told_whichever_is_seen_first(first: str) -> None:
    """The half whose tokens are known already has a generation of its cost alone."""
    ledger = {"p": entry("p", kind="prompt", tokens=100, cost=0.25), "c": entry("c", cost=0.5)}
    sent = sent_turn(transactions=(), usage_source="output_only")
    told = []
    for seen in ([ledger[first]], list(ledger.values())):
        news = find_news(sent, message(row()), seen, 0)
        assert news is not None
        trace = build_late_trace(sent, news, None)
        assert trace is not None
        told += [(item.usage, (item.cost or {})["total"]) for item in trace.observations]
        sent = replace(sent, transactions=news.marks.transactions, edits=news.marks.number + 1)

    halves = [({"input": 100}, 0.25), (None, 0.5)]
    assert told == (halves if first == "p" else halves[::-1])


WRITTEN = 1_760_000_200_000


@pytest.mark.parametrize(
    ("text", "charged", "found"),
    [
        ("Once upon a time", {}, True),
        ("Once upon a time", {"created_milliseconds": WRITTEN - 60_000}, False),
        ("Once upon a time", {"message_id": "another"}, False),
        ("Once upon a time", {"context": "summarization"}, False),
        ("Once again a time", {}, False),
        ("Once", {}, False),
    ],
)
def test_only_what_was_charged_for_a_longer_answer_says_that_a_model_wrote_it(
    text: str, charged: dict[str, Any], *, found: bool
) -> None:
    """A person may write at the end of an answer too, and a later turn of the conversation be charged."""
    edit = Edit(EditedText.ANSWER, mark_text("Once upon"), mark_text(text), text, WRITTEN, 0)
    row = replace(entry("t2"), **{"message_id": None, "created_milliseconds": WRITTEN - 500, **charged})

    assert bool(find_continuation(sent_turn(), edit, [row])) is found


@pytest.mark.parametrize(
    ("text", "report", "rows", "found"),
    [
        ("Anew", (7, 3), {"t0": 9, "t1": 3, "t2": 7, "t3": 3}, True),
        # Twice since then.
        ("Anew", (8, 3), {"t0": 9, "t1": 3, "t2": 7, "t3": 3, "t4": 8, "t5": 3}, True),
        # A person's edit, and rows of the sent answer itself that came late.
        ("Anew", (7, 3), {"t2": 7, "t3": 3}, False),
        # The same rows once more: the sent trace has them.
        ("Anew", (7, 3), {"t0": 7, "t1": 3, "t2": 7, "t3": 3}, False),
        # A person's edit of an answer whose last rows came late.
        ("Anew", (9, 3), {"t0": 9, "t2": 3}, False),
        ("Anew", (7, 3), {}, False),
        ("Once upon a time", None, {"t2": 7, "t3": 3}, True),
        ("Anew", None, {"t2": 7, "t3": 3}, False),
    ],
)
def test_only_rows_that_the_present_report_tells_alone_are_of_a_second_run(
    text: str, report: tuple[int, int] | None, rows: dict[str, int], *, found: bool
) -> None:
    """Each pair of rows is a call: a prompt, then a completion. The sent trace counted `t0` and `t1`."""
    edit = Edit(EditedText.ANSWER, mark_text("Once upon"), mark_text(text), text, WRITTEN, 0)
    ledger = [
        replace(
            entry(key, kind="completion" if tokens == 3 else "prompt", tokens=tokens, cost=0.0),
            created_milliseconds=WRITTEN - 500,
        )
        for key, tokens in rows.items()
    ]
    told = None if report is None else ReportedUsage(*report, 0, 0, None)
    written = find_second_run(sent_turn(transactions=("t0", "t1")), edit, told, ledger)

    assert [row.key for row in written] == ([key for key in rows if key > "t1"] if found else [])


@given(
    st.lists(
        st.tuples(st.sampled_from(_LEDGER), st.sampled_from(["prompt", "completion"]), st.integers(1, 999)),
        max_size=12,
    ),
    st.data(),
)
def test_every_row_is_counted_once_whenever_it_is_seen(
    rows: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    """Looked at after any number of rows, any number of times: what was told is told once."""
    ledger = [entry(f"k{index}", context, kind, tokens) for index, (context, kind, tokens) in enumerate(rows)]
    sent = sent_turn(transactions=())
    told: list[str] = []
    seen = 0
    while seen < len(ledger):
        seen = data.draw(st.integers(seen, len(ledger)))
        news = find_news(sent, message(row()), ledger[:seen], 0)
        if news is not None:
            told += [late.key for late in news.transactions]
            sent = replace(sent, transactions=news.marks.transactions, edits=news.marks.number + 1)
        seen += 1
    news = find_news(sent, message(row()), ledger, 0)
    told += [late.key for late in news.transactions] if news is not None else []

    assert sorted(told) == sorted(late.key for late in ledger if late.context != "title")
