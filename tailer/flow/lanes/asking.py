"""Asks the destination once for something that may be repeated. What it does not accept is tried again later.

A lane never repeats a request until it succeeds. The entry goes back to the backlog for a while, so that an entry that
fails again and again does not stop the others of its kind. But it holds the position of its stream. So a score that is
refused again and again while others are accepted is given up: a firewall may take the words of a rating for an attack.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum

from tailer.core.stream.entries import EntryKey
from tailer.core.trace.followup import FollowupOperation
from tailer.events import Emit, FollowupFailed, FollowupRetried
from tailer.flow.lanes.setbacks import Setbacks, Waiting
from tailer.flow.sending.destination_health import Channel, DestinationHealth
from tailer.flow.sending.ordeal import TRIES, may_be_of_the_content
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Refused, Retry, Unknown, explain
from tailer.flow.sending.presence import Presence


class Settled(Enum):
    """How something ended that is not tried again."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """For good, and reported."""


class Asking:
    """One lane's way to a destination."""

    def __init__(
        self,
        channel: Channel,
        health: DestinationHealth,
        presence: Presence,
        setbacks: Setbacks,
        emit: Emit,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._channel = channel
        self._health = health
        self._presence = presence
        self._setbacks = setbacks
        self._emit = emit
        self._monotonic = monotonic
        self._pause_seconds = 0.0
        self._closed_until = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether one of several destinations is not to be asked at present: it is away, or it accepted nothing of this
        kind a moment ago. The others do not wait for it."""
        is_alone = self._presence.patience_seconds is None
        return not is_alone and (self._presence.is_away or self._monotonic() < self._closed_until)

    async def ask(
        self, key: EntryKey, operation: FollowupOperation, call: Callable[[], Awaitable[DeliveryOutcome]]
    ) -> Settled | Waiting:
        """What became of it, once it is settled; otherwise how long it waits for the next try."""
        outcome = await self._call(call)
        self._health.note(self._channel, outcome)
        if isinstance(outcome, Retry | Refused | Unknown):
            waiting = self._setbacks.add(key, outcome)
            if self._is_refused_alone(outcome, waiting):
                return self._give_up(key, operation)
            self._pause_seconds = self._setbacks.add(self._channel, outcome).wait_seconds
            self._closed_until = self._monotonic() + self._pause_seconds
            if not isinstance(outcome, Refused):
                # The health of the destination reports once that keys are refused.
                self._emit(FollowupRetried(operation, explain(outcome), waiting.tries, waiting.wait_seconds))
            return waiting
        self._setbacks.clear(self._channel)
        self._closed_until = 0.0
        if not isinstance(outcome, Delivered):
            return self._give_up(key, operation)
        self._setbacks.clear(key)
        return Settled.ACCEPTED

    def _is_refused_alone(self, outcome: DeliveryOutcome, waiting: Waiting) -> bool:
        """Whether others are accepted, but not this one, for the sake of its content. A deletion has none."""
        return (
            self._channel is Channel.SCORES
            and waiting.tries >= TRIES
            and may_be_of_the_content(outcome)
            and self._health.has_accepted(self._channel, waiting.since_seconds)
        )

    def _give_up(self, key: EntryKey, operation: FollowupOperation) -> Settled:
        self._setbacks.clear(key)
        self._emit(FollowupFailed(operation))
        return Settled.REFUSED

    async def _call(self, call: Callable[[], Awaitable[DeliveryOutcome]]) -> DeliveryOutcome:
        """The answer, for which the others do not wait long; whatever is asked here may be asked again."""
        try:
            async with asyncio.timeout(self._presence.patience_seconds):
                return await call()
        except TimeoutError:
            return Unknown("timeout")

    @property
    def pause_seconds(self) -> float:
        """How long to wait, as the last answers suggest."""
        return self._pause_seconds


async def pause(turned_away: Iterable[Asking]) -> None:
    """Wait until one of these destinations may accept something again; not at all where there is none."""
    await asyncio.sleep(min((asking.pause_seconds for asking in turned_away), default=0.0))
