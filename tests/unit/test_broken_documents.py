"""No document, however broken, stops the daemon: it becomes a trace with what is sound, a word, or is refused by name.

What the per-item boundary catches is one exception, `MalformedDocument`: a row without its ids.
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailer.core.identity import DocumentKey
from tailer.core.librechat.messages import MalformedDocument, Message, read_message
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import (
    ContentChoice,
    CopyPolicy,
    Fact,
    NativePolicy,
    Policies,
    TemporaryPolicy,
)
from tailer.core.policy.users import User
from tailer.core.trace.export import Exported, export_title
from tailer.core.trace.otlp import SpanContext, encode_trace
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import TurnRecord, Wait
from tests.unit.documents import (
    ANY_TEXT,
    MISSING,
    VALUES,
    Document,
    agent,
    agent_row,
    assemble,
    broken,
    completion_row,
    conversation,
    conversation_row,
    export,
    message,
    nested,
    options,
    prompt_row,
    response_row,
    row,
    select,
    tool_part,
    transactions,
    turn_record,
    usage_metadata,
    user_row,
)

CONTEXT = SpanContext("test")
EVERYTHING = Policies(temporary=TemporaryPolicy.FULL, copies=CopyPolicy.EXPORT, native=NativePolicy.DUPLICATE)
IDS = ("messageId", "conversationId")
WORDS = {"not_a_response", "answered", "copied"}


def make_masker() -> Masker:
    return Masker(compile_rules([], []), b"a deployment's own key")


def check(record: TurnRecord, choice: ContentChoice = ContentChoice.FULL) -> None:
    """A turn of these rows can be exported and sent, or has its word; and twice the same."""
    policies = replace(EVERYTHING, content=choice)
    made = export(record, deadline_passed=True, policies=policies, mask=make_masker, tag_facts=tuple(Fact))
    if not isinstance(made, Exported):
        assert made in WORDS
        return
    for trace in made.traces:
        data = encode_trace(trace, CONTEXT)
        assert 0 < len(data) < 40_000_000
        ids = [item.id for item in trace.observations]
        assert len(set(ids)) == len(ids)
        assert all(item.start_milliseconds <= item.end_milliseconds for item in trace.observations)
    again = export(record, deadline_passed=True, policies=policies, mask=make_masker, tag_facts=tuple(Fact))
    assert isinstance(again, Exported)
    assert [encode_trace(trace, CONTEXT) for trace in again.traces] == [
        encode_trace(trace, CONTEXT) for trace in made.traces
    ]


RESPONSE_ROWS = broken(
    response_row(metadata=usage_metadata(108, 13), feedback={"rating": "thumbsUp"}), keep=IDS
)
QUESTION_ROWS = broken(user_row(files=[{"filename": "a"}]), keep=IDS)
LEDGERS = st.lists(broken(prompt_row(100)) | broken(completion_row(10)), max_size=4)


@given(
    RESPONSE_ROWS,
    st.none() | QUESTION_ROWS,
    LEDGERS,
    broken(conversation_row(), keep=("conversationId",)),
    broken(agent_row(), keep=("id",)),
    st.sampled_from(ContentChoice),
)
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_rows_of_a_turn_hold_it_has_a_trace_or_a_word(
    response: Document,
    question: Document | None,
    ledger: list[Document],
    chat: Document,
    saved: Document,
    choice: ContentChoice,
) -> None:
    """Response, question, transactions, conversation and agent, all broken at once, under every content policy."""
    record = turn_record(response, question, *ledger, conversation=conversation(chat), agent=agent(saved))
    check(record, choice)
    export_title(record, options(policies=EVERYTHING))


@given(ANY_TEXT.filter(bool), ANY_TEXT.filter(bool), ANY_TEXT, ANY_TEXT)
@settings(max_examples=40)
def test_ids_and_names_of_any_text_can_be_sent(message_id: str, chat: str, name: str, role: str) -> None:
    """Lone surrogates and NULs among them."""
    record = turn_record(
        response_row(messageId=message_id, conversationId=chat, sender=name, model=name, endpoint=name, user=name),
        user_row(text=name),
        prompt_row(1, model=name),
        user=User(name, name, name, role),
    )  # fmt: skip
    check(record)


@given(st.one_of(VALUES, st.dictionaries(st.sampled_from([*user_row(), *response_row()]), VALUES)))
def test_a_row_is_read_or_refused_by_its_name(value: Any) -> None:
    document = value if isinstance(value, dict) else {"content": value}
    if all(isinstance(document.get(name), str) and document[name] for name in IDS):
        check(replace(turn_record(None), response=read_message(DocumentKey("k"), document)))
        return
    with pytest.raises(MalformedDocument) as refused:
        read_message(DocumentKey("k"), document)
    assert refused.value.field in IDS


HOLES: list[Any] = [None, None, {"type": "text", "text": "Paris."}, None, {}, [], "text", 7]


@pytest.mark.parametrize(
    "content",
    [
        HOLES,
        [None] * 1_000,
        [{"type": "hologram"}, {"type": None}, {"type": ["text"]}, {"type": {"text": 1}}],
        [
            {"type": "tool_call"},
            {"type": "tool_call", "tool_call": None},
            {"type": "tool_call", "tool_call": []},
        ],
        [{"type": "text", "text": {"value": {"value": "x"}}}],
        nested(2_000),
        [tool_part(args=nested(2_000), output=nested(2_000))],
        {"0": {"type": "text", "text": "Paris."}},
        "Paris.",
        10**400,
        [tool_part(args=float("nan"), output=float("inf"))],
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("choice", ContentChoice)
def test_holes_unknown_types_and_deep_nesting_are_no_obstacle(content: Any, choice: ContentChoice) -> None:
    check(turn_record(response_row(content=content), user_row(text=content)), choice)


def test_holes_do_not_hide_the_answer() -> None:
    made = export(turn_record(response_row(content=HOLES), user_row()))
    assert isinstance(made, Exported)

    assert made.traces[0].root.output == "Paris."


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "ü" * 7_500_000}],
        [{"type": "think", "think": "x" * 15_000_000}],
        [tool_part(args={"x": "\x00" * 4_000_000}, output="\\" * 10_000_000)],
        [{"type": "error", "error": "e" * 15_000_000}],
        [{"type": "hologram", "data": "x" * 15_000_000}],
        [{"type": "text", "text": "a"}, tool_part("t" * 1_000_000)] * 5,
        [tool_part(str(number)) for number in range(20_000)],
        [{"type": "steer", "steer": "s" * 1_000} for _ in range(15_000)],
    ],
    ids=["text", "reasoning", "tool", "error", "unknown", "names", "tools", "steering"],
)
def test_fifteen_megabytes_become_a_trace_that_langfuse_takes(content: list[Document]) -> None:
    """Nothing above 9.5 MB is shown; control characters need six bytes each in JSON."""
    made = export(turn_record(response_row(content=content), user_row()), deadline_passed=True)
    assert isinstance(made, Exported)
    (trace,) = made.traces

    assert len(trace.observations) <= 501
    for item in trace.observations:
        single = replace(trace, observations=(item,))
        assert len(encode_trace(single, CONTEXT)) < 9_500_000


def test_history_of_fifteen_megabytes_is_cut_to_its_limit() -> None:
    old = tuple(message(user_row(messageId=str(number), text="x" * 1_000_000)) for number in range(15))
    made = export(turn_record(response_row(), user_row(), history=old))
    assert isinstance(made, Exported)

    assert len(encode_trace(made.traces[0], CONTEXT)) < 100_000
    assert made.traces[0].observations[1].metadata["history_messages_left_out"] == "14"


MESSAGE_IDS = ("a", "b", "c", "d", "e")


@st.composite
def families(draw: st.DrawFn) -> dict[str, Document]:
    """Rows of one conversation whose parents are anything: themselves, each other, nobody."""
    rows = {}
    for message_id in MESSAGE_IDS:
        make = draw(st.sampled_from([user_row, response_row]))
        parent = draw(st.sampled_from([*MESSAGE_IDS, "gone", None, 7, MISSING]))
        rows[message_id] = make(draw(st.integers(0, 50)), messageId=message_id, parentMessageId=parent)
    return rows


def read_back(key: str, rows: dict[str, Document], **fields: Any) -> TurnRecord:
    skeletons: dict[str, Row] = {name: row(document) for name, document in rows.items()}
    messages: dict[DocumentKey, Message] = {
        DocumentKey(str(document["_id"])): message(document) for document in rows.values()
    }
    found = assemble(
        select(skeletons[key], skeletons, 10_000),
        messages,
        None,
        transactions(prompt_row(1)),
    )
    assert found is not None
    return replace(found, **fields)


@given(families(), st.sampled_from(MESSAGE_IDS), st.lists(st.integers(0, 2**42), max_size=4))
@settings(max_examples=150)
def test_missing_parents_and_cycles_end_the_history_and_nothing_else(
    rows: dict[str, Document], key: str, touches: list[int]
) -> None:
    record = read_back(key, rows, question_touches=tuple(sorted(touches)))
    ids = [item.message_id for item in record.history]

    assert len(set(ids)) == len(ids)
    assert key not in ids
    check(record)


@given(families(), st.sampled_from(MESSAGE_IDS), st.randoms(use_true_random=False))
def test_the_order_in_which_rows_are_read_back_changes_no_byte(
    rows: dict[str, Document], key: str, order: Any
) -> None:
    shuffled = dict(sorted(rows.items(), key=lambda _: order.random()))
    made = [export(read_back(key, group), deadline_passed=True) for group in (rows, shuffled)]
    sent = [
        [encode_trace(trace, CONTEXT) for trace in one.traces] if isinstance(one, Exported) else one
        for one in made
    ]

    assert sent[0] == sent[1]


@given(RESPONSE_ROWS, st.booleans())
def test_a_row_that_is_not_final_waits_and_never_raises(response: Document, passed: bool) -> None:  # noqa: FBT001
    made = export(
        turn_record({**response, "unfinished": True}, user_row()), deadline_passed=passed, policies=EVERYTHING
    )

    assert isinstance(made, Exported | Wait) or made in WORDS
    assert not (passed and isinstance(made, Wait))
