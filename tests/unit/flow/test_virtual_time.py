"""The clock of these tests: it jumps, it keeps the order of timers, and it tells of what would wait for ever."""

import asyncio
import time

import pytest

from tests.memory import VirtualLoop
from tests.memory.clock import NothingWillHappen, monotonic


async def test_a_day_passes_at_once() -> None:
    began, real = monotonic(), time.monotonic()

    await asyncio.sleep(24 * 3600)

    assert monotonic() - began >= 24 * 3600
    assert time.monotonic() - real < 5


async def test_timers_fire_in_their_order() -> None:
    """Whatever was set first; and a timeout that is longer than what it guards does not."""
    fired = []

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append(seconds)

    async with asyncio.timeout(3600):
        await asyncio.gather(*(wait(seconds) for seconds in (30, 10, 20)))

    assert fired == [10, 20, 30]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await wait(6)


def test_what_would_wait_for_ever_is_an_error() -> None:
    loop = VirtualLoop()
    waiting = loop.create_task(asyncio.Event().wait())
    with pytest.raises(NothingWillHappen):
        loop.run_until_complete(waiting)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()
