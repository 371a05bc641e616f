"""Tokens and cost: the provider's numbers where it told them, a mark on every guess, and nothing counted twice."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tailer.core.policy.policies import Policies, TemporaryPolicy
from tailer.core.turn.calls import ModelCall, Tokens
from tailer.core.turn.costs import Cost
from tailer.core.turn.turns import Outcome, Turn, build_turn, judge_response
from tailer.core.turn.usage import (
    CostSource,
    Usage,
    UsageSource,
    resolve_title_usage,
    resolve_turn_usage,
)
from tests.recordings import NAMES, TrueTurn, truth
from tests.unit.documents import (
    MISSING,
    Document,
    completion_row,
    message,
    old_response_row,
    prompt_row,
    replay,
    response_row,
    structured_prompt_row,
    transactions,
    usage_metadata,
)

ANSWERED = [
    pytest.param(name, turn, id=f"{name}-{number}")
    for name in NAMES
    for number, turn in enumerate(truth(name).turns, start=1)
    if turn.response_message_id is not None
]


def recorded(name: str, turn: TrueTurn) -> Turn:
    assert turn.response_message_id is not None
    record = replay(name).record(turn.response_message_id)
    assert record.response is not None
    policies = Policies(temporary=TemporaryPolicy.FULL)
    outcome = judge_response(record.response, deadline_passed=False, policies=policies)
    assert isinstance(outcome, Outcome)
    return build_turn(record, outcome)


def usage_of(turn: Turn) -> Usage:
    assert turn.usage is not None
    return turn.usage


def total(usage: Usage) -> Tokens | None:
    told = [call.tokens for call in usage.calls if call.tokens is not None]
    if not told:
        return None
    return Tokens(
        input=sum(tokens.input or 0 for tokens in told),
        output=sum(tokens.output or 0 for tokens in told),
        cache_read=sum(tokens.cache_read for tokens in told),
        cache_write=sum(tokens.cache_write for tokens in told),
    )


def resolve(
    response: Document, *entries: Document, failed: bool = False, provider: str | None = None
) -> Usage:
    return resolve_turn_usage(message(response), transactions(*entries), failed=failed, provider=provider)


def dollars(usage: Usage) -> float | None:
    """What the calls cost together, None where none names a cost."""
    known = [call.cost.total for call in usage.calls if call.cost is not None]
    return sum(known) if known else None


@pytest.mark.parametrize(("name", "turn"), ANSWERED)
def test_a_recorded_turn_has_the_providers_numbers_or_says_that_it_guesses(name: str, turn: TrueTurn) -> None:
    """The truth's input holds the cache reads of OpenAI's style of counting, and not of Anthropic's."""
    usage = usage_of(recorded(name, turn))

    if turn.usage_is_known:
        inclusive = turn.usage.cache_read_tokens if turn.endpoint != "anthropic" else 0
        assert total(usage) == Tokens(
            input=turn.usage.input_tokens - inclusive,
            output=turn.usage.output_tokens,
            cache_read=turn.usage.cache_read_tokens,
            cache_write=turn.usage.cache_write_tokens,
        )
        assert usage.usage_source is UsageSource.REPORTED
    else:
        assert usage.usage_source in (UsageSource.ESTIMATED, UsageSource.UNKNOWN)


@pytest.mark.parametrize(("name", "turn"), ANSWERED)
def test_a_recorded_title_has_the_providers_numbers(name: str, turn: TrueTurn) -> None:
    """Apart from the turn's, which the truth counts apart too."""
    title = recorded(name, turn).title_usage

    if title is not None:
        assert turn.title_usage is not None
        assert total(title) == Tokens(turn.title_usage.input_tokens, turn.title_usage.output_tokens)
        assert title.usage_source is UsageSource.BILLED


@pytest.mark.parametrize(("name", "turn"), ANSWERED)
def test_a_recorded_turn_costs_what_its_ledger_says(name: str, turn: TrueTurn) -> None:
    """The sum over the calls is the sum over the transactions, those of the title left out."""
    built = recorded(name, turn)
    entries = [entry for entry in built.record.transactions if entry.context != "title"]

    assert dollars(usage_of(built)) == (
        pytest.approx(sum(entry.cost or 0 for entry in entries)) if entries else None
    )


def test_the_count_of_the_title_is_never_shown_as_the_answers() -> None:
    """In 16-reasoning the first answer came without usage, and LibreChat stored the title's 5 tokens with it."""
    turn = truth("16-reasoning").turns[0]
    built = recorded("16-reasoning", turn)

    assert built.record.response is not None
    assert built.title_usage is not None
    title = total(built.title_usage)
    assert title is not None
    assert built.record.response.token_count == title.output
    assert total(usage_of(built)) is None
    assert usage_of(built).usage_source is UsageSource.UNKNOWN


