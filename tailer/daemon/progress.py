"""Tells people who read the log that it works: the first turn that was sent, and totals now and then.

A quiet log of a healthy daemon and of one that reads nothing look alike otherwise.
"""

from collections.abc import Callable
from typing import Final

from tailer.core.turn.entry_outcomes import DENIED_OUTCOMES, UNREAD_OUTCOMES, EntryOutcome
from tailer.events import (
    Emit,
    Event,
    FirstTurnSent,
    LeaseTaken,
    Started,
    TraceRejected,
    TracesDelivered,
    TurnDone,
    TurnFailed,
    TurnsSent,
)

TOLD_EVERY_SECONDS: Final = 300.0
"""Often enough for the first hour, and less than 300 lines a day."""
_LEFT_OUT: Final = frozenset(
    {
        EntryOutcome.COPIED,
        EntryOutcome.TEMPORARY,
        EntryOutcome.TRACED_NATIVELY,
        EntryOutcome.NOT_SAMPLED,
        *DENIED_OUTCOMES,
        *UNREAD_OUTCOMES,
    }
)


class Progress:
    """Counts what the events of a run say of turns. `monotonic` in seconds."""

    def __init__(self, emit: Emit, *, monotonic: Callable[[], float]) -> None:
        self._emit = emit
        self._monotonic = monotonic
        self._writes_to = ""
        self._is_first = True
        self._told_seconds = monotonic()
        self._total = self._traces = self._left_out = self._dead_letters = 0

    def record(self, event: Event) -> None:
        """Count an event; the first acknowledged traces of a term are reported at once."""
        match event:
            case Started():
                self._writes_to = event.writes_to
            case LeaseTaken():
                self._is_first = True
                self._told_seconds = self._monotonic()
            case TracesDelivered() if event.traces:
                self._count_delivered(event)
            case TurnDone() if event.outcome in _LEFT_OUT:
                self._left_out += event.count
            case TraceRejected() | TurnFailed():
                self._dead_letters += 1
            case _:
                pass

    def beat(self) -> None:
        """Tell totals when it is time for them."""
        if self._monotonic() - self._told_seconds >= TOLD_EVERY_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Tell what happened since the last time; nothing where there was nothing."""
        now = self._monotonic()
        if self._traces or self._left_out or self._dead_letters:
            self._emit(
                TurnsSent(
                    traces=self._traces,
                    left_out=self._left_out,
                    dead_letters=self._dead_letters,
                    within_seconds=round(now - self._told_seconds),
                    traces_since_start=self._total,
                )
            )
        self._told_seconds = now
        self._traces = self._left_out = self._dead_letters = 0

    def _count_delivered(self, event: TracesDelivered) -> None:
        self._traces += event.traces
        self._total += event.traces
        if self._is_first:
            self._is_first = False
            latency = round(min(event.latencies_seconds), 1) if event.latencies_seconds else None
            self._emit(FirstTurnSent(event.traces, latency, self._writes_to))
