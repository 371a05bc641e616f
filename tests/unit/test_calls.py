"""Calls out of ledger rows of every release: in any order, late, twice, with a missing half, or beside a guess."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.turn.calls import ModelCall, PairingClues, Tokens, pair_calls
from tailer.core.turn.costs import Cost, PriceList
from tailer.core.turn.usage import NO_USAGE, CostSource, Usage, UsageSource, resolve_turn_usage
from tests.unit.documents import (
    MISSING,
    Document,
    completion_row,
    message,
    old_response_row,
    prompt_row,
    response_row,
    structured_prompt_row,
    transactions,
    usage_metadata,
)

AGENT = "agent_tRLbBjkRZwIIUBgXhGLl7"


def calls(*rows: Document, **clues: Any) -> tuple[ModelCall, ...]:
    entries = transactions(*rows)
    return pair_calls(entries, PriceList(entries), PairingClues(**clues))


def tokens(*rows: Document, **clues: Any) -> list[Tokens | None]:
    return [call.tokens for call in calls(*rows, **clues)]


def resolve(response: Document, *rows: Document, failed: bool = False, provider: str | None = None) -> Usage:
    return resolve_turn_usage(message(response), transactions(*rows), failed=failed, provider=provider)


def test_rows_that_stand_together_are_one_call() -> None:
    rows = [prompt_row(100), completion_row(10), prompt_row(200), completion_row(20)]

    assert tokens(*rows) == [Tokens(100, 10), Tokens(200, 20)]
    assert not any(call.paired_by_order for call in calls(*rows))


def test_prompts_before_completions_are_paired_in_their_order_and_say_so() -> None:
    """Until 0.8.2 LibreChat did not wait for its writes; which completion is whose cannot be told."""
    rows = [prompt_row(100), prompt_row(200), completion_row(10), completion_row(20)]

    assert tokens(*rows) == [Tokens(100, 10), Tokens(200, 20)]
    assert all(call.paired_by_order for call in calls(*rows))


def test_the_count_of_old_releases_tells_which_completion_is_whose() -> None:
    """0.7.9 counts a turn as its last answer and the growth of its prompts: 12 = 11 + 123 - 122."""
    rows = [prompt_row(122), prompt_row(123), completion_row(11), completion_row(26)]

    assert tokens(*rows, growing_count=12) == [Tokens(122, 26), Tokens(123, 11)]
    assert not any(call.paired_by_order for call in calls(*rows, growing_count=12))
    assert all(call.paired_by_order for call in calls(*rows, growing_count=37))


def test_a_count_that_fits_no_order_leaves_the_order_of_the_rows() -> None:
    rows = [prompt_row(153), prompt_row(161), completion_row(51), completion_row(19)]

    assert tokens(*rows, growing_count=29) == [Tokens(153, 51), Tokens(161, 19)]
    assert all(call.paired_by_order for call in calls(*rows, growing_count=29))


def test_a_guess_under_an_agents_id_beside_named_models_is_no_call() -> None:
    """0.7.9 counts again by itself where its own count falls below one, which also tells the order of the calls."""
    rows = [
        *(prompt_row(count) for count in (198, 199, 199)),
        prompt_row(215, model=AGENT, rate=6),
        *(completion_row(count) for count in (12, 26, 26)),
        completion_row(43, model=AGENT, rate=6),
    ]

    assert tokens(*rows) == [Tokens(198, 26), Tokens(199, 26), Tokens(199, 12)]
    assert {call.model for call in calls(*rows)} == {"gpt-4o"}


def test_a_guess_under_an_agents_id_alone_is_a_guess_without_a_model() -> None:
    usage = resolve(old_response_row(), prompt_row(215, model=AGENT), completion_row(43, model=AGENT))

    assert [(call.model, call.tokens) for call in usage.calls] == [(None, Tokens(215, 43))]
    assert (usage.usage_source, usage.cost_source) == (UsageSource.ESTIMATED, CostSource.ESTIMATED)


def test_rows_of_no_tokens_are_no_call() -> None:
    """0.7.7 writes one for the reasoning of every answer."""
    assert tokens(prompt_row(122), completion_row(33), completion_row(0, context="reasoning")) == [
        Tokens(122, 33)
    ]
    assert tokens(prompt_row(0), completion_row(0)) == []


def test_reasoning_that_was_charged_apart_belongs_to_its_call() -> None:
    (only,) = calls(prompt_row(100), completion_row(10), completion_row(5, context="reasoning"))

    assert only.tokens == Tokens(100, 15)
    assert only.cost == Cost(0.0004, input=0.00025, output=0.00015)


def test_a_stopped_call_that_was_charged_twice_is_one_call() -> None:
    """At the stop and when it ended (0.7.7): two guesses at the same answer."""
    stop = [prompt_row(122, context="incomplete"), completion_row(27, context="incomplete")]
    usage = resolve(old_response_row(), *stop, prompt_row(122), completion_row(33), failed=True)
    (only,) = usage.calls

    assert (only.tokens, only.context, only.billed_twice) == (Tokens(122, 33), "message", True)
    assert tokens(*stop) == [Tokens(122, 27)]


def test_a_missing_half_is_unknown_and_not_zero() -> None:
    assert tokens(prompt_row(100)) == [Tokens(100, None)]
    assert tokens(completion_row(10)) == [Tokens(None, 10)]
    assert tokens(prompt_row(100), completion_row(10), completion_row(7)) == [
        Tokens(100, 10),
        Tokens(None, 7),
    ]


def test_calls_of_two_models_whose_rows_mingle_are_told_apart() -> None:
    rows = [
        prompt_row(1, model="a"),
        prompt_row(2, model="b"),
        completion_row(20, model="b"),
        completion_row(10, model="a"),
    ]

    assert [(call.model, call.tokens, call.paired_by_order) for call in calls(*rows)] == [
        ("a", Tokens(1, 10), False),
        ("b", Tokens(2, 20), False),
    ]


def test_a_batch_that_was_written_twice_is_counted_once_where_the_report_tells() -> None:
    rows = [prompt_row(100), completion_row(10), prompt_row(150), completion_row(20)]
    usage = resolve(response_row(metadata=usage_metadata(250, 30)), *rows, *rows)

    assert [call.tokens for call in usage.calls] == [Tokens(100, 10), Tokens(150, 20)]


def test_what_is_charged_after_the_report_is_kept_beside_it() -> None:
    """A detached sub-agent: the answer's own calls add up to the report, and its calls come on top."""
    rows = [prompt_row(100), completion_row(10)]
    late = [
        prompt_row(5000, context="subagent", model="m"),
        completion_row(500, context="subagent", model="m"),
    ]
    usage = resolve(response_row(metadata=usage_metadata(100, 10)), *rows, *late)
    within = resolve(response_row(metadata=usage_metadata(5100, 510)), *rows, *late)

    assert [call.tokens for call in usage.calls] == [Tokens(100, 10), Tokens(5000, 500)]
    assert [call.tokens for call in within.calls] == [Tokens(100, 10), Tokens(5000, 500)]


