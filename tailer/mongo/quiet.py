"""How long nothing has happened in the followed collections, and how patiently they are asked then."""

import time
from typing import Final

_HOLD_SHARE: Final = 0.5


class Quiet:
    """The time without an event in any stream of a term.

    Where much is written, a stream without events is asked often, so that its position keeps up with the others'. In a
    quiet night asking is all that a tailer does.
    """

    def __init__(self) -> None:
        self._since_seconds = time.monotonic()

    def end(self) -> None:
        """Note that something happened."""
        self._since_seconds = time.monotonic()

    def hold_milliseconds(self, *, shortest: int, longest: int) -> int:
        """How long the server may hold a `getMore` without events: half as long as it has been quiet, within limits."""
        quiet_seconds = time.monotonic() - self._since_seconds
        return min(longest, max(shortest, round(1000 * quiet_seconds * _HOLD_SHARE)))
