"""What the models were used for: turns, tokens, cost and tool calls of acknowledged traces, if the operator asks for
it.

An observation is sent once, so it counts once. A later edit sends no model call again.
"""

from collections.abc import Sequence
from typing import Final

from tailer.core.trace.build import TURN_TRACE_NAME
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.core.trace.spending import SPENDING_TRACE_NAME
from tailer.core.trace.totals import model_name
from tailer.metrics import usage_catalogue
from tailer.metrics.instruments import Instruments
from tailer.metrics.labels import COST_SOURCE, TOKEN_BUCKET
from tailer.printable import escape_unprintable

_OTHER: Final = "other"
_UNKNOWN: Final = "unknown"
_API: Final = "api"
"""The endpoint of calls of LibreChat's remote API, which store none."""
_MOST_CHARACTERS: Final = 64


class Usage:
    """Counts traces. Others write what becomes a label, so each value is cut and the number of values is bounded."""

    def __init__(self, instruments: Instruments, *, most_values: int) -> None:
        self._turns = instruments.counter(usage_catalogue.LLM_TURNS)
        self._tokens = instruments.counter(usage_catalogue.LLM_TOKENS)
        self._cost = instruments.counter(usage_catalogue.LLM_COST)
        self._tool_calls = instruments.counter(usage_catalogue.LLM_TOOL_CALLS)
        self._overflow = instruments.counter(usage_catalogue.LABEL_OVERFLOW)
        self._most_values = most_values
        self._known: dict[str, set[str]] = {"endpoint": set(), "model": set(), "tool": set()}

    def count(self, traces: Sequence[Trace]) -> None:
        """Count acknowledged traces; a title counts as model calls without a turn."""
        # A title names no endpoint. It has the endpoint of the turn beside it, which belongs to the same message.
        named = {
            trace.message_id: trace.metadata["endpoint"] for trace in traces if "endpoint" in trace.metadata
        }
        for trace in traces:
            self._count(trace, named.get(trace.message_id))

    def _count(self, trace: Trace, named: str | None) -> None:
        endpoint = self._bounded("endpoint", _API if trace.name == SPENDING_TRACE_NAME else named)
        models = []
        for item in trace.observations:
            if item.type is ObservationType.GENERATION:
                model = self._bounded("model", model_name(item))
                models.append(model)
                self._count_call(item, endpoint, model)
            elif item.type is ObservationType.TOOL:
                outcome = "error" if item.level is Level.ERROR else "ok"
                self._tool_calls.labels(self._bounded("tool", item.name), outcome).inc()
        ended = trace.metadata.get("outcome")
        if trace.name == TURN_TRACE_NAME and trace.piece is None and ended is not None:
            self._turns.labels(endpoint, models[0] if models else _UNKNOWN, ended).inc()

    def _count_call(self, call: Observation, endpoint: str, model: str) -> None:
        for bucket, count in (call.usage or {}).items():
            self._tokens.labels(endpoint, model, TOKEN_BUCKET.fit(bucket)).inc(max(0, count))
        if call.cost is not None:
            source = call.metadata.get("cost_source", _UNKNOWN)
            self._cost.labels(endpoint, model, COST_SOURCE.fit(source)).inc(
                max(0.0, call.cost.get("total", 0.0))
            )

    def _bounded(self, label: str, value: str | None) -> str:
        if not value:
            return _UNKNOWN
        shown, known = escape_unprintable(value[:_MOST_CHARACTERS]), self._known[label]
        if shown in known:
            return shown
        if len(known) < self._most_values:
            known.add(shown)
            return shown
        self._overflow.labels(label).inc()
        return _OTHER
