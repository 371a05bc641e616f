"""What is at a path, and an error where that cannot be told, on every Python.

Up to 3.13 `Path.is_file` and `Path.is_dir` raise for a directory that may not be entered; since 3.14 they say that
nothing is there, which would send an operator looking for a file that exists.
"""

import stat
from pathlib import Path


def is_file(path: str | Path) -> bool:
    """Whether a path leads to a file; raises `OSError` where it cannot be looked at."""
    return stat.S_ISREG(_mode_of(path))


def is_directory(path: str | Path) -> bool:
    """Whether a path leads to a directory; raises `OSError` where it cannot be looked at."""
    return stat.S_ISDIR(_mode_of(path))


def _mode_of(path: str | Path) -> int:
    """The mode of what a path leads to, 0 where nothing is."""
    try:
        return Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