def test_reasoning_and_tools_do_not_change_the_sums() -> None:
    """A turn with a tool has two calls, each with its own numbers."""
    turn = truth("09-agent-tools").turns[0]
    calls = usage_of(recorded("09-agent-tools", turn)).calls

    assert len(calls) == 2
    assert [call.context for call in calls] == ["message", "message"]


REPORT = usage_metadata(900, 210, write=3, read=512)


def test_a_report_that_the_ledger_confirms_is_shown_call_by_call() -> None:
    usage = resolve(
        response_row(metadata=REPORT),
        structured_prompt_row(500, write=3, read=512),
        completion_row(10),
        prompt_row(400),
        completion_row(200),
    )

    assert [call.tokens for call in usage.calls] == [Tokens(500, 10, 512, 3), Tokens(400, 200)]
    assert usage.usage_source is UsageSource.REPORTED


def test_a_report_that_the_ledger_contradicts_is_shown_as_one_call_and_not_added() -> None:
    """They describe the same tokens."""
    usage = resolve(response_row(metadata=REPORT), prompt_row(1), completion_row(2))

    assert usage.calls == (ModelCall("gpt-4o", "message", Tokens(900, 210, 512, 3), usage.calls[0].cost),)
    assert usage.usage_source is UsageSource.REPORTED


def test_the_calls_of_an_earlier_run_are_kept_where_the_report_is_of_a_later_one_alone() -> None:
    """ "Continue" over the API writes into the same row: LibreChat reports what the later run used, and bills both."""
    rows = [prompt_row(120), completion_row(26), prompt_row(117), completion_row(27)]
    usage = resolve(response_row(metadata=usage_metadata(117, 27)), *rows)

    assert [call.tokens for call in usage.calls] == [Tokens(120, 26), Tokens(117, 27)]
    assert (usage.usage_source, usage.cost_source) == (UsageSource.BILLED, CostSource.BILLED)


@given(
    st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999), st.sampled_from(["message", "abort", "sequential"])), max_size=5),
    st.tuples(st.integers(0, 999), st.integers(0, 999)),
)  # fmt: skip
def test_whatever_the_ledger_holds_a_report_is_the_sum_that_is_shown(
    pairs: list[tuple[int, int, str]], reported: tuple[int, int]
) -> None:
    """Report and transactions are never added, but where the last calls alone are what is reported."""
    sums = [
        tuple(map(sum, zip(*[pair[:2] for pair in pairs[first:]], strict=True)))
        for first in range(len(pairs))
    ]
    assume(reported not in sums[1:])
    rows = [
        row
        for prompt, completion, context in pairs
        for row in (prompt_row(prompt, context=context), completion_row(completion, context=context))
    ]
    usage = resolve(response_row(metadata=usage_metadata(*reported)), *rows, prompt_row(7, context="title"))

    assert total(usage) == Tokens(*reported)


def test_the_reported_cost_comes_before_the_billed_one() -> None:
    priced = usage_metadata(900, 210, cost=0.5)
    usage = resolve(response_row(metadata=priced), prompt_row(1), completion_row(2))

    assert (dollars(usage), usage.cost_source) == (0.5, CostSource.REPORTED)


def test_a_reported_cost_that_the_ledger_confirms_is_a_reported_one_call_by_call() -> None:
    """108 x 2.5 + 13 x 10 millionths of a dollar, said by both."""
    rows = [prompt_row(108), completion_row(13)]
    agreed = resolve(response_row(metadata=usage_metadata(108, 13, cost=0.0004)), *rows)
    unsaid = resolve(response_row(metadata=usage_metadata(108, 13)), *rows)
    disputed = resolve(response_row(metadata=usage_metadata(108, 13, cost=0.5)), *rows)

    assert (dollars(agreed), agreed.cost_source) == (0.0004, CostSource.REPORTED)
    assert (dollars(unsaid), unsaid.cost_source) == (0.0004, CostSource.BILLED)
    assert (dollars(disputed), disputed.cost_source) == (0.5, CostSource.REPORTED)


def test_a_reported_cost_stands_where_no_price_was_billed() -> None:
    """A ledger without prices cannot confirm it."""
    rows = [prompt_row(108, tokenValue=MISSING), completion_row(13, tokenValue=MISSING)]
    usage = resolve(response_row(metadata=usage_metadata(108, 13, cost=0.25)), *rows)

    assert dollars(usage) == 0.25
    assert usage.cost_source is CostSource.REPORTED


