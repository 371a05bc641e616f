"""Model calls out of ledger rows: which prompt and which completion make one call, whatever order they stand in.

Since 0.8.3 the rows of a call stand together, prompt first. Before, LibreChat did not wait for its writes: the prompts
of a turn come first, in the order of the calls, and the completions follow in any order. Every row is counted once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations

from tailer.core.librechat.agent_ids import AGENT_PREFIX
from tailer.core.librechat.transactions import STOPPED_CONTEXTS, Transaction
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.costs import Cost, PriceList, add_costs
from tailer.core.turn.second_bills import find_second_bills

_LONGEST_PUZZLE = 6
"""This many calls are tried in every order; with more, calls are paired as they are stored."""
_REASONING_CONTEXT = "reasoning"
"""Until 0.7.8 the reasoning of a call was charged in a row of its own, without a prompt."""


@light_dataclass(frozen=True, slots=True)
class Tokens:
    """Exclusive buckets: `input` without cache. None if unknown."""

    input: int | None
    output: int | None
    cache_read: int = 0
    cache_write: int = 0


@light_dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model. `paired_by_order` says that another completion of the turn may be this call's;
    `billed_twice` that LibreChat charged the call a second time, which is left out here; `miscounted` that LibreChat
    charges otherwise than this call's provider counts."""

    model: str | None
    context: str
    tokens: Tokens | None
    cost: Cost | None
    paired_by_order: bool = False
    billed_twice: bool = False
    miscounted: bool = False


@light_dataclass(frozen=True, slots=True)
class PairingClues:
    """What else is known of the calls. `cache_in_input`: `inputTokens` holds the cached tokens too (until 0.8.5);
    `opposite_models` are those for which the contrary is true. `growing_count`: the response's `tokenCount`, which
    until 0.8.0 tells the order of the completions."""

    cache_in_input: bool = False
    growing_count: int | None = None
    opposite_models: frozenset[str | None] = frozenset()


_NO_CLUES = PairingClues()


def pair_calls(
    transactions: Sequence[Transaction], prices: PriceList, clues: PairingClues = _NO_CLUES
) -> tuple[ModelCall, ...]:
    """The calls that the rows describe, in the order of their first rows; rows of no tokens are no call."""
    if not transactions:
        return ()
    rows = _without_guesses(transactions)
    twice = find_second_bills(rows)
    if twice:
        rows = [row for place, row in enumerate(rows) if place not in twice]
    places: dict[tuple[str | None, str], list[int]] = {}
    for place, row in enumerate(rows):
        group = (row.model, row.context)
        if group in places:
            places[group].append(place)
        else:
            places[group] = [place]
    # The stored count is that of all calls together: it tells nothing of the calls of one model among several.
    alone = len(places) == 1
    had_guess = alone and len(rows) + len(twice) < len(transactions)
    known = clues if alone else PairingClues(clues.cache_in_input, None, clues.opposite_models)
    pairs: list[tuple[int, ModelCall]] = []
    for members in places.values():
        for run in _runs(rows, members):
            pairs += _pair_run(rows, run, prices, known, had_guess=had_guess)
    if len(pairs) > 1:
        pairs.sort(key=_place_of)
    calls = [call for _, call in pairs if _says_something(call)]
    if twice:
        calls = [replace(call, billed_twice=True) if _uses_cache(call) else call for call in calls]
    return tuple(_without_second_bill(_with_reasoning(calls)))


def total_tokens(calls: Sequence[ModelCall]) -> Tokens:
    """The sum of the calls; what no call tells counts as nothing."""
    sent, output, cache_read, cache_write = 0, 0, 0, 0
    for call in calls:
        tokens = call.tokens
        if tokens is not None:
            sent += tokens.input or 0
            output += tokens.output or 0
            cache_read += tokens.cache_read
            cache_write += tokens.cache_write
    return Tokens(sent, output, cache_read, cache_write)


def names_agent(model: str | None) -> bool:
    """Whether a row has a saved agent's id in place of a model: LibreChat counted those tokens itself."""
    return model is not None and model.startswith(AGENT_PREFIX)


def _without_guesses(transactions: Sequence[Transaction]) -> list[Transaction]:
    """Beside rows that name a model, those that name an agent are a second count of the same calls (until 0.8.2)."""
    named = [row for row in transactions if row.model is None or not row.model.startswith(AGENT_PREFIX)]
    return named or list(transactions)


def _uses_cache(call: ModelCall) -> bool:
    return call.tokens is not None and bool(call.tokens.cache_read or call.tokens.cache_write)


def _place_of(pair: tuple[int, ModelCall]) -> int:
    return pair[0]


def _runs(rows: Sequence[Transaction], places: Sequence[int]) -> Iterator[list[int]]:
    """Some prompts and the completions that follow them, until the next prompt."""
    run: list[int] = []
    for place in places:
        begins = rows[place].token_type == "prompt" and run and rows[run[-1]].token_type != "prompt"
        if begins:
            yield run
            run = []
        run.append(place)
    if run:
        yield run


