"""The composition root: makes every part of the daemon from the settings, starts it and ends it.

The one module that knows all the others. The order of a start is the order of what can be wrong: settings, MongoDB,
Langfuse, the state database; then the streams.
"""

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Final

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from tailer import __version__
from tailer.core.hints import Stream
from tailer.core.observations import Trace
from tailer.destination import name_destination, open_destination
from tailer.errors import SoftwareError, SourceAway, TailerError
from tailer.events import (
    Emit,
    Event,
    SettingDoubted,
    SourceUnanswered,
    Started,
    Stopped,
    StreamGapFound,
    TaskFailed,
)
from tailer.logs import LogLevel, LogWriter, route_library_logs
from tailer.metrics import Metrics
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import (
    QUERY_SOCKET_MILLISECONDS,
    STREAM_SOCKET_MILLISECONDS,
    SourceFacts,
    connect,
    describe_address,
    inspect_source,
    tolerant_database,
)
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.state import MongoState
from tailer.pipeline import Pipeline
from tailer.runtime import fit_interpreter
from tailer.settings import Settings
from tailer.supervision import Shutdown, supervise, within
from tailer.web.health import Health
from tailer.web.server import WebServer
from tailer.wiring import Observers, make_pipeline, needs_users

EXIT_FORCED: Final = 130
_SOURCE_PATIENCE: Final = timedelta(seconds=30)
_LAST_WRITE_LIMIT: Final = timedelta(seconds=5)


def run_daemon(settings: Settings) -> int:
    """Run until a signal ends it; the exit code. Raises TailerError for what an operator must mend."""
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
        self._metrics = Metrics(__version__)
        now = time.monotonic()
        self._health = Health(started_seconds=now, loop_seconds=now)

    @property
    def metrics(self) -> Metrics:
        """What `/metrics` shows of this run."""
        return self._metrics

    async def run(self, shutdown: Shutdown) -> int:
        """Start, run and end; 0 after an orderly end, also when a signal came while starting."""
        try:
            with shutdown.on_signals():
                async with AsyncExitStack() as stack:
                    await self._run(shutdown, stack)
        except TailerError:
            raise
        except Exception as error:
            self._emit(TaskFailed(*_locate(error)))
            raise SoftwareError(
                operation="running the daemon",
                subject=type(error).__name__,
                hint="an error that nothing expected ended it; nothing is lost, a restart goes on from the "
                "checkpoint. Please report the log line task_failed",
            ) from error
        self._emit(Stopped(forced=shutdown.forced.is_set()))
        return EXIT_FORCED if shutdown.forced.is_set() else 0

    async def _run(self, shutdown: Shutdown, stack: AsyncExitStack) -> None:
        settings = self._settings
        web = WebServer(
            settings.http_host,
            settings.http_port,
            self._health,
            self._metrics.registry,
            monotonic=time.monotonic,
        )
        await stack.enter_async_context(web)
        starting = asyncio.create_task(self._start(stack, web.port), name="start")
        asked = asyncio.create_task(shutdown.asked.wait(), name="signal")
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        pipeline = starting.result()
        limit = settings.shutdown_time if settings.langfuse_flush_at_shutdown else timedelta()
        await supervise(
            pipeline.readers(), pipeline.workers(), shutdown, lambda: pipeline.drain(shutdown, limit)
        )
        if not shutdown.forced.is_set():
            await within(_LAST_WRITE_LIMIT, shutdown, pipeline.checkpointing.save(pipeline.streams))

    async def _start(self, stack: AsyncExitStack, port: int) -> Pipeline:
        settings, emit = self._settings, self._emit
        for warning in settings.warnings:
            emit(SettingDoubted(warning))
        streams_client = connect(
            settings.mongo_uri.get_secret_value(),
            application="librechat-tailer-streams",
            socket_milliseconds=STREAM_SOCKET_MILLISECONDS,
        )
        stack.callback(streams_client.close)
        source_client = connect(
            settings.mongo_uri.get_secret_value(),
            application="librechat-tailer",
            socket_milliseconds=QUERY_SOCKET_MILLISECONDS,
        )
        stack.callback(source_client.close)
        state_client = connect(
            settings.state_uri.get_secret_value(),
            application="librechat-tailer-state",
            socket_milliseconds=QUERY_SOCKET_MILLISECONDS,
        )
        stack.callback(state_client.close)
        source = tolerant_database(source_client, settings.mongo_database)
        facts = await _wait_for_source(lambda: inspect_source(source), emit)
        state = MongoState(
            state_client, settings.state_database, emit, destination=name_destination(settings)
        )
        destination = await stack.enter_async_context(open_destination(settings, state, emit))
        await state.prepare(export_record=settings.export_record_lifetime)
        pipeline = await make_pipeline(
            settings,
            state,
            destination,
            MongoDocuments(
                source, emit, history_bytes=settings.history_bytes, with_users=needs_users(settings)
            ),
            [
                MongoChangeStream(
                    tolerant_database(streams_client, settings.mongo_database), stream, emit, facts.now
                )
                for stream in _streams(settings)
            ],
            Observers(emit, self._observe_traces, self._metrics, self._health),
        )
        emit(
            Started(
                version=__version__,
                watches=f"{settings.mongo_database} on {describe_address(source_client)} "
                f"(replica set {facts.replica_set}, MongoDB {facts.version})",
                writes_to=destination.sink.name
                if settings.langfuse_enabled
                else "nothing (LANGFUSE_ENABLED=false)",
                state_database=settings.state_database,
                resumes_from=_describe_resume(pipeline),
                http_port=port,
            )
        )
        return pipeline

    def _emit(self, event: Event) -> None:
        self._metrics.record(event)
        if isinstance(event, StreamGapFound):
            self._health.gaps += 1
        if event.level is not None:
            self._log.write(LogLevel(event.level), event.name, **asdict(event))
        if self._observe is not None:
            self._observe(event)


async def _wait_for_source(inspect: Callable[[], Awaitable[SourceFacts]], emit: Emit) -> SourceFacts:
    """What the server tells of itself; at the start an absent server is waited for only a while."""

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, SourceAway):
            emit(SourceUnanswered(error.subject, state.upcoming_sleep))

    attempts = AsyncRetrying(
        retry=retry_if_exception_type(SourceAway),
        stop=stop_after_delay(_SOURCE_PATIENCE.total_seconds()),
        wait=wait_exponential(multiplier=0.5, max=5) + wait_random(0, 1),
        before_sleep=report,
        reraise=True,
    )

    async def run() -> SourceFacts:
        return await inspect()

    return await attempts(run)


def _streams(settings: Settings) -> Sequence[Stream]:
    streams = [Stream.MESSAGES, Stream.CONVERSATIONS]
    return [*streams, Stream.TRANSACTIONS] if settings.stream_transactions else streams


def _describe_resume(pipeline: Pipeline) -> str:
    started = [stream for stream in pipeline.streams if pipeline.backlog.is_started(stream)]
    if not started:
        return "now (first start)"
    oldest = min(pipeline.backlog.read_position(stream).cluster_seconds for stream in started)
    return f"the checkpoint of {datetime.fromtimestamp(oldest, UTC).isoformat()}"


def _locate(error: BaseException) -> tuple[str, str]:
    """The class of an error and the line of code it came from: its message could hold content."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rpartition('tailer/')[2]}:{frames[-1].lineno}" if frames else "unknown"
    return type(error).__name__, where