def test_without_a_report_the_ledger_of_older_releases_tells() -> None:
    usage = resolve(old_response_row(), prompt_row(108), completion_row(13))

    cost = Cost(0.0004, input=0.00027, output=0.00013)
    assert usage.calls == (ModelCall("gpt-4o", "message", Tokens(108, 13), cost),)
    assert (usage.usage_source, usage.cost_source) == (UsageSource.BILLED, CostSource.BILLED)


@pytest.mark.parametrize(
    ("response", "failed"),
    [
        (response_row(), False),
        (old_response_row(metadata={"contextUsage": {"runId": "r"}}), False),
        (old_response_row(), True),
        (old_response_row(finish_reason="incomplete"), True),
    ],
)
def test_a_ledger_without_a_report_is_a_guess_where_the_release_would_report(
    response: Document, *, failed: bool
) -> None:
    """Newer releases report whatever the provider told; what they charge without it they have counted themselves."""
    usage = resolve(response, prompt_row(24), completion_row(4), failed=failed)

    assert usage.usage_source is UsageSource.ESTIMATED
    assert total(usage) == Tokens(24, 4)


@pytest.mark.parametrize(
    ("endpoint", "cached", "source"),
    [
        ("anthropic", True, UsageSource.ESTIMATED),
        ("bedrock", True, UsageSource.ESTIMATED),
        ("anthropic", False, UsageSource.BILLED),
        ("openAI", True, UsageSource.BILLED),
    ],
)
def test_0_8_6_charges_cached_tokens_of_anthropic_and_bedrock_twice(
    endpoint: str, *, cached: bool, source: UsageSource
) -> None:
    """Its rows say if they are temporary, and report nothing yet. LibreChat #13468 and #13798 came after it."""
    newer = ("contextMeta", "langfuseSampled", "langfuseDestinationIds")
    stored: dict[str, Any] = {**dict.fromkeys(newer, MISSING), "endpoint": endpoint}
    prompt = structured_prompt_row(550, write=200, read=300) if cached else prompt_row(550)

    assert resolve(response_row(**stored), prompt, completion_row(21)).usage_source is source


@pytest.mark.parametrize(
    ("models", "source"),
    [
        (("gpt-4o", "claude-3-5-haiku"), UsageSource.ESTIMATED),
        (("gpt-4o", "gpt-4o-mini"), UsageSource.BILLED),
        # A model of that name at a provider of another kind.
        (("claude-3-5-haiku", "claude-3-5-haiku"), UsageSource.BILLED),
    ],
)
def test_until_0_8_5_the_amounts_of_one_agents_call_of_anthropic_are_doubtful_too(
    models: tuple[str, str], source: UsageSource
) -> None:
    """A hand-off, a chain or an answer beside another: the turn's own agent is not Anthropic's."""
    rows = [
        row for model in models for row in (prompt_row(132, model=model), completion_row(28, model=model))
    ]

    assert resolve(old_response_row(endpoint="openAI"), *rows).usage_source is source


@pytest.mark.parametrize("fields", [{}, {"isTemporary": False, "langfuseSampled": True}])
def test_the_agents_api_charges_what_the_provider_told(fields: Document) -> None:
    """In every release since 0.8.3 its answers are text alone, and it stores no report."""
    stored = {
        "messageId": "resp_mgib6he0k3x9qz",
        "parentMessageId": None,
        "text": "Paris.",
        "content": MISSING,
    }
    usage = resolve(old_response_row(**{**stored, **fields}), prompt_row(115), completion_row(9))

    assert (usage.usage_source, usage.cost_source) == (UsageSource.BILLED, CostSource.BILLED)


def test_a_price_of_a_model_without_price_is_a_guess() -> None:
    """LibreChat charges six dollars both ways."""
    usage = resolve(old_response_row(), prompt_row(108, rate=6), completion_row(13, rate=6))

    assert usage.cost_source is CostSource.ESTIMATED


def test_the_cost_is_money_and_not_binary_fractions() -> None:
    usage = resolve(old_response_row(), prompt_row(1, tokenValue=-0.1), completion_row(1, tokenValue=-0.2))

    assert dollars(usage) == 0.0000003


def test_only_the_count_of_the_answer_is_left_without_report_and_ledger() -> None:
    usage = resolve(old_response_row(tokenCount=210))

    assert usage.calls == (ModelCall(None, "message", Tokens(None, 210), None),)
    assert (usage.usage_source, usage.cost_source) == (UsageSource.OUTPUT_ONLY, CostSource.UNKNOWN)