@pytest.mark.parametrize("endpoint", ["openAI", "google", "azureOpenAI", "OpenRouter"])
def test_until_0_8_5_cached_tokens_are_not_counted_as_input_too(endpoint: str) -> None:
    cached = structured_prompt_row(184, write=0, read=64)
    old = resolve(old_response_row(endpoint=endpoint), cached, completion_row(8))
    new = resolve(response_row(endpoint=endpoint), cached, completion_row(8))

    assert old.calls[0].tokens == Tokens(120, 8, 64)
    assert new.calls[0].tokens == Tokens(184, 8, 64)


def test_a_count_smaller_than_its_cached_part_does_not_hold_it() -> None:
    usage = resolve(old_response_row(), structured_prompt_row(14, write=0, read=64), completion_row(8))

    assert usage.calls[0].tokens == Tokens(14, 8, 64)


@pytest.mark.parametrize(
    ("endpoint", "provider", "model"),
    [
        ("anthropic", None, "claude-3-5-sonnet-20241022"),
        ("agents", "anthropic", "claude-3-5-sonnet-20241022"),
        ("agents", None, "claude-3-5-sonnet-20241022"),
    ],
)
def test_what_0_7_9_to_0_8_4_double_for_anthropic_is_marked(
    endpoint: str, provider: str | None, model: str
) -> None:
    """All amounts are doubled alike and nothing in the rows tells; the answers of 0.7.8 are text, and right."""
    rows = [structured_prompt_row(286, write=64, read=128, model=model), completion_row(14, model=model)]
    doubled = resolve(old_response_row(endpoint=endpoint), *rows, provider=provider)
    older = resolve(
        old_response_row(endpoint=endpoint, content=MISSING, text="Paris."), *rows, provider=provider
    )

    assert doubled.calls[0].tokens == older.calls[0].tokens == Tokens(286, 14, 128, 64)
    assert (doubled.usage_source, doubled.cost_source) == (UsageSource.ESTIMATED, CostSource.ESTIMATED)
    assert older.usage_source is UsageSource.BILLED


