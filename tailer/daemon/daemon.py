"""The composition root: makes every part of the daemon from the settings, starts it and ends it.

A start proves what can be wrong in this order: settings, MongoDB, Langfuse, the state database (`connections`). Then
the daemon stands by until it has the lease, and is the active instance for a term (`term`), again and again.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict
from typing import Final

from tailer import __version__
from tailer.core.policy.policies import TracesShown
from tailer.core.trace.observations import Trace
from tailer.daemon.connections import Connections, open_connections
from tailer.daemon.faults import locate, report_faults
from tailer.daemon.first_time import FirstTime
from tailer.daemon.gauges import BEAT_SECONDS, show_state
from tailer.daemon.interpreter import fit_interpreter
from tailer.daemon.left_out import LeftOutWatch
from tailer.daemon.progress import Progress
from tailer.daemon.side_tasks import looking
from tailer.daemon.supervision import Shutdown, unless_asked
from tailer.daemon.term import Term
from tailer.daemon.watches import watching
from tailer.daemon.wiring import Observers
from tailer.errors import LeaseLost, SoftwareError, SourceAway, SourceError, StateError, TailerError
from tailer.events import (
    CredentialsRenewed,
    DaemonFailed,
    DestinationEvent,
    Event,
    GapsLeft,
    LeadershipLost,
    Listening,
    ReadFailed,
    SettingDoubted,
    ShardsMissing,
    SideTask,
    Stopped,
    StreamFailed,
    StreamGapFound,
    TaskFailed,
    TurnDone,
)
from tailer.health import Health, State
from tailer.logs import LogLevel, LogWriter, route_library_logs
from tailer.metrics import Metrics
from tailer.mongo.failures import find_source_failure
from tailer.settings import Settings, load_settings
from tailer.web.page.board import StatusBoard
from tailer.web.page.figures import read_figures
from tailer.web.server import PATIENCE_SECONDS, WebServer
from tailer.web.status_page import StatusPage

EXIT_FORCED: Final = 130
_START_SECONDS: Final = 60.0
"""A process that has stood by for less than this is still starting: it waits until the lease of a killed instance
expires."""


def run_daemon(settings: Settings) -> int:
    """Run until a signal ends it; returns the exit code. Raises TailerError for what an operator must fix."""
    log = LogWriter(sys.stdout, settings.log_format, settings.log_level)
    fit_interpreter()
    with route_library_logs(log):
        return asyncio.run(Daemon(settings, log).run(Shutdown()))


class Daemon:
    """One run of the tailer. For the demo, `observe` sees every event, `observe_traces` every acknowledged trace."""

    def __init__(
        self,
        settings: Settings,
        log: LogWriter,
        observe: Callable[[Event], None] | None = None,
        observe_traces: Callable[[Sequence[Trace]], None] | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._observe = observe
        self._observe_traces = observe_traces
        self._metrics = Metrics(
            __version__,
            shard=settings.shard,
            usage_label_values=settings.usage_label_values if settings.usage_metrics else None,
            destinations=[destination.name for destination in settings.destinations],
        )
        # Bound once, because looking up a method of this kind costs more than counting.
        self._record = self._metrics.record
        now = time.monotonic()
        self._health = Health(started_seconds=now, loop_seconds=now)
        self._progress = Progress(self._emit, monotonic=time.monotonic)
        self._board = self._make_board() if settings.status_page else None
        self._stood_by = False
        self._is_first = True
        self._left_out = LeftOutWatch(self._emit)

    @property
    def metrics(self) -> Metrics:
        """The metrics of this run."""
        return self._metrics

    async def run(self, shutdown: Shutdown) -> int:
        """Start, run and end; 0 after an orderly end, also when a signal came while starting."""
        try:
            with shutdown.on_signals():
                async with AsyncExitStack() as stack:
                    await self._run(shutdown, stack)
        except TailerError as error:
            self._tell_end(error)
            raise
        except Exception as error:
            if (source := find_source_failure(error)) is not None:
                self._tell_end(source)
                raise source from error
            self._emit(TaskFailed(*locate(error)))
            raise SoftwareError(
                operation="running the daemon",
                subject=type(error).__name__,
                hint="an error that nothing expected ended it; nothing is lost, a restart goes on from the "
                "checkpoint. Please report the log line task_failed",
            ) from error
        self._progress.tell()
        self._emit(Stopped(forced=shutdown.forced.is_set()))
        return EXIT_FORCED if shutdown.forced.is_set() else 0

    def _tell_end(self, error: TailerError) -> None:
        self._emit(DaemonFailed(error.operation, error.subject, error.hint, error.exit_code))

    async def _run(self, shutdown: Shutdown, stack: AsyncExitStack) -> None:
        settings = self._settings
        web = WebServer(
            settings.http_host,
            settings.http_port,
            self._health,
            self._metrics.registry,
            monotonic=time.monotonic,
            page=self._make_page(),
        )
        await stack.enter_async_context(web)
        await stack.enter_async_context(self._beating())
        self._emit(Listening(web.port, tuple(web.addresses)))
        for warning in settings.warnings:
            self._emit(SettingDoubted(warning))
        renewed: tuple[str, ...] = ()
        while True:
            async with AsyncExitStack() as opened:
                try:
                    connections = await unless_asked(
                        shutdown,
                        "start",
                        open_connections(self._settings, opened, self._emit, self._stand_by),
                    )
                except SourceAway:
                    if not renewed:
                        raise
                    # It worked once: a server that is away, or a file that is not renewed yet, is waited for.
                    continue
                if connections is None:
                    return
                await opened.enter_async_context(watching(self._settings, connections, self._emit))
                renewed = await self._serve(connections, shutdown, http_port=web.port)
            if not renewed:
                return
            self._emit(CredentialsRenewed(renewed))
            self._health.begin_term()
            self._read_addresses_again()

    def _read_addresses_again(self) -> None:
        """Apply a password that changed in `.env`; everything else there is read at the next start."""
        if self._settings.uri_files:
            read = load_settings()
            addresses = {"mongo_uri": read.mongo_uri, "state_uri": read.state_uri}
            self._settings = self._settings.model_copy(update=addresses)

    async def _serve(
        self, connections: Connections, shutdown: Shutdown, *, http_port: int
    ) -> tuple[str, ...]:
        """Lead and stand by until a shutdown is asked for, or until the connections are outdated; returns the files
        that changed."""
        leading = asyncio.create_task(self._lead(connections, shutdown, http_port=http_port), name="lead")
        outdated = asyncio.create_task(connections.wait_until_outdated(), name="watch files")
        try:
            await asyncio.wait({leading, outdated}, return_when=asyncio.FIRST_COMPLETED)
            if not leading.done():
                return outdated.result()
            try:
                leading.result()
            except (SourceError, StateError):
                # A certificate or a password may be refused before anything goes without an answer.
                if not (changed := connections.files.changed()):
                    raise
                return tuple(map(str, changed))
            return ()
        finally:
            leading.cancel()
            outdated.cancel()
            await asyncio.gather(leading, outdated, return_exceptions=True)

    async def _lead(self, connections: Connections, shutdown: Shutdown, *, http_port: int) -> None:
        """Stand by, lead for a term, and again, until a shutdown is asked for."""
        observers = Observers(self._emit, self._trace_observer(), self._metrics, self._health)
        while not shutdown.asked.is_set():
            layout = await unless_asked(shutdown, "agree on shards", connections.agreement.reach())
            if layout is None:
                return
            leadership = await unless_asked(shutdown, "stand by", connections.candidacy.win())
            if leadership is None:
                return
            if not await connections.agreement.is_reached():
                # While it stood by, the state was divided anew: what it waited for is no more.
                await leadership.release()
                await connections.lease.fence.close()
                continue
            self._health.begin_term()
            waited = self._stood_by and connections.age_seconds > _START_SECONDS
            term = Term(
                self._settings,
                connections,
                leadership,
                layout,
                observers,
                http_port=http_port,
                is_first=self._is_first,
                begins_with_process=self._is_first and not waited,
            )
            self._is_first = False
            try:
                await term.run(shutdown)
            except LeaseLost as lost:
                self._emit(LeadershipLost(lost.epoch))
                self._health.begin_term()

    def _stand_by(self) -> None:
        """A standby has just seen who holds the lease."""
        self._stood_by = True
        self._health.looked_seconds = time.monotonic()
        self._health.state = State.STANDBY

    def _beating(self) -> AbstractAsyncContextManager[None]:
        """Show that the event loop runs, also while a start or a standby waits for a server."""

        async def beat() -> None:
            self._health.loop_seconds = time.monotonic()
            show_state(self._metrics, self._health)
            self._progress.beat()
            if self._board is not None:
                self._board.beat()

        return looking(SideTask.BEAT, beat, every_seconds=BEAT_SECONDS, report=report_faults(self._emit))

    def _make_board(self) -> StatusBoard:
        return StatusBoard(
            __version__,
            lambda: read_figures(self._metrics.registry),
            lambda: self._health.condition(time.monotonic(), patience_seconds=PATIENCE_SECONDS),
            shown=self._settings.status_traces,
            monotonic=time.monotonic,
            wall_clock=time.time,
        )

    def _make_page(self) -> StatusPage | None:
        return None if self._board is None else StatusPage(self._board.report, self._settings.status_hosts)

    def _trace_observer(self) -> Callable[[Sequence[Trace]], None] | None:
        """Who sees acknowledged traces; None if no part does, so that they need not be kept until then."""
        watchers = [] if self._observe_traces is None else [self._observe_traces]
        if self._board is not None and self._settings.status_traces is not TracesShown.NONE:
            watchers.append(self._board.keep_traces)
        if self._metrics.wants_traces:
            watchers.append(self._metrics.count_traces)
        if not watchers:
            return None

        def tell(traces: Sequence[Trace]) -> None:
            for watch in watchers:
                watch(traces)

        return FirstTime(tell) if len(self._settings.destinations) > 1 else tell

    def _emit(self, event: Event) -> None:
        self._record(event)
        if isinstance(event, TurnDone):
            self._left_out.note(event)
        elif isinstance(event, StreamGapFound):
            self._health.gaps += 1
        elif isinstance(event, GapsLeft):
            self._health.gaps = event.gaps
        elif isinstance(event, ShardsMissing):
            self._health.missing_shards = event.missing
        elif isinstance(event, StreamFailed) and event.hint is not None:
            self._health.note_fault(f"stream {event.stream.value}", event.hint, time.monotonic())
        elif isinstance(event, ReadFailed) and event.hint is not None:
            self._health.note_fault(f"reading {event.collection}", event.hint, time.monotonic())
        if self._board is not None:
            self._board.record(event)
        self._write_log(event)
        if self._observe is not None:
            self._observe(event)
        self._progress.record(event)

    def _write_log(self, event: Event) -> None:
        if event.level is None or not self._log.shows(LogLevel(event.level)):
            return
        fields = asdict(event)
        if isinstance(event, DestinationEvent) and event.destination is None:
            fields.pop("destination", None)
        self._log.write(LogLevel(event.level), event.name, **fields)
