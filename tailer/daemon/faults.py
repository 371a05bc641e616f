"""Faults of the code, as they may be shown: without their messages, which could hold content."""

import traceback
from collections.abc import Callable

from tailer.events import Emit, SideTask, SideTaskFailed


def locate(error: BaseException) -> tuple[str, str]:
    """The class of an error and the line of code it came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rpartition('tailer/')[2]}:{frames[-1].lineno}" if frames else "unknown"
    return type(error).__name__, where


def report_faults(emit: Emit) -> Callable[[SideTask, Exception], None]:
    """What a side task that breaks is reported with; it goes on at its next turn."""
    return lambda task, error: emit(SideTaskFailed(task, *locate(error)))
