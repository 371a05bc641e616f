"""The processes of a run: the fake Langfuse, our daemon and the script, and what each cost in CPU and memory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self
from urllib.request import urlopen

from tests.fakes.langfuse import ControlClient

ROOT: Final = Path(__file__).parent.parent.parent
PUBLIC_KEY: Final = "pk-lf-test"
SECRET_KEY: Final = "sk-lf-test"
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV", "TMPDIR")
_END_SECONDS: Final = 60.0
_PROCESS_CLOCK: Final = 2
"""The kernel's number for all CPU time, user and system, of every thread that a process has or had (CPUCLOCK_SCHED)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of a process, user and system together, and its peak memory."""

    cpu_seconds: float
    peak_bytes: int


class Process(AbstractContextManager["Process"]):
    """A child process with a clean environment; it is killed when the block is left, if it still runs."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: Path,
        python: str = sys.executable,
    ) -> None:
        kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._log = log
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                [python, *arguments],
                cwd=ROOT,
                env={**kept, **environment, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    @property
    def process_id(self) -> int:
        """For a profiler."""
        return self._child.pid

    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raises RuntimeError, with the end of the output, when the process has ended."""
        if self._child.poll() is not None:
            message = f"the process ended with {self._child.returncode}: {self.output()[-2000:]}"
            raise RuntimeError(message)

    def cpu_seconds(self) -> float:
        """What the running process has used until now."""
        return cpu_seconds_of(self._child.pid)

    def resident_bytes(self) -> int:
        """The memory that the running process holds at this moment."""
        return self._memory_bytes("VmRSS:")

    def end(self) -> Cost:
        """Stop it in order, and what it has cost in all."""
        peak = self._peak_bytes()
        self._child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while True:
            found, status, usage = os.wait4(self._child.pid, os.WNOHANG)
            if found:
                break
            if time.monotonic() > deadline:
                self._child.kill()
            peak = max(peak, self._peak_bytes())
            time.sleep(0.02)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        return Cost(usage.ru_utime + usage.ru_stime, peak)

    def _peak_bytes(self) -> int:
        # Not ru_maxrss: that one begins with the memory of the process that started this one.
        return self._memory_bytes("VmHWM:")

    def _memory_bytes(self, name: str) -> int:
        status = Path(f"/proc/{self._child.pid}/status").read_text(encoding="utf-8")
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name)), 0)


def cpu_seconds_of(process_id: int) -> float:
    """The CPU time of a running process and of those that it started, to the nanosecond; in /proc/PID/stat stand
    hundredths of a second, too few to measure a second of idling."""
    threads = Path(f"/proc/{process_id}/task").iterdir()
    children = [child for thread in threads for child in (thread / "children").read_text().split()]
    own = time.clock_gettime(~process_id << 3 | _PROCESS_CLOCK)
    return own + sum(cpu_seconds_of(int(child)) for child in children)


@contextmanager
def awake_processors() -> Iterator[None]:
    """While the block lasts, a loop of idle priority keeps each processor awake. Where a sleeping one wakes up with
    cold caches, as on a virtual machine, most of what is measured of a quiet process is that.
    """
    awake = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", awake]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def start_fake(directory: Path) -> tuple[Process, ControlClient, str]:
    """The fake Langfuse that counts ids and bytes; with a client for it and its address."""
    fake = Process(["-m", "tests.fakes.langfuse", "--light"], {}, log=directory / "fake.log")
    while not (said := fake.output()).endswith("\n"):
        fake.check()
        time.sleep(0.05)
    url: str = json.loads(said)["url"]
    return fake, ControlClient(url, timeout_seconds=60), url


def start_tailer(
    uri: str,
    langfuse_url: str,
    directory: Path,
    settings: Mapping[str, str] = MappingProxyType({}),
    *,
    name: str = "tailer",
    python: str = sys.executable,
) -> Process:
    """Our daemon as a user runs it, with its defaults but for these settings; returns once it is ready."""
    environment = {
        "TAILER_MONGO_URI": uri,
        "TAILER_HTTP_PORT": "0",
        "LANGFUSE_HOST": langfuse_url,
        "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
        "LANGFUSE_SECRET_KEY": SECRET_KEY,
        "TAILER_LOG_FORMAT": "json",
        **settings,
    }
    log = directory / f"{name}.log"
    daemon = Process(["-m", "tailer", "run"], environment, log=log, python=python)
    port = 0
    while not _is_ready(port):
        daemon.check()
        port = port or _find_port(daemon.output())
        time.sleep(0.05)
    return daemon


def start_script(
    uri: str,
    langfuse_url: str,
    directory: Path,
    *,
    since_seconds: int,
    everything: bool,
    python: str = sys.executable,
) -> Process:
    """The script, reading from a second of the server's clock on; with history and tools where `everything` is sent."""
    environment = {
        "MONGO_URI": uri,
        "SINCE_SECONDS": str(since_seconds),
        "SEND": "everything" if everything else "answers",
        "LANGFUSE_HOST": langfuse_url,
        "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
        "LANGFUSE_SECRET_KEY": SECRET_KEY,
    }
    log = directory / "script.log"
    return Process(["-m", "tests.benchmarks.script"], environment, log=log, python=python)


def _find_port(output: str) -> int:
    for line in output.splitlines():
        if '"http_port"' in line:
            return int(json.loads(line)["http_port"])
    return 0


def _is_ready(port: int) -> bool:
    if not port:
        return False
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
