"""Calls of LibreChat's remote API: transactions without messages become small traces that hold tokens and cost."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import DocumentKey, spending_trace_id, title_trace_id, turn_trace_id
from tailer.core.policy.policies import Fact, Facts, Policies, TemporaryPolicy, parse_rules
from tailer.core.policy.users import User, UserIdChoice, UserNaming
from tailer.core.trace.export import export_spending
from tailer.core.trace.observations import ObservationType
from tailer.core.trace.otlp import SpanContext, encode_trace
from tailer.core.trace.spending import Spending, build_spending_traces, make_spending
from tailer.core.turn.entry_outcomes import EntryOutcome
from tests.unit.documents import (
    CONVERSATION,
    MISSING,
    RESPONSE,
    USER,
    Document,
    broken,
    completion_row,
    moment,
    options,
    prompt_row,
    stamp,
    transactions,
)

REFERENCE = "chatcmpl-1"


def spending(*rows: Document) -> Spending:
    return Spending(DocumentKey("k"), REFERENCE, "nanoid", USER, transactions(*rows))


CALLS = (
    prompt_row(100, createdAt=moment(5)),
    completion_row(10, createdAt=moment(5)),
    prompt_row(200, model="claude-sonnet-4", createdAt=moment(4)),
    completion_row(20, model="claude-sonnet-4", createdAt=moment(4)),
)


def test_a_call_of_the_api_is_a_trace_with_a_generation_for_each_model_call() -> None:
    (trace,) = build_spending_traces(spending(*CALLS), user_name="anna", tags=("team-a",))
    first, second = trace.observations

    assert (trace.id, trace.name, trace.record_id) == (
        spending_trace_id(REFERENCE),
        "librechat-api-usage",
        trace.id,
    )
    assert (trace.user_id, trace.session_id, trace.tags) == ("anna", "nanoid", ("team-a", "api"))
    assert (first.parent_id, second.parent_id) == (None, first.id)
    assert (first.model, second.model) == ("gpt-4o", "claude-sonnet-4")
    assert (first.usage, second.usage) == ({"input": 100, "output": 10}, {"input": 200, "output": 20})
    assert first.cost == {"input": 0.00025, "output": 0.0001, "total": 0.00035}
    assert {item.type for item in trace.observations} == {ObservationType.GENERATION}
    assert {(item.start_milliseconds, item.end_milliseconds) for item in trace.observations} == {
        (stamp(4), stamp(5))
    }
    assert first.metadata == {
        "usage_source": "billed",
        "cost_source": "billed",
        "timing": "not stored",
        "context": "message",
    }


def test_a_turn_that_was_deleted_before_it_was_read_keeps_its_tokens_and_no_content() -> None:
    """Under the id that it would have had: whoever sent it before does not send it again."""
    rows = [{**entry, "messageId": RESPONSE} for entry in CALLS]
    (trace,) = build_spending_traces(
        Spending(DocumentKey("k"), RESPONSE, "c", USER, transactions(*rows), is_deleted_turn=True),
        user_name="anna",
        tags=(),
    )
    root, first, second = trace.observations

    assert (trace.id, trace.name) == (turn_trace_id(RESPONSE), "librechat-turn")
    assert (trace.metadata["outcome"], trace.tags) == ("deleted", ("deleted",))
    assert (root.type, root.input, root.output) == (ObservationType.AGENT, None, None)
    assert {first.parent_id, second.parent_id} == {root.id}
    assert (first.usage, second.usage) == ({"input": 100, "output": 10}, {"input": 200, "output": 20})


def test_the_title_of_a_deleted_turn_has_a_trace_of_its_own() -> None:
    """Under the id that it would have had; without its calls the turn shows what it cost itself."""
    title = [prompt_row(40, context="title"), completion_row(4, context="title")]
    rows = [{**entry, "messageId": RESPONSE} for entry in (*title, *CALLS[:2])]
    deleted = Spending(DocumentKey("k"), RESPONSE, "c", USER, transactions(*rows), is_deleted_turn=True)

    turn, named = build_spending_traces(deleted, user_name="anna", tags=("team-a",))

    assert [call.usage for call in turn.observations[1:]] == [{"input": 100, "output": 10}]
    assert (named.id, named.name, named.tags) == (
        title_trace_id(RESPONSE),
        "librechat-title",
        ("team-a", "title", "deleted"),
    )
    assert [(call.parent_id, call.usage, call.output) for call in named.observations] == [
        (None, {"input": 40, "output": 4}, None)
    ]


@pytest.mark.parametrize("policy", TemporaryPolicy)
def test_a_deleted_turn_of_a_chat_that_may_be_temporary_is_sent_only_where_those_are(
    policy: TemporaryPolicy,
) -> None:
    rows = [{**entry, "messageId": RESPONSE} for entry in CALLS]
    entries = transactions(*rows)
    deleted = Spending(
        DocumentKey("k"), RESPONSE, "c", USER, entries, is_deleted_turn=True, may_be_temporary=True
    )

    made = export_spending(deleted, options(policies=Policies(temporary=policy)))

    assert isinstance(made, EntryOutcome) == (policy is TemporaryPolicy.SKIP)


@pytest.mark.parametrize(
    ("reference", "conversation_id", "is_deleted_turn", "may_be_temporary"),
    [
        (RESPONSE, CONVERSATION, True, True),
        (CONVERSATION, CONVERSATION, False, True),
        (REFERENCE, "nanoid", False, False),
        (REFERENCE, CONVERSATION, False, False),
        ("nanoid", "nanoid", False, False),
    ],
    ids=["of a deleted turn", "of a deleted chat", "of the API", "of the API in a chat", "without a message"],
)
def test_what_a_deleted_chat_left_in_the_ledger_may_be_of_a_temporary_one(
    reference: str, conversation_id: str, *, is_deleted_turn: bool, may_be_temporary: bool
) -> None:
    """Until 0.8.2, and in chats with assistants always, transactions name their conversation only."""
    made = make_spending(DocumentKey("k"), reference, conversation_id, USER, transactions(*CALLS))

    assert made is not None
    assert (made.is_deleted_turn, made.may_be_temporary) == (is_deleted_turn, may_be_temporary)
    assert (export_spending(made, options()) is EntryOutcome.DELETED) is may_be_temporary


def test_what_states_no_tokens_or_no_time_is_no_trace() -> None:
    assert build_spending_traces(spending(), user_name=None, tags=()) == ()
    refill = prompt_row(1, tokenType="credits", context="autoRefill")
    assert build_spending_traces(spending(refill), user_name=None, tags=()) == ()
    timeless = prompt_row(1, createdAt=MISSING)
    assert build_spending_traces(spending(timeless), user_name=None, tags=()) == ()


def exported(**fields: Any) -> Any:
    """The only trace, or the reason why there is none."""
    made = export_spending(spending(*CALLS), options(**fields))
    return made[0] if isinstance(made, tuple) else made


def test_spending_is_under_the_same_decisions_as_turns() -> None:
    """Who it is, which conversations are in the sample, and whom the operator has denied."""
    hashed = UserNaming(UserIdChoice.HASH, b"secret")

    assert exported(tags=("team-a",)).user_id == USER
    assert exported(naming=hashed).user_id == hashed.name(USER, None)
    assert exported(sample_rate=0.0) == "not_sampled"
    assert exported(policies=Policies(deny=parse_rules([f"user={USER}"]))) == "denied_user"
    assert exported(policies=Policies(deny=parse_rules(["user=nobody"]))).user_id == USER
    assert exported(policies=Policies(deny=parse_rules(["role=ADMIN"]))) == "unread_role"


def test_rules_and_routes_know_tenant_role_and_groups_of_spending() -> None:
    """The tenant is in the transactions; role and groups are known where users are read."""
    user = User(USER, "a@example.com", "anna", "ADMIN", groups=("Board", "Finance"))
    known = replace(spending(*[{**call, "tenantId": "acme"} for call in CALLS]), user=user)
    asked: list[Facts] = []

    def receives(facts: Facts) -> bool:
        asked.append(facts)
        return False

    assert export_spending(known, options(receives=receives)) == "not_routed"
    (facts,) = asked
    assert (facts[Fact.TENANT], facts[Fact.ROLE], facts[Fact.GROUP]) == (
        "acme",
        "ADMIN",
        ("Board", "Finance"),
    )
    shown = export_spending(known, options(naming=UserNaming(UserIdChoice.EMAIL)))
    assert not isinstance(shown, EntryOutcome)
    assert [trace.user_id for trace in shown] == ["a@example.com"]


def test_the_tenant_of_spending_is_named_by_any_of_its_rows() -> None:
    """Rules on tenants decide by it."""
    unnamed, named = prompt_row(1), completion_row(1, tenantId="acme")

    assert spending(unnamed, named).tenant_id == "acme"


def test_rules_know_the_model_of_spending() -> None:
    """A call of the remote API has no endpoint and no agent, but its transactions name the model."""
    model = CALLS[0]["model"]

    assert exported(policies=Policies(deny=parse_rules([f"model={model}"]))) == "denied_model"
    assert exported(policies=Policies(allow=parse_rules(["model=another"]))) == "denied_model"
    assert f"model:{model}" in exported(tag_facts=(Fact.MODEL,)).tags


@given(st.lists(broken(CALLS[0]) | broken(CALLS[1]) | st.sampled_from(CALLS), max_size=5))
def test_no_broken_transaction_stops_spending(rows: list[Document]) -> None:
    """And what was billed is all there, once."""
    read = transactions(*rows)
    made = build_spending_traces(spending(*rows), user_name=None, tags=())

    if not made:
        assert not any(entry.created_milliseconds is not None for entry in read)
        return
    (trace,) = made
    total = sum(tokens for item in trace.observations for tokens in (item.usage or {}).values())
    plain = [entry for entry in read if entry.input_tokens is None]
    assert total >= sum(entry.tokens for entry in plain)
    assert len({item.id for item in trace.observations}) == len(trace.observations)
    assert encode_trace(trace, SpanContext("test"))
