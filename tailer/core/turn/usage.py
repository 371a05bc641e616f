"""Tokens and cost of a turn from what the database tells, each number with its source.

Order of sources: `metadata.usage` (all calls of the turn, equal to the provider wherever present), then the
transactions, then `tokenCount` (output only). The first two overlap and are never added. LibreChat writes guesses into
transactions when the provider reported nothing; those are marked as estimates, and so is what they cost.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tailer.core.json_text import decode_json
from tailer.core.librechat.content import TextPart
from tailer.core.librechat.messages import Message, ReportedUsage
from tailer.core.librechat.transactions import Transaction
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.calls import (
    ModelCall,
    PairingClues,
    Tokens,
    pair_calls,
    total_tokens,
)
from tailer.core.turn.costs import Cost, PriceList, add_costs, guess_of
from tailer.core.turn.miscounts import (
    counted_by_itself,
    counted_otherwise,
    counts_cache_in_input,
    miscounts,
    miscounts_model,
)
from tailer.core.turn.own_counts import is_own_count

_NO_OTHERS: Final[Mapping[str | None, str]] = MappingProxyType({})
_NO_MODELS: Final[frozenset[str | None]] = frozenset()
TITLE_CONTEXT = "title"
SUBAGENT_CONTEXT = "subagent"
_PLUGINS_CONTEXT = "plugins"
ANSWERING_CONTEXTS = frozenset({"message", "abort", "incomplete", "sequential"})
"""Transaction contexts of the calls that wrote the answer; other contexts are calls beside it."""


class UsageSource(StrEnum):
    """The source of the token counts."""

    REPORTED = "reported"
    BILLED = "billed"
    ESTIMATED = "estimated"
    OUTPUT_ONLY = "output_only"
    UNKNOWN = "unknown"


class CostSource(StrEnum):
    """The source of the cost."""

    REPORTED = "reported"
    BILLED = "billed"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


@light_dataclass(frozen=True, slots=True)
class Usage:
    """The model calls of a turn (or of its title) and how reliable their numbers are.

    No calls: LibreChat refused the question before it asked a model. `told_apart` says that each entry is one call;
    otherwise one entry holds the sum of all calls of the turn.
    """

    calls: tuple[ModelCall, ...]
    usage_source: UsageSource
    cost_source: CostSource
    told_apart: bool = True

    def cost_source_of(self, call: ModelCall) -> CostSource:
        """The source of the cost of one call."""
        if call.cost is None:
            return CostSource.UNKNOWN
        return CostSource.ESTIMATED if call.cost.guessed or call.miscounted else self.cost_source

    def usage_source_of(self, call: ModelCall) -> UsageSource:
        """The source of the tokens of one call."""
        if call.tokens is None:
            return UsageSource.UNKNOWN
        return UsageSource.ESTIMATED if call.miscounted else self.usage_source


NO_USAGE = Usage(
    (ModelCall(None, "message", None, None),), UsageSource.UNKNOWN, CostSource.UNKNOWN, told_apart=False
)
"""One call of which nothing is known."""
_REFUSED = Usage((), UsageSource.UNKNOWN, CostSource.UNKNOWN)


def resolve_turn_usage(
    response: Message,
    transactions: Sequence[Transaction],
    *,
    failed: bool,
    provider: str | None = None,
    others: Mapping[str | None, str] = _NO_OTHERS,
    context_tokens: int | None = None,
) -> Usage:
    """The usage of a turn; `transactions` are those of this response, in the order written.

    `failed` says that the turn was aborted or ended in an error: what LibreChat then charges is its own guess.
    `provider` is that of the saved agent; without one the endpoint names it. `others` are the providers of the models
    of further agents, see `providers_of`; for `context_tokens` see `is_own_count`.
    """
    own = [entry for entry in transactions if entry.context != TITLE_CONTEXT]
    if own and all(entry.context == _PLUGINS_CONTEXT for entry in own):
        # Until 0.7.8 the model that chose the plugins writes the answer too, unless another one is to complete it.
        own = [replace(entry, context="message") for entry in own]
    style = provider or response.endpoint or ""
    cache_in_input = counts_cache_in_input(response, own, style)
    clues = PairingClues(
        cache_in_input=cache_in_input,
        growing_count=None if response.says_temporary else response.token_count,
        opposite_models=counted_otherwise(response, own, others, cache_in_input=cache_in_input)
        if others
        else _NO_MODELS,
    )
    calls = pair_calls(own, PriceList(transactions), clues)
    if response.usage is not None:
        return _from_report(response.usage, calls, own)
    if calls:
        first = [entry for entry in own if entry.model not in others] if others else own
        by_itself = bool(first) and counted_by_itself(response, first, style)
        guessed = failed or by_itself or is_own_count(own, context_tokens)
        if others and not guessed:
            calls = tuple(
                replace(
                    call, miscounted=call.model in others and miscounts_model(response, own, call, others)
                )
                for call in calls
            )
        return _from_ledger(calls, guessed=guessed)
    if _is_refusal(response):
        return _REFUSED
    output = None if failed else _trusted_token_count(response, transactions)
    if output is None:
        return NO_USAGE
    call = ModelCall(None, "message", Tokens(None, output), None)
    return Usage((call,), UsageSource.OUTPUT_ONLY, CostSource.UNKNOWN, told_apart=False)


def resolve_title_usage(response: Message | None, transactions: Sequence[Transaction]) -> Usage | None:
    """The usage of the title generation among a response's transactions, None if there was none."""
    own = [entry for entry in transactions if entry.context == TITLE_CONTEXT]
    if not own:
        return None
    style = response.endpoint or "" if response is not None else ""
    clues = PairingClues(cache_in_input=response is not None and counts_cache_in_input(response, own, style))
    calls = pair_calls(own, PriceList(transactions), clues)
    guessed = response is not None and miscounts(response, own, style)
    return _from_ledger(calls, guessed=guessed) if calls else None