def test_a_price_that_librechat_made_up_is_never_reported() -> None:
    """Six dollars a million both ways, whatever shows the cost."""
    rows = [prompt_row(103, rate=6), completion_row(11, rate=6)]
    shown = resolve(response_row(metadata=usage_metadata(103, 11, cost=0.000684)), *rows)
    disputed = resolve(response_row(metadata=usage_metadata(103, 12, cost=0.00069)), *rows)
    alone = resolve(response_row(metadata=usage_metadata(103, 11, cost=0.000684)))
    real = resolve(response_row(metadata=usage_metadata(103, 11, cost=0.0003675)))

    assert {usage.cost_source for usage in (shown, disputed, alone)} == {CostSource.ESTIMATED}
    assert real.cost_source is CostSource.REPORTED


def test_one_made_up_price_among_real_ones_is_marked_at_its_own_call() -> None:
    rows = [prompt_row(100), completion_row(10)]
    usage = resolve(
        response_row(metadata=usage_metadata(200, 20)), *rows,
        prompt_row(100, rate=6, model="own"), completion_row(10, rate=6, model="own"),
    )  # fmt: skip

    assert [usage.cost_source_of(call) for call in usage.calls] == [CostSource.BILLED, CostSource.ESTIMATED]


def test_the_cost_of_guessed_tokens_is_a_guess() -> None:
    failed = resolve(old_response_row(), prompt_row(121), completion_row(4), failed=True)

    assert (failed.usage_source, failed.cost_source) == (UsageSource.ESTIMATED, CostSource.ESTIMATED)


@pytest.mark.parametrize("kind", ["moderation", "concurrent", "no_user_key"])
def test_a_refused_question_asked_no_model(kind: str) -> None:
    refused = resolve(
        response_row(error=True, text=f'{{"type":"{kind}"}}', content=MISSING, tokenCount=MISSING),
        failed=True,
    )
    failed = resolve(
        response_row(error=True, text="500 overloaded", content=MISSING, tokenCount=MISSING), failed=True
    )

    assert refused.calls == ()
    assert len(failed.calls) == 1


def test_an_answer_that_was_written_before_it_failed_was_no_refusal() -> None:
    """A model was asked: its numbers are unknown, and not nothing."""
    written = [{"type": "text", "text": "Once upon"}]
    failed = response_row(error=True, text='{"type":"token_balance"}', content=written, tokenCount=MISSING)

    assert resolve(failed, failed=True) == NO_USAGE


