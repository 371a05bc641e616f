"""Settings that name a file or a directory, which has to be there when the tailer starts."""

from collections.abc import Callable
from pathlib import Path

from tailer.paths import is_directory, is_file
from tailer.settings.kinds import UnfitValueError, quote


def check_file(given: str) -> str:
    """The path; raises `UnfitValueError` if no file is there."""
    _check(given, "file", is_file, "mount the file there, or leave the setting out")
    return given


def check_directory(given: str) -> str:
    """The absolute path; raises `UnfitValueError` if no directory is there."""
    if not Path(given).is_absolute():
        raise UnfitValueError(problem=f"is {quote(given)}, which is no absolute path")
    _check(
        given,
        "directory",
        is_directory,
        "mount the directory of LibreChat's files there, or leave the setting out",
    )
    return given


def _check(given: str, noun: str, is_there: Callable[[str], bool], remedy: str) -> None:
    try:
        found = is_there(given)
    except OSError as error:
        raise UnfitValueError(
            problem=f"is {quote(given)}, which cannot be looked at ({error.strerror})",
            remedy=f"let the tailer's user read that {noun}, or leave the setting out",
        ) from None
    if not found:
        raise UnfitValueError(problem=f"is {quote(given)}, where there is no {noun}", remedy=remedy)