def _pair_run(
    rows: Sequence[Transaction],
    run: Sequence[int],
    prices: PriceList,
    clues: PairingClues,
    *,
    had_guess: bool,
) -> list[tuple[int, ModelCall]]:
    prompts: list[int] = []
    completions: list[int] = []
    for place in run:
        (prompts if rows[place].token_type == "prompt" else completions).append(place)
    certain = len(prompts) <= 1 or not completions
    if len(prompts) == len(completions) > 1:
        solved = _solve(rows, prompts, completions, clues.growing_count, had_guess=had_guess)
        certain, completions = solved is not None, solved or completions
    # A structured completion of no tokens is never written: the missing ones are those of the first prompts.
    missing = max(0, len(prompts) - len(completions))
    calls: list[tuple[int, ModelCall]] = []
    for number, place in enumerate(prompts):
        completion = rows[completions[number - missing]] if number >= missing else None
        calls.append((place, _make_call(rows[place], completion, prices, clues, certain=certain)))
    calls += [
        (place, _make_call(None, rows[place], prices, clues, certain=certain))
        for place in completions[len(prompts) :]
    ]
    return calls


def _solve(
    rows: Sequence[Transaction],
    prompts: Sequence[int],
    completions: Sequence[int],
    counted: int | None,
    *,
    had_guess: bool,
) -> list[int] | None:
    """The completions in the order of the prompts, None where that cannot be told.

    Until 0.8.0 LibreChat counts the output of a turn as the growth of the prompts and the last answer. Only one order
    gives the count that it stored. Where the result is below one it counts again by itself, which is the guess.
    """
    outputs = [rows[place].tokens for place in completions]
    if len(set(outputs)) == 1:
        return list(completions)
    informs = had_guess or (counted is not None and counted != sum(outputs))
    if not informs or len(prompts) > _LONGEST_PUZZLE:
        return None
    inputs = [rows[place].tokens for place in prompts]
    found: dict[tuple[int, ...], list[int]] = {}
    for order in permutations(completions):
        chosen = [rows[place].tokens for place in order]
        result = _count_by_growth(inputs, chosen)
        if result < 1 if had_guess else result == counted:
            found.setdefault(tuple(chosen), list(order))
    return next(iter(found.values())) if len(found) == 1 else None


def _count_by_growth(inputs: Sequence[int], outputs: Sequence[int]) -> int:
    counted, known = outputs[0], inputs[0] + outputs[0]
    for prompt, output in zip(inputs[1:], outputs[1:], strict=True):
        counted += prompt - known + output
        known += output
    return counted


def _make_call(
    prompt: Transaction | None,
    completion: Transaction | None,
    prices: PriceList,
    clues: PairingClues,
    *,
    certain: bool,
) -> ModelCall:
    row = prompt or completion
    assert row is not None  # noqa: S101 - a call is made of rows
    input_tokens, cache_read, cache_write = None, 0, 0
    if prompt is not None:
        cache_read, cache_write = prompt.read_tokens or 0, prompt.write_tokens or 0
        input_tokens = prompt.tokens if prompt.input_tokens is None else prompt.input_tokens
        holds_cache = clues.cache_in_input != (prompt.model in clues.opposite_models)
        if holds_cache and prompt.input_tokens is not None and cache_read <= input_tokens:
            input_tokens -= cache_read
    output = completion.tokens if completion is not None else None
    if output is None and prompt is not None and prompt.input_tokens is not None:
        output = 0
    return ModelCall(
        model=None if names_agent(row.model) else row.model,
        context=row.context,
        tokens=Tokens(input_tokens, output, cache_read, cache_write),
        cost=prices.price(prompt, completion),
        paired_by_order=not certain,
    )


def _says_something(call: ModelCall) -> bool:
    tokens = call.tokens
    return tokens is not None and bool(
        tokens.input or tokens.output or tokens.cache_read or tokens.cache_write
    )


def _with_reasoning(calls: Sequence[ModelCall]) -> list[ModelCall]:
    """The calls, with the separately charged reasoning."""
    if all(call.context != _REASONING_CONTEXT for call in calls):
        return list(calls)
    kept: list[ModelCall] = []
    for call in sorted(calls, key=lambda call: call.context == _REASONING_CONTEXT):
        place = next(
            (at for at in reversed(range(len(kept))) if kept[at].model == call.model),
            None,
        )
        if call.context != _REASONING_CONTEXT or place is None:
            kept.append(call)
            continue
        whole, more = kept[place].tokens, call.tokens
        assert whole is not None and more is not None  # noqa: S101, PT018 - calls without tokens are gone
        tokens = replace(whole, output=(whole.output or 0) + (more.output or 0))
        kept[place] = replace(kept[place], tokens=tokens, cost=add_costs([kept[place].cost, call.cost]))
    return kept


def _without_second_bill(calls: Sequence[ModelCall]) -> list[ModelCall]:
    """Until 0.8.1 a stopped call is charged at the stop and again when it ended: two guesses at one call."""
    stopped = {call.model for call in calls if call.context in STOPPED_CONTEXTS}
    twice = {call.model for call in calls if call.context == "message" and call.model in stopped}
    if not twice:
        return list(calls)
    return [
        replace(call, billed_twice=True) if call.context == "message" and call.model in twice else call
        for call in calls
        if call.context not in STOPPED_CONTEXTS or call.model not in twice
    ]
