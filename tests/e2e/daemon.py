"""The real daemon as a process: started with settings in its environment, asked over HTTP, ended by signals."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

REPOSITORY: Final = Path(__file__).parents[2]
PUBLIC_KEY: Final = "pk-lf-test"
SECRET_KEY: Final = "sk-lf-test"
_OURS: Final = ("TAILER_", "LANGFUSE_", "MONGO_URI")
_POLL_SECONDS: Final = 0.03
_PATIENCE_SECONDS: Final = 30.0

_READY: Final = 200

LogLine = dict[str, Any]


def langfuse_settings(url: str) -> dict[str, str]:
    """The settings for the project of a fake Langfuse with its default keys."""
    return {"LANGFUSE_HOST": url, "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY, "LANGFUSE_SECRET_KEY": SECRET_KEY}


def make_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    paths = [str(REPOSITORY), *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), **settings}


@dataclass(frozen=True, slots=True)
class Metrics:
    """One scrape: the value of each series."""

    series: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """The value of the series with exactly these labels; KeyError when it is not there. Where a destination is not
        named, there is one."""
        named = name, frozenset(labels.items())
        return self.series[named if named in self.series else (name, named[1] | {("destination", "default")})]

    def total(self, name: str) -> float:
        """The sum over all series of the name, 0 without any."""
        return sum(value for (found, _), value in self.series.items() if found == name)

    def names(self) -> set[str]:
        """The names of all series."""
        return {name for name, _ in self.series}

    def of(self, name: str) -> Iterator[float]:
        """The values of all series of the name."""
        return (value for (found, _), value in self.series.items() if found == name)


@dataclass(slots=True)
class Daemon:
    """A started process; `text` and `errors` hold what it has written so far."""

    process: asyncio.subprocess.Process
    text: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    readers: tuple[asyncio.Task[None], ...] = ()
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def log(self) -> list[LogLine]:
        """All log lines; every one must be a JSON object with time, level and event."""
        lines = [json.loads(line) for line in self.text]
        assert all({"time", "level", "event"} <= line.keys() for line in lines)
        return lines

    def check_log(self) -> None:
        """AssertionError or ValueError when a line of the log is not for machines."""
        assert all("event" in line for line in self.log)

    @property
    def output(self) -> str:
        """Everything that was written, stdout and stderr."""
        return "".join([*self.text, *self.errors])

    def lines(self, event: str) -> list[LogLine]:
        """The log lines of one event."""
        return [line for line in self.log if line["event"] == event]

    def must_run(self) -> None:
        """AssertionError, with its output, when the process has ended."""
        assert self.process.returncode is None, f"ended with {self.process.returncode}: {self.output}"

    async def wait_for_line(self, event: str, *, timeout_seconds: float = _PATIENCE_SECONDS) -> LogLine:
        """The first log line of an event."""
        await self.wait_for(lambda: bool(self.lines(event)), timeout_seconds=timeout_seconds, what=event)
        return self.lines(event)[0]

    async def wait_for(
        self, condition: Callable[[], bool], *, timeout_seconds: float = _PATIENCE_SECONDS, what: str
    ) -> None:
        """Return once a condition on the output holds; it is asked after every line."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition():
                    self.must_run()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"no {what} within {timeout_seconds} s: {self.output}") from None

    async def port(self) -> int:
        """The HTTP port, from the line that says who listens."""
        return int((await self.wait_for_line("listening"))["http_port"])

    async def ask(self, path: str, *, port: int | None = None) -> tuple[int, str]:
        """Status and body of one GET; aiohttp's errors when nobody answers."""
        number = await self.port() if port is None else port
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(f"http://127.0.0.1:{number}{path}") as response,
        ):
            return response.status, await response.text()

    async def wait_until_ready(
        self, *, status: int = 200, state: str = "streaming", timeout_seconds: float = _PATIENCE_SECONDS
    ) -> str:
        """The body of `/readyz` as soon as it answers with `status`; where that is 200, in this state."""
        found: tuple[int, str] = (0, "")
        try:
            async with asyncio.timeout(timeout_seconds):
                while found[0] != status or (status == _READY and json.loads(found[1])["state"] != state):
                    self.must_run()
                    await asyncio.sleep(_POLL_SECONDS if found[0] else 0)
                    found = await self.ask("/readyz")
        except TimeoutError:
            raise TimeoutError(f"/readyz says {found} after {timeout_seconds} s: {self.output}") from None
        return found[1]

    async def metrics(self) -> Metrics:
        """What `/metrics` says now."""
        status, body = await self.ask("/metrics")
        assert status == 200
        return Metrics(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(body)
                for sample in family.samples
            }
        )

    async def wait_for_metrics(
        self, condition: Callable[[Metrics], bool], *, timeout_seconds: float = _PATIENCE_SECONDS
    ) -> Metrics:
        """The first scrape that fulfils `condition`."""
        found = await self.metrics()
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition(found):
                    self.must_run()
                    await asyncio.sleep(_POLL_SECONDS)
                    found = await self.metrics()
        except TimeoutError:
            raise TimeoutError(f"not reached within {timeout_seconds} s: {found}") from None
        return found

    async def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `stop`."""
        self.process.send_signal(signal.SIGCONT)

    async def exit_code(self, *, timeout_seconds: float = _PATIENCE_SECONDS) -> int:
        """The exit code, once the process has ended and all its output was read."""
        try:
            async with asyncio.timeout(timeout_seconds):
                code = await self.process.wait()
        except TimeoutError:
            raise TimeoutError(f"still running after {timeout_seconds} s: {self.output}") from None
        await asyncio.gather(*self.readers)
        return code

    async def read(self, stream: asyncio.StreamReader, into: list[str]) -> None:
        """Keep what the process writes."""
        while line := await stream.readline():
            into.append(line.decode())
            self._changed.set()
        self._changed.set()


@asynccontextmanager
async def start(
    settings: Mapping[str, str], *, directory: Path, arguments: tuple[str, ...] = ("run",)
) -> AsyncIterator[Daemon]:
    """The `tailer` command in a directory of its own; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tailer", *arguments),
        cwd=directory,
        env=make_environment({"TAILER_HTTP_HOST": "127.0.0.1", "TAILER_HTTP_PORT": "0", **settings}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    daemon = Daemon(process)
    daemon.readers = (
        asyncio.create_task(daemon.read(process.stdout, daemon.text)),
        asyncio.create_task(daemon.read(process.stderr, daemon.errors)),
    )
    try:
        yield daemon
    finally:
        await daemon.kill()
        await asyncio.gather(*daemon.readers)
    if arguments == ("run",):
        daemon.check_log()


async def run_to_end(
    settings: Mapping[str, str], *, directory: Path, arguments: tuple[str, ...] = ("run",)
) -> tuple[int, Daemon]:
    """A command that ends by itself: its exit code, and the process with all its output."""
    async with start(settings, directory=directory, arguments=arguments) as daemon:
        code = await daemon.exit_code()
    return code, daemon
