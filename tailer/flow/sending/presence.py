"""Whether one of several destinations accepts anything at present. The others do not wait for one that is away.

A destination is away when nothing was accepted for a while although it was tried, or when it takes so much less than
there is to send that it would hold up the others. With one destination nothing is ever away: there the oplog is the
buffer.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

PATIENCE: Final = timedelta(seconds=5)
"""How long a destination may hold up the others, once: longer than a slow answer or a short overload."""


class Presence:
    """What the requests to one destination say of it. `patience` is None for the only destination."""

    def __init__(self, *, patience: timedelta | None, monotonic: Callable[[], float]) -> None:
        self._patience_seconds = None if patience is None else patience.total_seconds()
        self._monotonic = monotonic
        self._failing_since: float | None = None
        self._is_behind = False

    @property
    def patience_seconds(self) -> float | None:
        """How long the others wait for it; None for the only destination."""
        return self._patience_seconds

    @property
    def is_away(self) -> bool:
        """Whether what is sent to it now would have to wait."""
        if self._patience_seconds is None:
            return False
        return self._is_behind or self.waited_seconds >= self._patience_seconds

    @property
    def waited_seconds(self) -> float:
        """For how long nothing was accepted although it was tried."""
        return 0.0 if self._failing_since is None else self._monotonic() - self._failing_since

    def has_held_up(self, since_seconds: float) -> bool:
        """Whether something has waited for this destination for longer than the others are to wait."""
        patience = self._patience_seconds
        return patience is not None and self._monotonic() - since_seconds >= patience

    def note_failure(self) -> None:
        """A batch was not accepted, or its fate is unknown."""
        if self._failing_since is None:
            self._failing_since = self._monotonic()

    def note_answer(self) -> None:
        """A batch was accepted, or refused for what it holds."""
        self._failing_since = None

    def fall_behind(self) -> None:
        """It has had no room for too long."""
        self._is_behind = True

    def catch_up(self) -> None:
        """It has nothing left to do."""
        self._is_behind = False
