"""What the demo tells at its end: how many turns of which kind, what they took, and how soon their traces were there.

Owns the counting. Refuses to hold traces: it goes on for days with `--keep`.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tailer.core.trace.observations import Trace
from tailer.core.trace.totals import Totals, add_totals, generations, model_name
from tailer.demo.display import format_dollars, label
from tailer.demo.finished_turn import FinishedTurn

_NO_MODEL: Final = "(unknown)"
_MOST_DELAYS: Final = 10_000


@dataclass(slots=True)
class ModelTotal:
    """Calls of one model, with the tokens and USD that are known."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def add(self, spending: Totals) -> None:
        """Count one call."""
        self.calls += 1
        self.input_tokens += spending.input_tokens or 0
        self.output_tokens += spending.output_tokens or 0
        self.cost += spending.cost or 0.0


class Summary:
    """The counts of one demo; `delays` are of the last turns only."""

    def __init__(self, *, settle_seconds: float) -> None:
        self.outcomes: Counter[str] = Counter()
        self.titles = 0
        self.models: dict[str, ModelTotal] = {}
        self.turns_estimated = 0
        self.turns_unknown = 0
        self.lost = 0
        self._settle_seconds = settle_seconds
        self.lag_seconds = 0.0
        self.delays: deque[float] = deque(maxlen=_MOST_DELAYS)

    @property
    def turns(self) -> int:
        """How many turns were acknowledged."""
        return self.outcomes.total()

    @property
    def traces(self) -> int:
        """How many traces were acknowledged."""
        return self.turns + self.titles

    def add_turn(self, turn: FinishedTurn, trace: Trace, delay_seconds: float) -> None:
        """Count a turn; the delay is from the end of its answer to the acknowledgement of its trace."""
        self.outcomes[turn.outcome] += 1
        self.turns_estimated += turn.spending.tokens_estimated
        self.turns_unknown += turn.spending.input_tokens is None
        self.delays.append(delay_seconds)
        self._add_calls(trace)

    def add_title(self, trace: Trace) -> None:
        """Count the generation of a title."""
        self.titles += 1
        self._add_calls(trace)

    def lines(self) -> list[str]:
        """The summary, without where the traces are."""
        if not self.turns:
            return [label("turns", "none was finished")]
        kinds = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        total = ModelTotal(
            calls=sum(model.calls for model in self.models.values()),
            input_tokens=sum(model.input_tokens for model in self.models.values()),
            output_tokens=sum(model.output_tokens for model in self.models.values()),
            cost=sum(model.cost for model in self.models.values()),
        )
        lines = [
            label("turns", f"{self.turns} acknowledged: {kinds}"),
            label("titles", f"{self.titles} generated titles, each a trace of its own and counted below"),
            *_spending_table(self.models, total),
        ]
        if self.turns_estimated or self.turns_unknown:
            doubts = (
                f"estimated by LibreChat for {self.turns_estimated} turns, unknown for {self.turns_unknown}"
            )
            lines.append(label("", f"tokens: {doubts}"))
        median, late = percentile(self.delays, 0.5), percentile(self.delays, 0.95)
        lines += [
            label(
                "delay",
                f"{median:.1f} s median, {late:.1f} s p95 from finished answer to acknowledged trace;",
            ),
            label(
                "",
                f"{self._settle_seconds:g} s of it wait for LibreChat's last writes (TAILER_SETTLE_SECONDS)",
            ),
            label("lag", f"less than {self.lag_seconds + 1:g} s behind MongoDB while reading its changes"),
        ]
        if self.lost:
            lines.append(label("lost", f"{self.lost} could not be built or were refused; the log says why"))
        return lines

    def _add_calls(self, trace: Trace) -> None:
        for call in generations(trace):
            self.models.setdefault(model_name(call) or _NO_MODEL, ModelTotal()).add(add_totals([call]))


def percentile(values: Sequence[float] | deque[float], share: float) -> float:
    """The least value that is not below this share of all values, which are at least one."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _spending_table(models: dict[str, ModelTotal], total: ModelTotal) -> list[str]:
    dearest_first = sorted(models.items(), key=lambda pair: pair[1].cost, reverse=True)
    rows = [("model", "calls", "in", "out", "cost")]
    rows += [
        (
            name,
            str(each.calls),
            f"{each.input_tokens:,}",
            f"{each.output_tokens:,}",
            format_dollars(each.cost),
        )
        for name, each in [*dearest_first, ("together", total)]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{row[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return [label("cost" if number == 0 else "", line) for number, line in enumerate(lines)]
