"""Repeats a command of MongoDB for as long as the failure is one that passes: elections, restarts, lost connections."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pymongo.errors import PyMongoError

from tailer.mongo.failures import passes
from tailer.retrying import Backoff, Setback, try_through

Result = TypeVar("Result")
BACKOFF: Final = Backoff(first_seconds=0.1, longest_seconds=5.0)
"""A short wait at first, because an election takes two seconds."""


async def keep_trying(
    call: Callable[[], Awaitable[Result]],
    report: Callable[[PyMongoError], None],
    *,
    passing: Callable[[BaseException], bool] = passes,
) -> Result:
    """The result of `call`, repeated with growing random pauses until it comes; `report` gets each failure.

    Raises what is not `passing`. Nearly every call succeeds at once and costs nothing but itself.
    """
    try:
        return await call()
    except PyMongoError as error:
        if not passing(error):
            raise
        failures = [error]

    async def run() -> Result:
        # The failure above counts as the first attempt; the next attempt comes after a pause.
        if failures:
            raise failures.pop()
        return await call()

    def tell(setback: Setback[BaseException]) -> None:
        if isinstance(setback.answer, PyMongoError):
            report(setback.answer)

    return await try_through(run, passes=passing, backoff=BACKOFF, report=tell)
