"""A pseudo terminal with the real command in its foreground: what it writes is read, keys are pressed."""

import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# Ctrl-C reaches a whole process group only from its controlling terminal.
_LAUNCHER: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "tailer", *sys.argv[1:]])
"""


class Terminal:
    """A command in the foreground of a pseudo terminal."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.text = ""
        self._master = master

    def read_until(self, wanted: str, *, timeout_seconds: float = 60.0) -> None:
        """Collect output until it has the text."""
        deadline = time.monotonic() + timeout_seconds
        while wanted not in self.text:
            assert self._read(deadline), f"no {wanted!r}: {self.text}"

    def read_to_the_end(self, *, timeout_seconds: float = 60.0) -> int:
        """Collect all output; the exit code."""
        deadline = time.monotonic() + timeout_seconds
        while self._read(deadline):
            pass
        return self.process.wait(timeout=timeout_seconds)

    def press(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._master, keys)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more: {self.text}"
        try:
            piece = os.read(self._master, 65_536)
        except OSError:
            # Linux answers so when nobody has the other end open any more.
            return False
        self.text += piece.decode().replace("\r\n", "\n")
        return bool(piece)


@contextmanager
def open_terminal(
    directory: Path, environment: dict[str, str], *arguments: str, columns: int
) -> Iterator[Terminal]:
    """Run `tailer` with these arguments in a terminal of that width; it is killed at the end of the block."""
    master, slave = os.openpty()
    try:
        termios.tcsetwinsize(slave, (50, columns))
        with subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, *arguments],
            cwd=directory,
            env={**environment, "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        ) as process:
            os.close(slave)
            slave = -1
            try:
                yield Terminal(process, master)
            finally:
                process.kill()
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)
