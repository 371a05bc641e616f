"""What the model calls of a trace used together, and how reliable those numbers are."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tailer.core.trace.observations import Observation, ObservationType, Trace
from tailer.core.turn.usage import CostSource, UsageSource

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Totals:
    """Tokens (cached ones included) and cost in USD; None if unknown."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    tokens_estimated: bool = False
    cost_estimated: bool = False


def generations(trace: Trace) -> Iterator[Observation]:
    """The model calls of a trace."""
    return (item for item in trace.observations if item.type is ObservationType.GENERATION)


def model_name(call: Observation) -> str | None:
    """The model of a call; if the call has no numbers, the metadata has the name."""
    return call.model or call.metadata.get("model")


def add_totals(calls: Sequence[Observation]) -> Totals:
    """What the calls used together. A number that no call states stays unknown."""
    return Totals(
        input_tokens=_add(_bucket(call, "input") for call in calls),
        output_tokens=_add(_bucket(call, "output") for call in calls),
        cost=_add(call.cost.get("total") if call.cost is not None else None for call in calls),
        tokens_estimated=any(call.metadata.get("usage_source") == UsageSource.ESTIMATED for call in calls),
        cost_estimated=any(call.metadata.get("cost_source") == CostSource.ESTIMATED for call in calls),
    )


def _bucket(call: Observation, prefix: str) -> int | None:
    """The sum of the exclusive buckets of one direction: `input` and its cached parts, or `output`."""
    return _add(count for name, count in (call.usage or {}).items() if name.startswith(prefix))


def _add(numbers: Iterable[_Number | None]) -> _Number | None:
    known = [number for number in numbers if number is not None]
    return sum(known[1:], known[0]) if known else None
