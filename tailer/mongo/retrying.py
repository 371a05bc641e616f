"""Repeats a command of MongoDB for as long as the failure is one that passes: elections, restarts, lost connections."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from tailer.mongo.failures import failure_name

Result = TypeVar("Result")

_PASSING_CODES = frozenset(
    {
        6,
        7,
        43,
        50,
        64,
        89,
        91,
        112,
        189,
        237,
        262,
        317,
        358,
        384,
        9001,
        10107,
        11600,
        11601,
        11602,
        13435,
        13436,
    }
)
"""Host unreachable, cursor gone, time limit, write concern timed out, write conflict, shutdown, primary stepped down,
interrupted (by `killOp`, or by a takeover that ends the session of its predecessor) and their like."""
_PASSING_LABELS = ("RetryableWriteError", "TransientTransactionError")
"""The second one means that nothing of the transaction happened: it is done again from its beginning."""


def passes(error: BaseException) -> bool:
    """Whether a failure goes away by itself."""
    if isinstance(error, AutoReconnect | ConnectionFailure | ServerSelectionTimeoutError | ExecutionTimeout):
        return True
    if not isinstance(error, OperationFailure):
        return False
    return error.code in _PASSING_CODES or any(error.has_error_label(label) for label in _PASSING_LABELS)


async def keep_trying(
    call: Callable[[], Awaitable[Result]],
    report: Callable[[str], None],
    *,
    passing: Callable[[BaseException], bool] = passes,
) -> Result:
    """The result of `call`, repeated with growing random pauses until it comes; `report` gets each failure's name.

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
        report(failure_name(error) if isinstance(error, PyMongoError) else type(error).__name__)

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
