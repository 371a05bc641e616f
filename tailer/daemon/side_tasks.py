"""Tasks beside the daily work: they look at something now and then, and a broken look does not end the daemon.

It is not silent either: it is counted and logged, and the next look comes on time. Otherwise the gauges of these looks
would stand still, and their alerts could not be trusted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tailer.events import SideTask


@asynccontextmanager
async def looking(
    task: SideTask,
    look: Callable[[], Awaitable[None]],
    *,
    every_seconds: float,
    report: Callable[[SideTask, Exception], None],
) -> AsyncIterator[None]:
    """Look repeatedly while the block lasts; `report` hears of every look that breaks."""

    async def repeat() -> None:
        while True:
            try:
                await look()
            except Exception as error:  # noqa: BLE001 - one look is what breaks, and the next may do
                report(task, error)
            await asyncio.sleep(every_seconds)

    repeating = asyncio.create_task(repeat(), name=task.value)
    try:
        yield
    finally:
        repeating.cancel()
        await asyncio.gather(repeating, return_exceptions=True)