def test_costs_are_told_by_bucket_where_the_prices_are_known() -> None:
    plain = calls(prompt_row(100, rate=3, tokenValue=-300), completion_row(10, rate=15, tokenValue=-150))
    only_cache = calls(structured_prompt_row(0, write=0, read=100, tokenValue=-30), completion_row(10))
    told = calls(
        prompt_row(100, rate=3, tokenValue=-300),
        completion_row(10),
        structured_prompt_row(100, write=0, read=100, rate=1.65, tokenValue=-330),
        completion_row(10),
    )
    untold = calls(
        structured_prompt_row(100, write=0, read=100, rate=1.65, tokenValue=-330), completion_row(10)
    )

    assert plain[0].cost == Cost(0.00045, input=0.0003, output=0.00015)
    assert only_cache[0].cost == Cost(0.00013, output=0.0001, cache_read=0.00003)
    assert told[1].cost == Cost(0.00043, input=0.0003, output=0.0001, cache_read=0.00003)
    assert untold[0].cost == Cost(0.00043, output=0.0001)


ROWS = st.lists(
    st.one_of(
        st.builds(
            lambda make, count, model, context: make(count, model=model, context=context),
            st.sampled_from([prompt_row, completion_row]),
            st.integers(0, 5_000),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["message", "subagent", "summarization", "reasoning"]),
        ),
        st.builds(
            lambda sent, write, read: structured_prompt_row(sent, write=write, read=read, model="a"),
            st.integers(0, 5_000),
            st.integers(0, 5_000),
            st.integers(0, 5_000),
        ),
    ),
    max_size=8,
)


def sums(rows: list[Document]) -> tuple[float, ...]:
    known = [call for call in calls(*rows, cache_in_input=True) if call.tokens is not None]
    return (
        sum(call.tokens.input or 0 for call in known if call.tokens),
        sum(call.tokens.output or 0 for call in known if call.tokens),
        sum(call.tokens.cache_read for call in known if call.tokens),
        sum(call.tokens.cache_write for call in known if call.tokens),
        round(sum(call.cost.total for call in known if call.cost), 9),
    )


@given(ROWS.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_no_order_of_the_rows_changes_the_sums(pair: tuple[list[Document], list[Document]]) -> None:
    stored, mixed = pair

    assert sums(stored) == sums(mixed)


@given(ROWS)
def test_the_buckets_of_a_cost_never_exceed_it(rows: list[Document]) -> None:
    for call in calls(*rows):
        if call.cost is not None:
            parts = (call.cost.input, call.cost.output, call.cost.cache_read, call.cost.cache_write)
            assert sum(part or 0 for part in parts) <= call.cost.total + 1e-9
            assert all(part is None or part >= 0 for part in parts)


@given(ROWS, st.integers(0, 9_999), st.integers(0, 9_999))
def test_the_calls_of_a_reported_turn_add_up_to_the_report(
    rows: list[Document], sent: int, written: int
) -> None:
    """But for what calls beside the answer took after it was reported."""
    rows = [row for row in rows if row["context"] in ("message", "reasoning")]
    usage = resolve(response_row(metadata=usage_metadata(sent, written)), *rows)

    assert sum(call.tokens.input or 0 for call in usage.calls if call.tokens) == sent
    assert sum(call.tokens.output or 0 for call in usage.calls if call.tokens) == written


def test_a_call_with_cache_that_0_7_7_charged_a_second_time_without_it_is_one_call() -> None:
    """Both prompts, and then both completions, in any order; a call without cache is charged once."""
    rows = [
        prompt_row(100),
        structured_prompt_row(500, write=0, read=64),
        prompt_row(500),
        completion_row(10),
        completion_row(20),
        completion_row(20),
    ]
    unnamed = [{name: value for name, value in row.items() if name != "messageId"} for row in rows]
    found = calls(*unnamed, cache_in_input=True)

    assert [call.tokens for call in found] == [Tokens(100, 10), Tokens(436, 20, cache_read=64)]
    assert [call.billed_twice for call in found] == [False, True]
    assert len(calls(*rows)) == 3, "since 0.8.3 rows name their message, and no call is charged twice"
