"""The last acknowledged traces in bounded memory, as trees that a page can show.

Owns what the page shows of a trace: never the user or the conversation, and texts only if the operator chose to show
them, and then only what the content policy leaves. Refuses to compute what the trace does not say.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from tailer.core.json_text import encode_json
from tailer.core.policy.policies import TracesShown
from tailer.core.trace.observations import Observation, Trace
from tailer.core.trace.totals import Totals, add_totals, generations, model_name

_MOST_TRACES: Final = 15
_MOST_OBSERVATIONS: Final = 40
_MOST_CHARACTERS: Final = 1_500
"""The length of one text: enough to recognise a turn. With the other two limits it is a few megabytes at the very most.
"""
_TEXTS: Final = ("input", "output", "status")

View: TypeAlias = dict[str, Any]
"""JSON-like."""


class RecentTraces:
    """The views of the traces that were acknowledged last."""

    def __init__(self, shown: TracesShown) -> None:
        self._shown = shown
        self._views: deque[View] = deque(maxlen=_MOST_TRACES)

    @property
    def shown(self) -> TracesShown:
        """What is shown of them."""
        return self._shown

    def add(self, traces: Sequence[Trace]) -> None:
        """Keep the views of traces, the latest last. Of many traces at once, only those that will be shown are read."""
        if self._shown is not TracesShown.NONE:
            with_text = self._shown is TracesShown.CONTENT
            self._views.extend(view_trace(trace, with_text=with_text) for trace in traces[-_MOST_TRACES:])

    def newest_first(self) -> list[View]:
        """What is kept."""
        return [*reversed(self._views)]


def view_trace(trace: Trace, *, with_text: bool) -> View:
    """A trace as a tree, without its user and its session; `with_text` adds what the content policy leaves."""
    root = trace.root
    shown = trace.observations[:_MOST_OBSERVATIONS]
    calls = list(generations(trace))
    models = dict.fromkeys(name for name in map(model_name, calls) if name is not None)
    return {
        "id": trace.record_id,
        "trace_id": trace.id,
        "name": trace.name,
        "outcome": trace.metadata.get("outcome"),
        "ended_at": root.end_milliseconds / 1000,
        "duration_seconds": _duration(root),
        "models": [*models],
        **_spending(add_totals(calls)),
        "observations_left_out": len(trace.observations) - len(shown),
        "root": _tree(shown, with_text=with_text),
    }


def _tree(observations: Sequence[Observation], *, with_text: bool) -> View:
    """The root with its children. An observation whose parent has not come before it belongs to the root."""
    views = {item.id: _view(item, with_text=with_text) for item in observations}
    root, *others = observations
    placed = {root.id}
    for item in others:
        parent = item.parent_id if item.parent_id in placed else root.id
        if item.id not in placed:
            views[parent]["children"].append(views[item.id])
            placed.add(item.id)
    return views[root.id]


def _view(item: Observation, *, with_text: bool) -> View:
    totals = add_totals([item])
    view: View = {
        "type": item.type.value,
        "name": item.name,
        "level": item.level.value,
        "model": model_name(item),
        "duration_seconds": _duration(item),
        **_spending(totals),
        "children": [],
    }
    if with_text:
        texts = (_readable(item.input), _readable(item.output), item.status_message)
        view.update({name: cut(text) for name, text in zip(_TEXTS, texts, strict=True) if text})
    return view


def _spending(totals: Totals) -> View:
    return {
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "tokens_estimated": totals.tokens_estimated,
        "cost_usd": totals.cost,
        "cost_estimated": totals.cost_estimated,
    }


def _duration(item: Observation) -> float | None:
    """The duration. LibreChat stores few of them; a length of 0 is an unknown duration."""
    lasts = item.end_milliseconds - item.start_milliseconds
    return lasts / 1000 if lasts > 0 else None


def _readable(value: object) -> str | None:
    """A text as it is; the text of a model's message; only the length of a whole chat, because the root shows the
    rest."""
    match value:
        case None:
            return None
        case str():
            return value
        case Mapping():
            text = value.get("content")
            return text if isinstance(text, str) and text else encode_json(value)
        case [Mapping(), *_]:
            return (
                f"{len(value)} messages: the conversation so far" if len(value) > 1 else _readable(value[0])
            )
        case _:
            return encode_json(value)


def cut(text: str) -> str:
    """A text, cut to a length that a page can show."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"
