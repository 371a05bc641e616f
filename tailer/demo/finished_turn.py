"""What a person wants to know of a turn at a glance, read from the trace that was acknowledged.

Owns which numbers of a trace are added up and how far they can be trusted. Refuses to know how they look on a
terminal, and to read anything but the trace: what Langfuse or the file got is what is shown.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tailer.core.observations import Observation, ObservationType, Trace
from tailer.core.trace import TITLE_TRACE_NAME
from tailer.core.usage import CostSource, UsageSource

UNKNOWN_OUTCOME: Final = "unknown"
# The recordings were made with a simulated model that takes its orders in double brackets.
_MODEL_ORDER: Final = re.compile(r"\[\[.*?\]\]")

_MCP_MARK: Final = "_mcp_"
"""LibreChat puts this and the server's name behind the name of a tool that a server gives (MCP)."""
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Spending:
    """Tokens (cached ones included) and cost in USD; None where nobody told."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    tokens_estimated: bool = False
    cost_estimated: bool = False


@dataclass(frozen=True, slots=True)
class FinishedTurn:
    """One line of the demo. `took_seconds` is from the question to the end of the answer, as LibreChat stored it."""

    who: str
    models: tuple[str, ...]
    spending: Spending
    took_seconds: float
    outcome: str
    tools: tuple[str, ...]
    question: str


def is_title(trace: Trace) -> bool:
    """Whether the trace is the generation of a conversation's title and no turn."""
    return trace.name == TITLE_TRACE_NAME


def read_turn(trace: Trace, names: Mapping[str, str]) -> FinishedTurn:
    """The turn that a trace shows; `names` are users' names by id."""
    root = trace.root
    user = trace.user_id or ""
    calls = list(generations(trace))
    models = dict.fromkeys(name for name in map(model_name, calls) if name is not None)
    tools = [
        item.name.partition(_MCP_MARK)[0] for item in trace.observations if item.type is ObservationType.TOOL
    ]
    return FinishedTurn(
        who=names.get(user, user),
        models=tuple(models),
        spending=add_spending(calls),
        took_seconds=(root.end_milliseconds - root.start_milliseconds) / 1000,
        outcome=trace.metadata.get("outcome", UNKNOWN_OUTCOME),
        tools=tuple(dict.fromkeys(tools)),
        question=_MODEL_ORDER.sub(" ", root.input).strip() if isinstance(root.input, str) else "",
    )


def generations(trace: Trace) -> Iterator[Observation]:
    """The model calls of a trace."""
    return (item for item in trace.observations if item.type is ObservationType.GENERATION)


def model_name(call: Observation) -> str | None:
    """The model of a call; of one without numbers the name stands in the metadata only."""
    return call.model or call.metadata.get("model")


def add_spending(calls: Sequence[Observation]) -> Spending:
    """What the calls took together; a number that no call tells stays unknown."""
    return Spending(
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
