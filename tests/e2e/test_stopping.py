"""How the daemon ends: in order within the limit, at once at the second signal, and always without a loss."""

import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailer.demo.stage.player import play
from tests.e2e.daemon import Daemon, langfuse_settings, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import Traffic, place
from tests.fakes.langfuse import FakeLangfuse, Route, hang

SETTINGS = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_LOOKUP_SECONDS": "1",
    "TAILER_REQUEST_TIMEOUT_SECONDS": "60",
}
QUICK_SECONDS = 12.0
"""An end without waiting: a poll of the stream, a late answer of the driver, the interpreter, a slow machine."""
EXIT_FORCED = 130


async def restart_and_finish(settings: Mapping[str, str], databases: Databases, directory: Path) -> None:
    """What an ended daemon left open is done by the next one."""
    async with start(settings, directory=directory) as daemon:
        await databases.wait_until_done(daemon.must_run)
        daemon.terminate()
        assert await daemon.exit_code() == 0


def check_arrived_once(fake: FakeLangfuse, traffic: Traffic) -> None:
    assert set(fake.trace_ids()) == {turn.trace_id for turn in traffic.turns()} | traffic.titles().keys()
    assert fake.duplicates() == []
    assert fake.unresolved_parents() == []


async def seconds_until_end(daemon: Daemon) -> tuple[int, float]:
    """Exit code, and how long it took from now."""
    began = time.monotonic()
    code = await daemon.exit_code()
    return code, time.monotonic() - began


async def test_a_turn_in_its_settle_time_is_delivered_before_the_end(
    databases: Databases, tmp_path: Path
) -> None:
    """SIGTERM ends the reading, waits for what is open, and exits 0 inside the limit."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "TAILER_SETTLE_SECONDS": "3",
        }
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            await daemon.wait_for_metrics(
                lambda metrics: metrics.value("tailer_pairs_pending", kind="awaiting_settle") >= 2
            )
            assert fake.trace_ids() == []
            daemon.terminate()

            assert await daemon.exit_code(timeout_seconds=25) == 0
            check_arrived_once(fake, traffic)
            assert daemon.lines("stopping")[0]["open_turns"] >= 2
            assert daemon.lines("drained") == [
                {**daemon.lines("drained")[0], "complete": True, "left_open": 0}
            ]
            assert daemon.lines("stopped")[0]["forced"] is False
            assert daemon.errors == []
        assert await databases.pending_batches() == frozenset()


@pytest.mark.parametrize("stored", [False, True])
async def test_at_the_limit_it_ends_and_the_turn_arrives_once_after_the_next_start(
    *, stored: bool, databases: Databases, tmp_path: Path
) -> None:
    """Langfuse hangs, before or after it took the spans: the end does not wait longer than it may."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "TAILER_SHUTDOWN_SECONDS": "1",
        }
        fake.faults.add(hang(stored=stored, times=None))
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            await wait_until_hanging(fake, Route.SPANS)
            daemon.terminate()

            code, seconds = await seconds_until_end(daemon)
            assert code == 0
            assert seconds < 1 + QUICK_SECONDS
            assert daemon.lines("drained")[0]["complete"] is False
            assert daemon.errors == []
        fake.faults.clear()
        fake.release()
        await restart_and_finish(settings, databases, tmp_path)
        check_arrived_once(fake, traffic)


async def wait_until_hanging(fake: FakeLangfuse, route: Route) -> None:
    """Return once a request of the route is held without an answer."""

    def is_held() -> bool:
        return any(
            count and found is route and outcome.startswith("hang")
            for (found, outcome), count in fake.requests.items()
        )

    await fake.wait_until(is_held, timeout_seconds=30)


async def test_a_second_signal_ends_it_at_once_and_loses_nothing(
    databases: Databases, tmp_path: Path
) -> None:
    """Exit 130 although a minute of draining was left; the turn arrives once after the next start."""
    traffic = place("02-multi-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "TAILER_SHUTDOWN_SECONDS": "60",
        }
        fake.faults.add(hang(stored=True, times=None))
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            await wait_until_hanging(fake, Route.SPANS)
            daemon.terminate()
            await daemon.wait_for_line("stopping")
            daemon.must_run()
            daemon.terminate()

            code, seconds = await seconds_until_end(daemon)
            assert code == EXIT_FORCED
            assert seconds < QUICK_SECONDS
            assert daemon.lines("stopped")[0]["forced"] is True
            assert daemon.errors == []
        fake.faults.clear()
        fake.release()
        await restart_and_finish(settings, databases, tmp_path)
        check_arrived_once(fake, traffic)


async def test_without_flush_at_shutdown_it_ends_at_once_and_loses_nothing(
    databases: Databases, tmp_path: Path
) -> None:
    """LANGFUSE_FLUSH_AT_SHUTDOWN=false leaves what is open to the next start."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        lazy = {**settings, "LANGFUSE_FLUSH_AT_SHUTDOWN": "false", "TAILER_SETTLE_SECONDS": "60"}
        async with start(lazy, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            await daemon.wait_for_metrics(
                lambda metrics: metrics.value("tailer_pairs_pending", kind="awaiting_settle") >= 2
            )
            daemon.terminate()

            code, seconds = await seconds_until_end(daemon)
            assert (code, fake.trace_ids()) == (0, [])
            assert seconds < QUICK_SECONDS
        await restart_and_finish(settings, databases, tmp_path)
        check_arrived_once(fake, traffic)


async def test_a_signal_while_langfuse_is_asked_for_the_first_time_ends_the_start(
    databases: Databases, tmp_path: Path
) -> None:
    """Exit 0 soon, although the request may take a minute; nothing was watched yet."""
    async with FakeLangfuse() as fake:
        fake.faults.add(hang(stored=False, route=Route.PROJECTS))
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await wait_until_hanging(fake, Route.PROJECTS)
            daemon.terminate()

            code, seconds = await seconds_until_end(daemon)
            assert code == 0, daemon.output
            assert seconds < QUICK_SECONDS
            assert daemon.lines("started") == []
            assert daemon.errors == []
        fake.release()


async def test_a_signal_while_mongodb_is_away_ends_the_start(tmp_path: Path) -> None:
    """Exit 0 soon, although the start would wait half a minute for a server."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"mongodb://127.0.0.1:{taken.getsockname()[1]}/LibreChat"
        settings = {"TAILER_MONGO_URI": uri, "TAILER_FILE_PATH": "turns.jsonl"}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_for_line("source_unanswered")
            daemon.terminate()

            code, seconds = await seconds_until_end(daemon)
            assert code == 0, daemon.output
            assert seconds < QUICK_SECONDS
            assert daemon.errors == []
