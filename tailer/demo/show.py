"""`tailer demo`: recorded LibreChat traffic through a real MongoDB and the real daemon, one line for each finished
turn.

Owns the course of the demo: what begins when, and what ends it. It refuses to do any of the daemon's work: it shows
what the daemon reports as acknowledged.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

from tailer.core.identity import TraceId, title_trace_id, turn_trace_id
from tailer.core.stream.hints import Stream
from tailer.core.trace.observations import Trace
from tailer.daemon.daemon import EXIT_FORCED, Daemon
from tailer.daemon.supervision import Shutdown
from tailer.demo.database import DemoDatabase, given_uri, open_database
from tailer.demo.destination import choose_destination
from tailer.demo.finished_turn import is_title, read_turn
from tailer.demo.programme import Programme, make_programme
from tailer.demo.screen import Screen
from tailer.demo.stage.recording import Recording, demo_recordings
from tailer.demo.summary import Summary
from tailer.errors import TailerError
from tailer.events import Event, Listening, StreamOpened, TraceRejected, TurnFailed
from tailer.logs import LogFormat, LogWriter, route_library_logs
from tailer.settings import Settings

_PATIENCE: Final = timedelta(seconds=30)
"""How long after the last recorded write the last trace may arrive: the settle time and a few retries."""
_LEAD: Final = timedelta(seconds=1)
"""Recordings move by whole seconds, so the first may begin up to a second before the requested moment."""
_WATCHED: Final = frozenset({Stream.MESSAGES, Stream.CONVERSATIONS})
_TROUBLE: Final = frozenset({"warning", "error"})


def run_demo(*, keep: bool, file: Path | None, speed: float) -> int:
    """Play, show and sum up; returns the exit code. Raises the TailerError that ended it early."""
    return asyncio.run(_present(Screen(sys.stdout), keep=keep, file=file, speed=speed))


async def _present(screen: Screen, *, keep: bool, file: Path | None, speed: float) -> int:
    destination = choose_destination(file)
    recordings = demo_recordings()
    screen.introduce(destination, sessions=len(recordings))
    shutdown = Shutdown()
    with shutdown.on_signals():
        async with AsyncExitStack() as stack:
            if given_uri() is None:
                screen.note("Starting a MongoDB replica set on this machine …")
            database = await _start(stack, shutdown)
            if database is None:
                return EXIT_FORCED
            log_stream = stack.enter_context(destination.log_file.open("a", encoding="utf-8"))
            settings = destination.settings_for(database.uri)
            log = LogWriter(log_stream, LogFormat.TEXT, settings.log_level)
            stack.enter_context(route_library_logs(log))
            show = Show(settings, database, recordings, screen, log, keep=keep, speed=speed)
            code = await show.run(shutdown)
    screen.conclude(destination, show.summary)
    if code == 0 and show.owed and not keep:
        raise TailerError(
            operation="seeing every trace acknowledged",
            subject=f"{len(show.owed)} of {len(show.owed) + show.summary.traces} traces",
            hint=f"none of them came within {_PATIENCE.total_seconds():g} seconds of the last recorded write; the log "
            f"says why: {destination.log_file}",
        )
    return code


async def _start(stack: AsyncExitStack, shutdown: Shutdown) -> DemoDatabase | None:
    """The running server; None when a signal came first."""
    starting = asyncio.create_task(stack.enter_async_context(open_database(given_uri())), name="start")
    asked = asyncio.create_task(shutdown.asked.wait(), name="signal")
    try:
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        return starting.result() if starting.done() else None
    finally:
        asked.cancel()
        starting.cancel()
        await asyncio.gather(starting, asked, return_exceptions=True)


class Show:
    """One demo on a running server: the daemon, the player, and the words for the person. It runs once. `owed` are the
    traces that are not yet acknowledged."""

    def __init__(
        self,
        settings: Settings,
        database: DemoDatabase,
        recordings: Sequence[Recording],
        screen: Screen,
        log: LogWriter,
        *,
        keep: bool,
        speed: float,
    ) -> None:
        self.summary = Summary(settle_seconds=settings.settle_time.total_seconds())
        self.owed: set[TraceId] = set()
        self._database = database
        self._recordings = recordings
        self._screen = screen
        self._keep = keep
        self._speed = speed
        self._daemon = Daemon(settings, log, observe=self._notice, observe_traces=self._receive)
        self._programme: Programme | None = None
        self._began_seconds = 0.0
        self._opened: set[Stream] = set()
        self._reading = asyncio.Event()
        self._paid = asyncio.Event()
        # Never long: printing blocks the only event loop, and with it the daemon and the player.
        self._news: deque[tuple[float, Trace | Event]] = deque()
        self._news_came = asyncio.Event()

    async def run(self, shutdown: Shutdown) -> int:
        """Run until everything is played and acknowledged, or a signal comes; returns the exit code.

        Raises the TailerError that ended the daemon, or SourceError if the server accepts no more.
        """
        daemon = asyncio.create_task(self._daemon.run(shutdown), name="daemon")
        playing = asyncio.create_task(self._play(), name="play")
        telling = asyncio.create_task(self._tell(), name="tell")
        asked = asyncio.create_task(shutdown.asked.wait(), name="signal")
        tasks = (daemon, playing, telling, asked)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            interrupted = asked.done()
            if interrupted:
                playing.cancel()
                self._screen.note("Stopping: what is open is still sent. Ctrl-C again stops at once.")
            elif not daemon.done():
                shutdown.request()
                if _has_failed(playing) or _has_failed(telling):
                    shutdown.request()
            code = await daemon
            for helper in (playing, telling):
                if _has_failed(helper):
                    await helper
            self._tell_news()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return EXIT_FORCED if interrupted and not self._keep else code

    async def _play(self) -> None:
        """One round, or round after round. Each ends when its last trace is acknowledged or too late."""
        await self._reading.wait()
        while True:
            programme = make_programme(self._recordings, at=datetime.now(UTC) + _LEAD, salt=uuid4().hex)
            if self._programme is None:
                seconds = (programme.ends_at - programme.begins_at).total_seconds() / self._speed
                self._screen.begin(self._database.description, seconds=seconds, keep=self._keep)
            else:
                self._screen.note("Playing again, as other people's conversations.")
            self._programme = programme
            self.owed |= programme.turns | programme.titles
            self._paid.clear()
            await asyncio.sleep((programme.begins_at - datetime.now(UTC)).total_seconds())
            self._began_seconds = time.time()
            await self._database.play(programme, speed=self._speed)
            try:
                async with asyncio.timeout(_PATIENCE.total_seconds()):
                    await self._paid.wait()
            except TimeoutError:
                self._screen.note(f"{len(self.owed)} traces are late.")
            if not self._keep:
                return

    async def _tell(self) -> None:
        while True:
            await self._news_came.wait()
            self._tell_news()

    def _tell_news(self) -> None:
        self._news_came.clear()
        while self._news:
            at_seconds, news = self._news.popleft()
            if isinstance(news, Listening):
                self._screen.show_page(news.http_port)
            elif isinstance(news, Event):
                self._screen.show_trouble(news)
            elif is_title(news):
                self.summary.add_title(news)
            else:
                turn = read_turn(news, self._programme.names if self._programme is not None else {})
                self.summary.add_turn(turn, news, at_seconds - self._answered_seconds(news))
                self._screen.show_turn(turn, datetime.fromtimestamp(at_seconds).astimezone())

    def _answered_seconds(self, trace: Trace) -> float:
        """When an answer was finished, by this machine's clock, at any speed, in seconds since 1970."""
        stored = trace.root.end_milliseconds / 1000
        if self._programme is None:
            return stored
        return self._began_seconds + (stored - self._programme.begins_at.timestamp()) / self._speed

    def _receive(self, traces: Sequence[Trace]) -> None:
        now = time.time()
        self._news.extend((now, trace) for trace in traces)
        self._news_came.set()
        self._strike({trace.id for trace in traces})
        gauges = [
            self._daemon.metrics.registry.get_sample_value(
                "tailer_stream_lag_seconds", {"stream": stream.value}
            )
            for stream in _WATCHED
        ]
        self.summary.lag_seconds = max(self.summary.lag_seconds, *(value or 0.0 for value in gauges))

    def _notice(self, event: Event) -> None:
        if event.level in _TROUBLE or isinstance(event, Listening):
            self._news.append((time.time(), event))
            self._news_came.set()
        match event:
            case StreamOpened(stream):
                self._opened.add(stream)
                if self._opened >= _WATCHED:
                    self._reading.set()
            case TraceRejected(trace_id=trace_id):
                self.summary.lost += 1
                self._strike({TraceId(trace_id)})
            case TurnFailed(message_id=message_id):
                self.summary.lost += 1
                self._strike({turn_trace_id(message_id), title_trace_id(message_id)})
            case _:
                pass

    def _strike(self, trace_ids: AbstractSet[TraceId]) -> None:
        """Remove these from what is owed."""
        self.owed -= trace_ids
        if not self.owed:
            self._paid.set()


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
