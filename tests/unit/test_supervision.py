"""How tasks live and end together: on real signals, on errors, and when one just stops."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tailer.daemon.supervision import Shutdown, supervise, within
from tailer.errors import SoftwareError, StateError


class Journal:
    """Tasks that say what happens to them."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.began = asyncio.Event()

    async def endless(self, name: str) -> None:
        self.entries.append(f"{name} began")
        if name == "worker":
            # Workers are started after the readers.
            self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.entries.append(f"{name} ended")

    async def drain(self) -> None:
        self.entries.append("drained")


async def ends() -> None:
    await asyncio.sleep(0)


async def fails(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def refusal() -> StateError:
    return StateError(operation="saving", subject="checkpoints", hint="run one instance")


async def test_a_request_ends_readers_then_drains_then_ends_workers() -> None:
    """Nothing new comes in while what is open goes out."""
    journal, shutdown = Journal(), Shutdown()
    running = asyncio.create_task(
        supervise(
            {"read": journal.endless("reader")}, {"send": journal.endless("worker")}, shutdown, journal.drain
        )
    )
    await journal.began.wait()
    shutdown.request()
    await running

    assert journal.entries == ["reader began", "worker began", "reader ended", "drained", "worker ended"]
    assert not shutdown.forced.is_set()


@pytest.mark.parametrize("place", ["readers", "workers"])
async def test_a_task_that_ends_by_itself_ends_the_daemon_by_name(place: str) -> None:
    """A daemon without its checkpoints would look alive and lose everything."""
    journal = Journal()
    tasks: dict[str, dict[str, Awaitable[None]]] = {"readers": {}, "workers": {}}
    tasks["readers"]["read"] = journal.endless("reader")
    tasks["workers"]["send"] = journal.endless("worker")
    tasks[place]["save checkpoints"] = ends()
    with pytest.raises(SoftwareError, match="task save checkpoints") as ended:
        await supervise(tasks["readers"], tasks["workers"], Shutdown(), journal.drain)  # type: ignore[arg-type]

    assert ended.value.exit_code == 70
    assert "drained" not in journal.entries
    assert {"reader ended", "worker ended"} <= set(journal.entries)


async def test_an_error_for_the_operator_passes_through_as_it_is() -> None:
    """Not wrapped in a group: its exit code and its remedy are what is shown."""
    journal, error = Journal(), refusal()
    with pytest.raises(StateError) as raised:
        await supervise(
            {"read": journal.endless("reader")}, {"save": fails(error)}, Shutdown(), journal.drain
        )

    assert raised.value is error
    assert journal.entries == ["reader began", "reader ended"]


async def test_an_error_that_nobody_expected_is_not_swallowed() -> None:
    """It comes out in its group, with the others that happened at the same time."""
    journal = Journal()
    with pytest.raises(BaseExceptionGroup) as raised:
        await supervise({}, {"send": fails(KeyError("x"))}, Shutdown(), journal.drain)

    assert raised.group_contains(KeyError)


async def test_an_error_while_draining_is_raised() -> None:
    """The checkpoint is refused in the last seconds."""
    shutdown = Shutdown()
    shutdown.request()
    journal, error = Journal(), refusal()
    with pytest.raises(StateError) as raised:
        await supervise(
            {"read": journal.endless("reader")},
            {"send": journal.endless("worker")},
            shutdown,
            lambda: fails(error),
        )

    assert raised.value is error


async def test_a_shutdown_that_was_asked_for_before_the_start_ends_at_once() -> None:
    """A signal between the last step of the start and the first of the run."""
    journal, shutdown = Journal(), Shutdown()
    shutdown.request()
    await supervise(
        {"read": journal.endless("reader")}, {"send": journal.endless("worker")}, shutdown, journal.drain
    )

    # Tasks that never began would leave coroutines behind that nobody awaits.
    assert journal.entries == ["reader began", "worker began", "reader ended", "drained", "worker ended"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_asks_and_the_second_insists(number: signal.Signals) -> None:
    """Real signals to this process; outside the block they mean what they always do."""
    shutdown = Shutdown()
    with shutdown.on_signals():
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            await shutdown.asked.wait()
        assert not shutdown.forced.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            await shutdown.forced.wait()

    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


async def test_a_wish_that_comes_true_in_time_is_granted() -> None:
    """And nothing is left running."""
    assert await within(timedelta(seconds=30), Shutdown(), ends())
    assert len(asyncio.all_tasks()) == 1


async def _later(act: Callable[[], None]) -> None:
    await asyncio.sleep(0.01)
    act()


async def test_a_wish_ends_with_its_limit_or_with_the_second_signal() -> None:
    """The first signal does not end it: that one is why there is a wish."""
    journal, shutdown = Journal(), Shutdown()
    shutdown.request()
    assert not await within(timedelta(milliseconds=10), shutdown, journal.endless("limited"))
    insisting = asyncio.create_task(_later(shutdown.request))
    async with asyncio.timeout(10):
        assert not await within(timedelta(seconds=30), shutdown, journal.endless("forced"))
    await insisting

    assert journal.entries == ["limited began", "limited ended", "forced began", "forced ended"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_wish_that_fails_says_why() -> None:
    """The last checkpoint is refused: that is an error, not a wish that took too long."""
    error = refusal()
    with pytest.raises(StateError) as raised:
        await within(timedelta(seconds=30), Shutdown(), fails(error))

    assert raised.value is error
