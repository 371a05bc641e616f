"""How often and how soon something is tried again, in virtual time."""

import asyncio
from datetime import timedelta

import pytest

from tailer.retrying import Backoff, Setback, try_through, try_until
from tests.memory.clock import monotonic

STEADY = Backoff(first_seconds=1.0, longest_seconds=8.0, jitter_seconds=0.0)


def test_waits_double_up_to_the_longest() -> None:
    assert [STEADY.wait_seconds(tries) for tries in range(1, 7)] == [1, 2, 4, 8, 8, 8]


def test_a_wait_is_never_shorter_than_what_was_asked_for_and_never_shorter_for_it() -> None:
    assert [STEADY.wait_seconds(3, asked_seconds=asked) for asked in (None, 0.0, 3.0, 60.0)] == [4, 4, 4, 60]


@pytest.mark.parametrize("tries", [1, 3, 50])
def test_jitter_makes_waits_longer_and_spreading_makes_them_shorter(tries: int) -> None:
    full = STEADY.wait_seconds(tries)
    for _ in range(100):
        assert full <= Backoff(1.0, 8.0, 0.5).wait_seconds(tries) <= full + 0.5
        assert 0 <= Backoff(1.0, 8.0).wait_seconds(tries) <= full


async def test_an_answer_that_is_not_final_is_asked_for_again_after_its_wait() -> None:
    answers = iter(["no", "no", "yes"])
    told: list[Setback[str]] = []

    async def call() -> str:
        return next(answers)

    began = monotonic()
    answer = await try_until(
        call,
        is_final=lambda answer: answer == "yes",
        wait=lambda answer, tries: 10.0 * tries + len(answer),
        report=told.append,
    )

    assert answer == "yes"
    assert monotonic() - began == pytest.approx(12 + 22)
    assert told == [Setback("no", 1, 12.0), Setback("no", 2, 22.0)]


async def test_patience_ends_with_the_last_answer_or_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """tenacity looks at the time of the process: here that is the loop's."""
    monkeypatch.setattr("tenacity.time.monotonic", monotonic)
    calls = 0

    async def refuse() -> str:
        nonlocal calls
        calls += 1
        return f"no {calls}"

    async def fail() -> str:
        raise OSError(await refuse())

    answer = await try_until(
        refuse,
        is_final=lambda _: False,
        wait=lambda _, tries: STEADY.wait_seconds(tries),
        patience=timedelta(seconds=20),
    )
    assert answer == "no 6"
    with pytest.raises(OSError, match="no 12"):
        await try_through(
            fail,
            passes=lambda error: isinstance(error, OSError),
            backoff=STEADY,
            patience=timedelta(seconds=20),
        )


async def test_what_does_not_pass_is_raised_at_once() -> None:
    told: list[Setback[BaseException]] = []
    errors: list[Exception] = [OSError("first"), OSError("second"), ValueError("last")]

    async def call() -> None:
        raise errors.pop(0)

    with pytest.raises(ValueError, match="last"):
        await try_through(
            call,
            passes=lambda error: isinstance(error, OSError),
            backoff=STEADY,
            report=told.append,
        )

    assert [(str(each.answer), each.tries, each.wait_seconds) for each in told] == [
        ("first", 1, 1),
        ("second", 2, 2),
    ]


async def test_a_cancelled_task_tries_no_more() -> None:
    calls = 0

    async def call() -> bool:
        nonlocal calls
        calls += 1
        return False

    trying = asyncio.create_task(try_until(call, is_final=bool, wait=lambda _, __: 1.0))
    await asyncio.sleep(3.5)
    trying.cancel()
    await asyncio.gather(trying, return_exceptions=True)
    await asyncio.sleep(10)

    assert calls == 4
