"""Repeats a command of MongoDB for as long as the failure is one that passes: elections, restarts, lost connections."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.errors import PyMongoError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from tailer.mongo.failures import passes

Result = TypeVar("Result")


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

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, PyMongoError):
            report(error)

    attempts = AsyncRetrying(
        retry=retry_if_exception(passing),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        before_sleep=before_sleep,
        reraise=True,
    )

    async def run() -> Result:
        # The failure above counts as the first attempt: the next one comes after a pause.
        if failures:
            raise failures.pop()
        return await call()

    return await attempts(run)