def resolve_spending(transactions: Sequence[Transaction]) -> Usage | None:
    """The usage of transactions that belong to no message, None where there are none."""
    calls = pair_calls(transactions, PriceList(transactions))
    return _from_ledger(calls, guessed=False) if calls else None


def is_last_run(report: ReportedUsage, transactions: Sequence[Transaction]) -> bool:
    """Whether a report is that of the last calls among these rows, or of all of them."""
    calls = pair_calls(transactions, PriceList(transactions))
    whole = Tokens(report.input, report.output, report.cache_read, report.cache_write)
    return any(_agree(calls[first:], whole, report.cost) for first in range(len(calls)))


def _from_ledger(calls: tuple[ModelCall, ...], *, guessed: bool) -> Usage:
    """A cost of guessed tokens is a guess too."""
    source = UsageSource.ESTIMATED if guessed else UsageSource.BILLED
    cost_source = _cost_source(calls)
    if guessed and cost_source is CostSource.BILLED:
        cost_source = CostSource.ESTIMATED
    return Usage(calls, source, cost_source)


def _from_report(report: ReportedUsage, calls: tuple[ModelCall, ...], own: Sequence[Transaction]) -> Usage:
    whole = Tokens(report.input, report.output, report.cache_read, report.cache_write)
    confirmed = _confirmed(calls, whole, report.cost)
    if confirmed is not None:
        billed = _cost_source(confirmed)
        reported = report.cost is not None and billed is not CostSource.ESTIMATED
        return Usage(confirmed, UsageSource.REPORTED, CostSource.REPORTED if reported else billed)
    if any(_agree(calls[first:], whole, report.cost) for first in range(1, len(calls))):
        # A later run wrote into the row ("Continue" over the API), and the report is of that run alone.
        return _from_ledger(calls, guessed=False)
    if report.cost is None:
        cost, cost_source = add_costs(call.cost for call in calls), _cost_source(calls)
    else:
        guessed = _is_guessed(report, own)
        cost = Cost(report.cost, guessed=guessed)
        cost_source = CostSource.ESTIMATED if guessed else CostSource.REPORTED
    models = {call.model for call in calls if call.context == "message"}
    model = models.pop() if len(models) == 1 else None
    call = ModelCall(model, "message", whole, cost)
    return Usage((call,), UsageSource.REPORTED, cost_source, told_apart=False)


def _confirmed(
    calls: tuple[ModelCall, ...], whole: Tokens, reported_cost: float | None
) -> tuple[ModelCall, ...] | None:
    """The calls, where ledger and report agree; a batch that was written twice is taken once.

    Sub-agents and labels that outlast the answer are charged after it was reported: what the rows have besides is
    theirs, and is kept.
    """
    if not calls:
        return None
    half = len(calls) // 2
    if half and calls[:half] == calls[half:] and _agree(calls[:half], whole, reported_cost):
        return calls[:half]
    if _agree(calls, whole, reported_cost):
        return calls
    later = [place for place, call in enumerate(calls) if call.context not in ANSWERING_CONTEXTS]
    for left_out in range(1, len(later) + 1):
        outlasting = frozenset(later[len(later) - left_out :])
        if _agree(
            [call for place, call in enumerate(calls) if place not in outlasting], whole, reported_cost
        ):
            return calls
    return None


def _agree(calls: Sequence[ModelCall], whole: Tokens, reported_cost: float | None) -> bool:
    if not calls or total_tokens(calls) != whole:
        return False
    if reported_cost is None:
        return True
    billed = add_costs([call.cost for call in calls])
    return billed is not None and math.isclose(reported_cost, billed.total, rel_tol=1e-6)


def _is_guessed(report: ReportedUsage, own: Sequence[Transaction]) -> bool:
    """Whether a reported cost is LibreChat's default price: its ledger says so, or the number alone."""
    prices = PriceList(own)
    if own:
        return any(prices.is_guessed(entry.model) for entry in own)
    guess = guess_of((report.input, report.output, report.cache_read, report.cache_write))
    return report.cost is not None and guess > 0 and math.isclose(report.cost, guess, rel_tol=1e-6)


def _cost_source(calls: Sequence[ModelCall]) -> CostSource:
    known = False
    for call in calls:
        if call.cost is not None:
            known = True
            if not call.cost.guessed:
                return CostSource.BILLED
    return CostSource.ESTIMATED if known else CostSource.UNKNOWN


def _is_refusal(response: Message) -> bool:
    """Whether LibreChat refused the question itself (moderation, a limit, a missing key), and no model was called.

    Such a row is an error whose text is a JSON document that names the reason as its `type`.
    """
    wrote = any(isinstance(part, TextPart) and part.text for part in response.parts)
    if not response.error or wrote or response.text is None:
        return False
    reason = decode_json(response.text)
    return isinstance(reason, dict) and isinstance(reason.get("type"), str)


def _trusted_token_count(response: Message, transactions: Sequence[Transaction]) -> int | None:
    """`tokenCount`, unless it is the title's: LibreChat stores that one when the answer came without usage."""
    title = sum(entry.tokens for entry in transactions if entry.token_type == "completion")
    if response.token_count is None or response.token_count == title:
        return None
    return response.token_count
