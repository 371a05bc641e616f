"""Several commands as one job on a thread of the driver.

Live, the CPU of an idle machine goes to waking threads. Motor wakes two for each command: one of the driver's, and then
the event loop's. A job wakes two for all of its commands.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from motor.frameworks.asyncio import run_on_executor

Result = TypeVar("Result")


async def run_job(job: Callable[..., Result], *arguments: Any) -> Result:
    """What a job gives. It uses the driver without Motor (`delegate`), and goes on where the caller is cancelled."""
    answer: Result = await run_on_executor(  # type: ignore[no-untyped-call]
        asyncio.get_running_loop(), job, *arguments
    )
    return answer
