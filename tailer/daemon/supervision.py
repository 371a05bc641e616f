"""How long-lived tasks live and end: together, by name, and only on request.

The first signal asks for an orderly end, the second for an immediate one. A task that ends by itself is a fault of the
whole daemon, which then stops.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from tailer.errors import LeaseLost, SoftwareError, TailerError

Work = Coroutine[object, object, None]
Result = TypeVar("Result")


class Shutdown:
    """A request to end: `asked` after the first signal, `forced` after the second."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()

    def request(self) -> None:
        """Ask, or ask again."""
        if self.asked.is_set():
            self.forced.set()
        self.asked.set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT make a request while the block lasts."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.request)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


class _Finished(Exception):
    """The supervised work is over. It ends the task group without being an error."""


async def supervise(
    readers: Mapping[str, Work],
    workers: Mapping[str, Work],
    shutdown: Shutdown,
    drain: Callable[[], Awaitable[None]],
) -> None:
    """Run all tasks until a shutdown is asked for; then end the readers, drain, and end the rest.

    Raises the TailerError that a task ended with, or an ExceptionGroup of unexpected errors.
    """
    try:
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(_endless(name, work), name=name) for name, work in readers.items()]
            for name, work in workers.items():
                group.create_task(_endless(name, work), name=name)
            # One turn of the loop: a task that is cancelled before it has begun would leave a coroutine that is never
            # awaited.
            await asyncio.sleep(0)
            await shutdown.asked.wait()
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            await drain()
            _finish()
    except* _Finished:
        pass
    except* TailerError as errors:
        raise _first(errors) from errors


def _finish() -> None:
    raise _Finished


async def within(limit: timedelta, shutdown: Shutdown, wish: Awaitable[None]) -> bool:
    """Whether `wish` completes before the limit and before a second signal. Errors of `wish` are raised."""
    wished = asyncio.ensure_future(wish)
    forced = asyncio.create_task(shutdown.forced.wait(), name="second signal")
    try:
        await asyncio.wait(
            {wished, forced}, timeout=limit.total_seconds(), return_when=asyncio.FIRST_COMPLETED
        )
        if wished.done():
            wished.result()
        return wished.done()
    finally:
        forced.cancel()
        wished.cancel()
        await asyncio.gather(wished, forced, return_exceptions=True)


async def unless_asked(
    shutdown: Shutdown, name: str, work: Coroutine[object, object, Result]
) -> Result | None:
    """The result of work, run as a task of this name; None if a shutdown was asked for first, which cancels it."""
    working = asyncio.create_task(work, name=name)
    asked = asyncio.create_task(shutdown.asked.wait(), name="signal")
    await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return None


async def _endless(name: str, work: Work) -> None:
    await work
    raise SoftwareError(
        operation="running the daemon",
        subject=f"task {name}",
        hint="it ended although nothing asked it to; please report this with the log",
    )


def _first(errors: BaseExceptionGroup[TailerError]) -> TailerError:
    """The first error that is more than a lost lease, which heals by standing by."""
    found = list(_flatten(errors))
    return next((error for error in found if not isinstance(error, LeaseLost)), found[0])


def _flatten(errors: BaseExceptionGroup[TailerError]) -> Iterator[TailerError]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error
