"""What a call cost, by bucket where LibreChat's rows tell it.

A plain row has one price. A structured prompt stores one average price of three: input, cache written, cache read. They
can be told apart where only one of them was used, or where another row of the turn names the model's price of input.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from tailer.core.librechat.transactions import Transaction
from tailer.core.light_dataclass import light_dataclass

_MILLION = 1_000_000
_DEFAULT_RATE = 6.0
"""LibreChat's `defaultRate`: what it charges, both ways, for a model that it has no price for."""


@light_dataclass(frozen=True, slots=True)
class Cost:
    """USD. The buckets are those of the tokens, None where they are not known apart; then `total` alone is sure.
    `guessed` says that LibreChat has no price for the model and charged its default."""

    total: float
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    guessed: bool = False


_Split: TypeAlias = tuple[float | None, float | None, float | None]
"""What input, cache read and cache written cost of a prompt."""
_UNKNOWN: _Split = (None, None, None)


class PriceList:
    """The prices that the rows of a turn and its title name, by model, in USD for a million tokens."""

    __slots__ = ("_guessed", "_inputs")

    def __init__(self, transactions: Sequence[Transaction]) -> None:
        self._inputs: dict[str | None, float] = {}
        guessed: set[str | None] = set()
        priced: set[str | None] = set()
        for row in transactions:
            rate = row.rate
            (guessed if rate == _DEFAULT_RATE else priced).add(row.model)
            if rate is not None and row.token_type == "prompt" and row.input_tokens is None:
                self._inputs[row.model] = rate
        self._guessed = guessed - priced

    def is_guessed(self, model: str | None) -> bool:
        """Whether LibreChat has no price for a model."""
        return model in self._guessed

    def price(self, prompt: Transaction | None, completion: Transaction | None) -> Cost | None:
        """What the rows of one call cost together, None where neither names a cost."""
        row = prompt or completion
        asked = prompt.cost if prompt is not None else None
        answered = completion.cost if completion is not None else None
        if row is None or (asked is None and answered is None):
            return None
        sent, cache_read, cache_write = _UNKNOWN if prompt is None else self._split_prompt(prompt)
        return Cost(
            total=_round((asked or 0.0) + (answered or 0.0)),
            input=sent,
            output=None if answered is None else _round(answered),
            cache_read=cache_read,
            cache_write=cache_write,
            guessed=row.model in self._guessed,
        )

    def _split_prompt(self, prompt: Transaction) -> _Split:
        total = prompt.cost
        if total is None:
            return _UNKNOWN
        if prompt.input_tokens is None:
            return _round(total), None, None
        tokens = (prompt.input_tokens, prompt.read_tokens or 0, prompt.write_tokens or 0)
        used = sum(map(bool, tokens))
        if not used:
            return _round(total), None, None
        rate = self._inputs.get(prompt.model)
        if used > 1:
            if rate is None:
                return _UNKNOWN
            sent = tokens[0] * rate / _MILLION
            rest = total - sent
            if tokens[1] and tokens[2]:
                flat = math.isclose(total, sum(tokens) * rate / _MILLION, rel_tol=1e-6)
                read = tokens[1] * rate / _MILLION if flat else None
                return _round(sent), read, None if read is None else _round(rest - read)
            if rest < 0:
                return _UNKNOWN
        else:
            sent, rest = (total, 0.0) if tokens[0] else (0.0, total)
        return (
            _round(sent) if tokens[0] else None,
            _round(rest) if tokens[1] else None,
            _round(rest) if tokens[2] else None,
        )


def guess_of(tokens: Iterable[int]) -> float:
    """What LibreChat charges for so many tokens of a model that it has no price for."""
    return sum(tokens) * _DEFAULT_RATE / _MILLION


def add_costs(costs: Iterable[Cost | None]) -> Cost | None:
    """The sum of what is known; by bucket only where each cost is known by bucket."""
    known = [cost for cost in costs if cost is not None]
    if len(known) < 2:  # noqa: PLR2004 - nothing to add
        return known[0] if known else None
    total = _round(sum(cost.total for cost in known))
    guessed = any(cost.guessed for cost in known)
    if not all(_is_split(cost) for cost in known):
        return Cost(total, guessed=guessed)
    return Cost(
        total=total,
        input=_add([cost.input for cost in known]),
        output=_add([cost.output for cost in known]),
        cache_read=_add([cost.cache_read for cost in known]),
        cache_write=_add([cost.cache_write for cost in known]),
        guessed=guessed,
    )


def _is_split(cost: Cost) -> bool:
    buckets = _add([cost.input, cost.output, cost.cache_read, cost.cache_write]) or 0.0
    return math.isclose(buckets, cost.total, rel_tol=1e-6, abs_tol=1e-9)


def _add(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return _round(sum(known)) if known else None


def _round(dollars: float) -> float:
    """To the millionth of a millionth: what binary fractions add beyond that is not money."""
    return round(dollars, 12)
