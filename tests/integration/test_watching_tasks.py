"""Tasks that only watch: when one of them breaks the daemon goes on, and says so."""

import asyncio
import io

from tailer.daemon.daemon import Daemon
from tailer.events import TaskFailed
from tailer.logs import LogFormat, LogLevel, LogWriter
from tests.e2e.databases import Databases
from tests.evidence import Events
from tests.integration.running import settings_for


async def test_a_watching_task_that_breaks_is_an_error_in_the_log_without_its_text(
    databases: Databases,
) -> None:
    events, written = Events(), io.StringIO()
    daemon = Daemon(
        settings_for(databases, None), LogWriter(written, LogFormat.JSON, LogLevel.INFO), observe=events
    )

    async def fail() -> None:
        message = "s3cret"
        raise ValueError(message)

    broken = asyncio.create_task(fail())
    idle = asyncio.create_task(asyncio.Event().wait())
    await asyncio.wait([broken])
    idle.cancel()
    await asyncio.wait([idle])
    daemon._report_end(broken)
    daemon._report_end(idle)  # type: ignore[arg-type]

    assert [event.error for event in events.of(TaskFailed)] == ["ValueError"]
    assert "task_failed" in written.getvalue()
    assert "s3cret" not in written.getvalue()
