"""Whether the destination accepts the keys, according to everything sent to it: spans, scores, deletions and media."""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

from tailer.events import DeliveryPaused, DeliveryResumed, Emit
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Refused

_HINT = "check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"
_MEMORY = timedelta(minutes=3)
"""How long a refusal counts without a new one, once something else was accepted: its subject may be gone. It is longer
than the longest pause between two tries."""


class Channel(StrEnum):
    """The kinds of requests."""

    SPANS = "spans"
    SCORES = "scores"
    DELETIONS = "deletions"
    MEDIA = "media"


class DestinationHealth:
    """Reports once that the keys are refused, and once that they are accepted again.

    Only an answer that proves the keys ends a refusal. A timeout proves nothing, and a request that is too large or
    invalid may have been refused before anything checked the keys. Scores that are refused while spans are accepted
    remain refused.
    """

    def __init__(self, emit: Emit, *, monotonic: Callable[[], float]) -> None:
        self._emit = emit
        self._monotonic = monotonic
        self._refused_seconds: dict[Channel, float] = {}
        self._accepted_seconds: dict[Channel, float] = {}
        self._accepted_batches = 0
        self._remedy = ""

    @property
    def is_refused(self) -> bool:
        """Whether anything is refused at present."""
        return bool(self._refused_seconds)

    @property
    def remedy(self) -> str | None:
        """What to do about the newest refusal, None where nothing is refused."""
        return self._remedy if self._refused_seconds else None

    @property
    def accepted_seconds(self) -> float | None:
        """When something was last accepted, None before the first time."""
        return max(self._accepted_seconds.values(), default=None)

    def has_accepted(self, channel: Channel, since_seconds: float) -> bool:
        """Whether anything of one kind was accepted after a moment."""
        return self._accepted_seconds.get(channel, since_seconds) > since_seconds

    @property
    def accepted_batches(self) -> int:
        """How many requests with spans were accepted so far."""
        return self._accepted_batches

    def note(self, channel: Channel, outcome: DeliveryOutcome) -> None:
        """Process the outcome of a request."""
        now = self._monotonic()
        if isinstance(outcome, Refused):
            self._remedy = outcome.remedy or _HINT
            if not self._refused_seconds:
                self._emit(DeliveryPaused(outcome.reason, self._remedy))
            self._refused_seconds[channel] = now
        elif isinstance(outcome, Delivered):
            self._accepted_seconds[channel] = now
            self._accepted_batches += channel is Channel.SPANS
            self._accept(channel, now)

    def _accept(self, channel: Channel, now: float) -> None:
        if not self._refused_seconds:
            return
        oldest = now - _MEMORY.total_seconds()
        self._refused_seconds = {
            other: refused
            for other, refused in self._refused_seconds.items()
            if other is not channel and refused > oldest
        }
        if not self._refused_seconds:
            self._emit(DeliveryResumed())
