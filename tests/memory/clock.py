"""An event loop whose clock jumps: where everything waits, the time of the next timer is now.

An hour of retries takes milliseconds, and always the same ones. Where everything waits and no timer is set, nothing
would ever happen again: that is an error at once, and not a test that hangs.
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

FIRST_SECONDS = 1000.0
"""Not zero: a clock that begins there hides what takes "never" for "long ago"."""

_TURN_SECONDS = 1e-6
"""What a turn of the loop takes: with none at all, two tasks that wait for the same moment could both be a hair early,
wake each other, and wait for it for ever."""


class NothingWillHappen(Exception):
    """Every task waits for another one."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual. While anything is ready it hardly moves; sockets and threads are not for these tests."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Seconds, as `monotonic` of the parts under test."""
        return self._seconds

    def pass_time(self, seconds: float) -> None:
        """Let the clock jump, as if the whole process had been stopped."""
        self._seconds += seconds


class _Selector(selectors.BaseSelector):
    """Waits for nothing but time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            self._loop.pass_time(_TURN_SECONDS)
            return ready
        if timeout is None:
            raise NothingWillHappen
        self._loop.pass_time(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def monotonic() -> float:
    """The clock of the loop that runs."""
    return asyncio.get_running_loop().time()
