"""How long to wait before the next try of what the destination did not accept: an entry by itself, and a lane as a
whole.

A lane never repeats a request until it succeeds. The entry goes back to the backlog, so that an entry that fails again
and again does not stop the others of its kind.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from tailer.flow.sending.outcomes import Refused, Retry, StorageAway, Unknown
from tailer.retrying import Backoff

_BACKOFF: Final = Backoff(first_seconds=0.2, longest_seconds=60.0, jitter_seconds=0.3)
_REMEMBERED: Final = 20_000
"""The most subjects whose tries are remembered; a subject that is gone for good is never cleared."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How often something was tried, since when, and how long it waits now."""

    tries: int
    since_seconds: float
    wait_seconds: float


class Setbacks:
    """How often each subject was refused; `clear` forgets it."""

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._waiting: LRUCache[Hashable, Waiting] = LRUCache(_REMEMBERED)

    def add(self, subject: Hashable, answer: Retry | Refused | Unknown | StorageAway) -> Waiting:
        """Count one more refusal."""
        known = self._waiting.get(subject)
        tries = 1 if known is None else known.tries + 1
        asked_seconds = answer.after_seconds if isinstance(answer, Retry | Unknown) else None
        wait_seconds = _BACKOFF.wait_seconds(tries, asked_seconds=asked_seconds)
        since = self._monotonic() if known is None else known.since_seconds
        self._waiting[subject] = Waiting(tries, since, wait_seconds)
        return self._waiting[subject]

    def clear(self, subject: Hashable) -> None:
        """Forget a subject: it was accepted, or is no longer tried."""
        self._waiting.pop(subject, None)
