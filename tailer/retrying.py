"""How often and how soon something is tried again. tenacity owns every loop of tries; this says in one place how one is
made, and how long what is given back to a queue waits there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential, wait_random

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from the first to the longest, each with up to `jitter_seconds` more."""

    first_seconds: float
    longest_seconds: float
    jitter_seconds: float

    def wait_seconds(self, tries: int) -> float:
        """How long to wait after so many tries."""
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = tries
        waits = wait_exponential(multiplier=self.first_seconds, max=self.longest_seconds)
        return float((waits + wait_random(0, self.jitter_seconds))(state))


@dataclass(frozen=True, slots=True)
class Setback(Generic[Answer]):
    """One try that did not do: what it gave, which try it was, and how long is waited before the next."""

    answer: Answer
    tries: int
    wait_seconds: float


async def try_until(
    call: Callable[[], Awaitable[Answer]],
    *,
    is_final: Callable[[Answer], bool],
    wait: Callable[[Answer, int], float],
    report: Callable[[Setback[Answer]], None] = lambda _: None,
    gives_up: Callable[[], bool] = lambda: False,
) -> Answer:
    """Call again and again until an answer is final; the last answer, where `gives_up` says so before that.

    `wait` gives the seconds after an answer, by the number of tries; `report` hears of every answer that is not final
    and is followed by another try.
    """

    def answer_of(state: RetryCallState) -> Answer:
        assert state.outcome is not None  # noqa: S101 - tenacity asks only after a try
        answer: Answer = state.outcome.result()
        return answer

    def tell(state: RetryCallState) -> None:
        report(Setback(answer_of(state), state.attempt_number, state.upcoming_sleep))

    attempts = AsyncRetrying(
        retry=retry_if_result(lambda answer: not is_final(answer)),
        wait=lambda state: wait(answer_of(state), state.attempt_number),
        stop=lambda _: gives_up(),
        before_sleep=tell,
        retry_error_callback=answer_of,
    )

    async def run() -> Answer:
        return await call()

    answer: Answer = await attempts(run)
    return answer
