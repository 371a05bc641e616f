"""Asks the destination once for something that may be repeated. What it does not accept is tried again later.

A lane never repeats a request until it succeeds. The entry goes back to the backlog for a while, so that an entry that
fails again and again does not stop the others of its kind.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from tailer.core.stream.open_turns import EntryKey
from tailer.core.trace.followup import FollowupOperation
from tailer.events import Emit, FollowupFailed, FollowupRetried
from tailer.flow.lanes.setbacks import Setbacks, Waiting
from tailer.flow.sending.destination_health import Channel, DestinationHealth
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Refused, Retry, Unknown


class Asking:
    """One lane's way to a destination."""

    def __init__(self, channel: Channel, health: DestinationHealth, setbacks: Setbacks, emit: Emit) -> None:
        self._channel = channel
        self._health = health
        self._setbacks = setbacks
        self._emit = emit
        self._pause_seconds = 0.0

    async def ask(
        self, key: EntryKey, operation: FollowupOperation, call: Callable[[], Awaitable[DeliveryOutcome]]
    ) -> Waiting | None:
        """None once it is settled: accepted, or refused for good and reported. Otherwise how long it waits for the next
        try."""
        outcome = await call()
        self._health.note(self._channel, outcome)
        if isinstance(outcome, Retry | Refused | Unknown):
            waiting = self._setbacks.add(key, outcome)
            self._pause_seconds = self._setbacks.add(self._channel, outcome).wait_seconds
            if not isinstance(outcome, Refused):
                # The health of the destination reports once that keys are refused.
                self._emit(FollowupRetried(operation, outcome.reason, waiting.tries, waiting.wait_seconds))
            return waiting
        self._setbacks.clear(key)
        self._setbacks.clear(self._channel)
        if not isinstance(outcome, Delivered):
            self._emit(FollowupFailed(operation))
        return None

    @property
    def pause_seconds(self) -> float:
        """How long to wait, as the last answers suggest."""
        return self._pause_seconds


async def pause(turned_away: Iterable[Asking]) -> None:
    """Wait until one of these destinations may accept something again; not at all where there is none."""
    await asyncio.sleep(min((asking.pause_seconds for asking in turned_away), default=0.0))
