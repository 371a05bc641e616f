"""Tasks that only watch: a look that breaks is told and counted, and the next one comes; nothing stands still."""

import asyncio
import io

import pytest

from tailer.daemon.daemon import Daemon
from tailer.daemon.faults import report_faults
from tailer.daemon.side_tasks import looking
from tailer.events import (
    ClockCompared,
    DeliveryResumed,
    Event,
    LettersCounted,
    OplogSeen,
    SideTask,
    SideTaskFailed,
    TracesDelivered,
)
from tailer.logs import LogFormat, LogLevel, LogWriter
from tailer.metrics import Metrics
from tailer.settings import load_settings
from tests.evidence import Events


async def test_a_look_that_breaks_is_told_and_the_next_one_comes() -> None:
    looks: list[int] = []
    told: list[tuple[SideTask, str]] = []

    async def look() -> None:
        await asyncio.sleep(1)
        looks.append(len(looks))
        if len(looks) in (2, 3):
            raise ValueError

    async with looking(
        SideTask.OPLOG,
        look,
        every_seconds=30,
        report=lambda task, error: told.append((task, type(error).__name__)),
    ):
        await asyncio.sleep(31 * 5 - 1)

    assert len(looks) == 5
    assert told == [(SideTask.OPLOG, "ValueError")] * 2


async def test_a_broken_look_is_an_error_in_the_log_without_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAILER_MONGO_URI", "mongodb://localhost/LibreChat")
    monkeypatch.setenv("TAILER_FILE_PATH", "traces.jsonl")
    events, written = Events(), io.StringIO()
    daemon = Daemon(load_settings(), LogWriter(written, LogFormat.JSON, LogLevel.INFO), observe=events)

    async def look() -> None:
        message = "s3cret"
        raise ValueError(message)

    async with looking(SideTask.BEAT, look, every_seconds=1, report=report_faults(daemon._emit)):
        await asyncio.sleep(1.5)

    assert [(event.task, event.error) for event in events.of(SideTaskFailed)] == [("beat", "ValueError")] * 2
    assert "task_failed" in written.getvalue()
    assert "s3cret" not in written.getvalue()
    failures = daemon.metrics.registry.get_sample_value("tailer_task_failures_total", {"task": "beat"})
    assert failures == 2


def test_what_a_broken_look_would_tell_of_is_absent_and_does_not_stand_still() -> None:
    metrics = Metrics("1")
    metrics.record(OplogSeen(1000, 2000))
    metrics.record(ClockCompared(0.5))
    metrics.record(LettersCounted(3))
    value = metrics.registry.get_sample_value
    assert value("tailer_oplog_window_seconds") == 1000

    metrics.record(SideTaskFailed(SideTask.OPLOG, "ValueError", "oplog.py:1"))
    assert value("tailer_oplog_window_seconds") is None
    assert value("tailer_clock_skew_seconds") is None
    assert value("tailer_dead_letters_kept") == 3

    metrics.record(SideTaskFailed(SideTask.DEAD_LETTERS, "ValueError", "survey.py:1"))
    assert value("tailer_dead_letters_kept") is None


async def test_an_event_below_the_level_of_the_log_is_not_even_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`traces_delivered` comes with every batch, and nearly nobody reads debug lines."""
    monkeypatch.setenv("TAILER_MONGO_URI", "mongodb://localhost/LibreChat")
    monkeypatch.setenv("TAILER_FILE_PATH", "traces.jsonl")
    put_together: list[Event] = []

    def put(event: Event) -> dict[str, object]:
        put_together.append(event)
        return {}

    monkeypatch.setattr("tailer.daemon.daemon.asdict", put)
    daemon = Daemon(load_settings(), LogWriter(io.StringIO(), LogFormat.JSON, LogLevel.INFO))

    daemon._emit(TracesDelivered(0, 0, ()))
    assert put_together == []
    daemon._emit(DeliveryResumed())
    assert put_together == [DeliveryResumed()]
