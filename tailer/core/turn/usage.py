"""Tokens and cost of a turn from what the database tells, each number with its source.

Order of sources: `metadata.usage` (all calls of the turn, equal to the provider wherever present), then the
transactions, then `tokenCount` (output only). The first two overlap and are never added. LibreChat writes guesses into
transactions when the provider told nothing; those are marked as estimates.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

from tailer.core.librechat.documents import Message, ReportedUsage, Transaction
from tailer.core.light_dataclass import light_dataclass

TITLE_CONTEXT = "title"
_UNKNOWN_MODEL_RATE = 6.0
"""LibreChat's `defaultRate`: what it charges, both ways, for a model that it has no price for."""


class UsageSource(StrEnum):
    """Where the token counts come from."""

    REPORTED = "reported"
    BILLED = "billed"
    ESTIMATED = "estimated"
    OUTPUT_ONLY = "output_only"
    UNKNOWN = "unknown"


class CostSource(StrEnum):
    """Where the cost comes from."""

    REPORTED = "reported"
    BILLED = "billed"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


@light_dataclass(frozen=True, slots=True)
class Tokens:
    """Exclusive buckets: `input` without cache. None where nobody told."""

    input: int | None
    output: int | None
    cache_read: int = 0
    cache_write: int = 0


@light_dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model; `cost` in USD."""

    model: str | None
    context: str
    tokens: Tokens | None
    cost: float | None


@light_dataclass(frozen=True, slots=True)
class Usage:
    """The model calls of a turn (or of its title) and how far their numbers can be trusted."""

    calls: tuple[ModelCall, ...]
    usage_source: UsageSource
    cost_source: CostSource


NO_USAGE = Usage((ModelCall(None, "message", None, None),), UsageSource.UNKNOWN, CostSource.UNKNOWN)
"""One call of which nothing is known."""


def resolve_turn_usage(
    response: Message, transactions: Sequence[Transaction], *, failed: bool, ledger_kept: bool
) -> Usage:
    """The usage of a turn; `transactions` are those of this response, in the order written.

    `failed` says that the turn was aborted or ended in an error: what LibreChat then charges is its own guess.
    `ledger_kept` says that this LibreChat writes transactions at all.
    """
    own = [entry for entry in transactions if entry.context != TITLE_CONTEXT]
    calls = _pair_calls(own)
    if response.usage is not None:
        return _from_report(response.usage, calls, own)
    if calls:
        guessed = failed or response.sampling_decided or response.run_id is not None
        source = UsageSource.ESTIMATED if guessed else UsageSource.BILLED
        return Usage(calls, source, _cost_source(own))
    # The ledger has no entry for the answer: nothing was billed. Saying so also keeps Langfuse from counting tokens by
    # itself and showing its guess as usage.
    cost = 0.0 if ledger_kept else None
    cost_source = CostSource.BILLED if ledger_kept else CostSource.UNKNOWN
    output = None if failed else _trusted_token_count(response, transactions)
    if output is None:
        return Usage((ModelCall(None, "message", None, cost),), UsageSource.UNKNOWN, cost_source)
    call = ModelCall(None, "message", Tokens(None, output), cost)
    return Usage((call,), UsageSource.OUTPUT_ONLY, cost_source)


def resolve_title_usage(transactions: Sequence[Transaction]) -> Usage | None:
    """The usage of the title generation among a response's transactions, None when there was none."""
    own = [entry for entry in transactions if entry.context == TITLE_CONTEXT]
    if not own:
        return None
    return Usage(_pair_calls(own), UsageSource.BILLED, _cost_source(own))


def resolve_spending(transactions: Sequence[Transaction]) -> Usage | None:
    """The usage of transactions that belong to no message, None where there are none."""
    if not transactions:
        return None
    return Usage(_pair_calls(transactions), UsageSource.BILLED, _cost_source(transactions))


def _from_report(report: ReportedUsage, calls: tuple[ModelCall, ...], own: Sequence[Transaction]) -> Usage:
    whole = Tokens(report.input, report.output, report.cache_read, report.cache_write)
    billed = _sum_cost(calls)
    costs_agree = report.cost is None or (
        billed is not None and math.isclose(report.cost, billed, rel_tol=1e-6)
    )
    if calls and _total(calls) == whole and costs_agree:
        cost_source = _cost_source(own) if report.cost is None else CostSource.REPORTED
        return Usage(calls, UsageSource.REPORTED, cost_source)
    cost, cost_source = report.cost, CostSource.REPORTED
    if cost is None:
        cost, cost_source = billed, _cost_source(own)
    models = {call.model for call in calls if call.context == "message"}
    model = models.pop() if len(models) == 1 else None
    return Usage((ModelCall(model, "message", whole, cost),), UsageSource.REPORTED, cost_source)


def _pair_calls(transactions: Sequence[Transaction]) -> tuple[ModelCall, ...]:
    """One prompt and one completion row make a call; a structured completion of zero tokens is never written."""
    calls: list[ModelCall] = []
    prompt: Transaction | None = None
    for entry in transactions:
        if entry.token_type == "prompt":
            if prompt is not None:
                calls.append(_make_call(prompt, None))
            prompt = entry
        elif prompt is not None and (prompt.model, prompt.context) == (entry.model, entry.context):
            calls.append(_make_call(prompt, entry))
            prompt = None
        else:
            calls.append(_make_call(None, entry))
    if prompt is not None:
        calls.append(_make_call(prompt, None))
    return tuple(calls)


def _make_call(prompt: Transaction | None, completion: Transaction | None) -> ModelCall:
    entries = [entry for entry in (prompt, completion) if entry is not None]
    costs = [entry.cost for entry in entries if entry.cost is not None]
    input_tokens, cache_read, cache_write = 0, 0, 0
    if prompt is not None:
        structured = prompt.input_tokens is not None
        input_tokens = prompt.input_tokens or 0 if structured else prompt.tokens
        cache_read, cache_write = prompt.read_tokens or 0, prompt.write_tokens or 0
    output = completion.tokens if completion is not None else 0
    return ModelCall(
        model=entries[0].model,
        context=entries[0].context,
        tokens=Tokens(input_tokens, output, cache_read, cache_write),
        cost=_add(costs),
    )


def _total(calls: Sequence[ModelCall]) -> Tokens:
    parts = [call.tokens for call in calls if call.tokens is not None]
    return Tokens(
        sum(part.input or 0 for part in parts),
        sum(part.output or 0 for part in parts),
        sum(part.cache_read for part in parts),
        sum(part.cache_write for part in parts),
    )


def _sum_cost(calls: Sequence[ModelCall]) -> float | None:
    costs = [call.cost for call in calls if call.cost is not None]
    return _add(costs)


def _add(costs: Sequence[float]) -> float | None:
    """A sum in USD to the millionth of a millionth: what binary fractions add beyond that is not money."""
    return round(sum(costs), 12) if costs else None


def _cost_source(transactions: Sequence[Transaction]) -> CostSource:
    if not any(entry.cost is not None for entry in transactions):
        return CostSource.UNKNOWN
    unpriced = all(entry.rate == _UNKNOWN_MODEL_RATE for entry in transactions)
    return CostSource.ESTIMATED if unpriced else CostSource.BILLED


def _trusted_token_count(response: Message, transactions: Sequence[Transaction]) -> int | None:
    """`tokenCount`, unless it is the title's: LibreChat stores that one when the answer came without usage."""
    title = sum(entry.tokens for entry in transactions if entry.token_type == "completion")
    if response.token_count is None or response.token_count == title:
        return None
    return response.token_count
