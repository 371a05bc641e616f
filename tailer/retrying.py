"""How often and how soon something is tried again: the one place that knows tenacity.

There are two kinds of tries. One gives an answer that says whether it is final (`try_until`); the other raises an error
that may pass (`try_through`). What returns to a queue between two tries only asks `Backoff`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_result,
    stop_after_delay,
    stop_never,
    wait_exponential,
    wait_random,
    wait_random_exponential,
)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from the first to the longest.

    `jitter_seconds` is the most that each may be longer. With None, each wait is random between 0 and its full length,
    so that many that failed together do not return together.
    """

    first_seconds: float
    longest_seconds: float
    jitter_seconds: float | None = None

    def wait_seconds(self, tries: int, *, asked_seconds: float | None = None) -> float:
        """The wait after this many tries, and never less than the other side asked for. Its word does not make the wait
        shorter: a zero, or a date that is over, would be a flood."""
        return max(asked_seconds or 0.0, self._grown(tries))

    def _grown(self, tries: int) -> float:
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = tries
        if self.jitter_seconds is None:
            spread = wait_random_exponential(multiplier=self.first_seconds, max=self.longest_seconds)
            return float(spread(state))
        waits = wait_exponential(multiplier=self.first_seconds, max=self.longest_seconds)
        return float((waits + wait_random(0, self.jitter_seconds))(state))


@dataclass(frozen=True, slots=True)
class Setback(Generic[Answer]):
    """An unsuccessful try: its answer or error, its number, and the wait before the next."""

    answer: Answer
    tries: int
    wait_seconds: float


async def try_until(
    call: Callable[[], Awaitable[Answer]],
    *,
    is_final: Callable[[Answer], bool],
    wait: Callable[[Answer, int], float],
    report: Callable[[Setback[Answer]], None] = lambda _: None,
    patience: timedelta | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answer:
    """Call until an answer is final, which is asked once of each; returns the last answer if the patience ends first.

    `wait` gives the seconds after an answer, by the number of tries; `report` hears of every answer that is followed by
    another try.
    """

    def answer_of(state: RetryCallState) -> Answer:
        assert state.outcome is not None  # noqa: S101 - tenacity asks only after a try
        answer: Answer = state.outcome.result()
        return answer

    attempts = AsyncRetrying(
        retry=retry_if_result(lambda answer: not is_final(answer)),
        wait=lambda state: wait(answer_of(state), state.attempt_number),
        stop=stop_never if patience is None else stop_after_delay(patience.total_seconds()),
        before_sleep=lambda state: report(
            Setback(answer_of(state), state.attempt_number, state.upcoming_sleep)
        ),
        retry_error_callback=answer_of,
        sleep=sleep,
    )

    async def run() -> Answer:
        return await call()

    answer: Answer = await attempts(run)
    return answer


async def try_through(
    call: Callable[[], Awaitable[Answer]],
    *,
    passes: Callable[[BaseException], bool],
    backoff: Backoff,
    report: Callable[[Setback[BaseException]], None] = lambda _: None,
    patience: timedelta | None = None,
) -> Answer:
    """Call until nothing is raised; raises errors that do not pass, and the last error if the patience ends.

    `report` hears of every error that is followed by another try.
    """

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        assert error is not None  # noqa: S101 - tenacity waits only after an error here
        report(Setback(error, state.attempt_number, state.upcoming_sleep))

    attempts = AsyncRetrying(
        retry=retry_if_exception(passes),
        wait=lambda state: backoff.wait_seconds(state.attempt_number),
        stop=stop_never if patience is None else stop_after_delay(patience.total_seconds()),
        before_sleep=tell,
        reraise=True,
    )

    async def run() -> Answer:
        return await call()

    answer: Answer = await attempts(run)
    return answer