@pytest.mark.parametrize("fields", [{"tokenCount": MISSING}, {"tokenCount": None}, {"tokenCount": -5}])
def test_where_nothing_tells_nothing_is_shown(fields: Document) -> None:
    usage = resolve(old_response_row(**fields))

    assert usage.calls == (ModelCall(None, "message", None, None),)
    assert (usage.usage_source, usage.cost_source) == (UsageSource.UNKNOWN, CostSource.UNKNOWN)


def test_the_count_of_a_failed_turn_is_not_believed() -> None:
    """It is left from an earlier state or from the title."""
    assert total(resolve(old_response_row(tokenCount=210), failed=True)) is None


def test_a_count_that_is_the_titles_is_not_believed() -> None:
    title = (prompt_row(142, context="title"), completion_row(5, context="title"))

    assert total(resolve(response_row(tokenCount=5), *title)) is None
    assert total(resolve(response_row(tokenCount=6), *title)) == Tokens(0, 6)


def test_an_answer_without_rows_beside_a_billed_title_has_no_known_cost() -> None:
    """LibreChat can lose the rows of an answer; a cost of nothing would be believed."""
    title = (prompt_row(142, context="title"), completion_row(5, context="title"))
    usage = resolve(old_response_row(tokenCount=321), *title)

    assert (dollars(usage), usage.cost_source) == (None, CostSource.UNKNOWN)
    assert total(usage) == Tokens(0, 321)


def test_a_cost_of_nothing_is_what_librechat_charged() -> None:
    free = [prompt_row(108, rate=0, tokenValue=0), completion_row(13, rate=0, tokenValue=0)]
    usage = resolve(old_response_row(), *free)

    assert (dollars(usage), usage.cost_source) == (0.0, CostSource.BILLED)


def test_the_title_is_apart() -> None:
    rows = (
        prompt_row(108),
        prompt_row(142, context="title"),
        completion_row(5, context="title"),
        completion_row(13),
    )
    title = resolve_title_usage(None, transactions(*rows))

    assert total(resolve(old_response_row(), *rows)) == Tokens(108, 13)
    assert title is not None
    assert total(title) == Tokens(142, 5)
    assert resolve_title_usage(None, transactions(prompt_row(1), completion_row(2))) is None


def test_a_structured_completion_of_zero_is_never_written_and_leaves_no_gap() -> None:
    usage = resolve(
        response_row(), structured_prompt_row(10, write=0, read=5), structured_prompt_row(20, write=0, read=6), completion_row(7)
    )  # fmt: skip

    assert [call.tokens for call in usage.calls] == [Tokens(10, 0, 5, 0), Tokens(20, 7, 6, 0)]


def test_calls_of_different_models_and_contexts_are_never_paired() -> None:
    usage = resolve(
        old_response_row(),
        prompt_row(1, model="a"),
        completion_row(2, model="b"),
        prompt_row(3, context="subagent"),
        completion_row(4),
    )

    assert [(call.model, call.context, call.tokens) for call in usage.calls] == [
        ("a", "message", Tokens(1, None)),
        ("b", "message", Tokens(None, 2)),
        ("gpt-4o", "subagent", Tokens(3, None)),
        ("gpt-4o", "message", Tokens(None, 4)),
    ]


ENTRIES = st.lists(
    st.builds(
        lambda make, tokens, model, context: make(tokens, model=model, context=context),
        st.sampled_from([prompt_row, completion_row]),
        st.integers(0, 10_000),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["message", "subagent", "title"]),
    ),
    min_size=1,
    max_size=12,
)


@given(ENTRIES)
def test_no_billed_token_and_no_cent_is_lost_or_counted_twice(rows: list[Document]) -> None:
    """Turn and title together are the ledger, in any order of its rows."""
    entries = transactions(*rows)
    title = resolve_title_usage(None, entries)
    found = [resolve(old_response_row(tokenCount=MISSING), *rows), *([title] if title is not None else [])]
    calls = [call for usage in found for call in usage.calls if call.tokens is not None]

    for kind, counted in (
        ("prompt", sum(call.tokens.input or 0 for call in calls if call.tokens)),
        ("completion", sum(call.tokens.output or 0 for call in calls if call.tokens)),
    ):
        assert counted == sum(entry.tokens for entry in entries if entry.token_type == kind)
    assert sum(dollars(usage) or 0 for usage in found) == pytest.approx(
        sum(entry.cost or 0 for entry in entries), abs=1e-9
    )


def test_a_report_is_believed_for_a_stopped_turn_too() -> None:
    """A stop of 0.8.7 and later reports and bills nothing."""
    usage = resolve(response_row(metadata=REPORT), failed=True)

    assert total(usage) == Tokens(900, 210, 512, 3)
    assert usage.usage_source is UsageSource.REPORTED
    assert replace(usage.calls[0], tokens=None) == ModelCall(None, "message", None, None)
