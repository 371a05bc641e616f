"""What a person wants to know about a turn at a glance, read from the acknowledged trace.

Refuses to know how it looks on a terminal, and to read anything but the trace: it shows exactly what Langfuse or the
file received.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tailer.core.trace.build import TITLE_TRACE_NAME
from tailer.core.trace.observations import ObservationType, Trace
from tailer.core.trace.totals import Totals, add_totals, generations, model_name

UNKNOWN_OUTCOME: Final = "unknown"
# The recordings were made with a simulated model that takes its orders in double brackets.
_MODEL_ORDER: Final = re.compile(r"\[\[.*?\]\]")

_MCP_MARK: Final = "_mcp_"
"""LibreChat appends this and the name of the server to the name of a tool that an MCP server offers."""


@dataclass(frozen=True, slots=True)
class FinishedTurn:
    """One line of the demo. `took_seconds` is the time from the question to the end of the answer, as LibreChat stored
    it."""

    who: str
    models: tuple[str, ...]
    spending: Totals
    took_seconds: float
    outcome: str
    tools: tuple[str, ...]
    question: str


def is_title(trace: Trace) -> bool:
    """Whether the trace is the generation of a conversation's title instead of a turn."""
    return trace.name == TITLE_TRACE_NAME


def read_turn(trace: Trace, names: Mapping[str, str]) -> FinishedTurn:
    """The turn that a trace shows; `names` has the users' names by id."""
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
        spending=add_totals(calls),
        took_seconds=(root.end_milliseconds - root.start_milliseconds) / 1000,
        outcome=trace.metadata.get("outcome", UNKNOWN_OUTCOME),
        tools=tuple(dict.fromkeys(tools)),
        question=_MODEL_ORDER.sub(" ", root.input).strip() if isinstance(root.input, str) else "",
    )
