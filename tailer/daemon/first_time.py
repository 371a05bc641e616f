"""Shows each acknowledged trace once, however many destinations acknowledge it."""

from collections.abc import Callable, Sequence
from typing import Final

from cachetools import LRUCache

from tailer.core.trace.observations import Trace

_REMEMBERED: Final = 20_000
"""Traces that were shown. One that is acknowledged again much later, by a destination that was away, counts twice."""


class FirstTime:
    """An observer of traces in front of another one."""

    def __init__(self, observe: Callable[[Sequence[Trace]], None]) -> None:
        self._observe = observe
        self._shown: LRUCache[str, bool] = LRUCache(_REMEMBERED)

    def __call__(self, traces: Sequence[Trace]) -> None:
        """Pass on the traces that were not shown before."""
        new = [trace for trace in traces if trace.record_id not in self._shown]
        for trace in new:
            self._shown[trace.record_id] = True
        if new:
            self._observe(new)
