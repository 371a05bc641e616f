"""The composition root: makes every part of the daemon from the settings, starts it and ends it.

The one module that knows all the others. The order of a start is the order of what can be wrong: settings, MongoDB,
Langfuse, the state database; then the streams.
"""

import asyncio
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from tailer import __version__
from tailer.core.bounds import Bounds
from tailer.core.content_policy import ContentPolicy, mask_content
from tailer.core.export import ExportOptions
from tailer.core.identity import TraceId
from tailer.core.masking import Masker, compile_rules
from tailer.core.observations import Trace
from tailer.core.open_turns import OpenTurns
from tailer.core.otlp import SpanContext
from tailer.core.policies import ContentChoice, Policies
from tailer.core.users import UserNaming
from tailer.errors import DestinationError, SoftwareError, SourceAway, TailerError
from tailer.events import (
    DestinationAway,
    DestinationProven,
    Emit,
    Event,
    SendingDisabled,
    SourceUnanswered,
    Started,
    Stopped,
    StreamGapFound,
    TaskFailed,
)
from tailer.flow.assembly import Assembly
from tailer.flow.backlog import Backlog
from tailer.flow.batching import BatchLimits
from tailer.flow.checkpointing import Checkpointing
from tailer.flow.delivery import Delivery
from tailer.flow.intake import Intake
from tailer.flow.parking import Parking, Patience
from tailer.flow.ports import Sink
from tailer.flow.transmission import Transmission
from tailer.langfuse.connection import Credentials, LangfuseConnection, Proven, Unreachable
from tailer.langfuse.spans import LangfuseSpans
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
from tailer.pipeline import STREAMS, Pace, Pipeline
from tailer.sampler import Sampler
from tailer.settings import Settings, SinkChoice
from tailer.sinks.file import TraceFile
from tailer.supervision import Shutdown, supervise, within
from tailer.web.health import Health
from tailer.web.server import WebServer

EXIT_FORCED: Final = 130
_SOURCE_PATIENCE: Final = timedelta(seconds=30)
_LAST_WRITE_LIMIT: Final = timedelta(seconds=5)


def run_daemon(settings: Settings) -> int:
    """Run until a signal ends it; the exit code. Raises TailerError for what an operator must mend."""
    log = LogWriter(sys.stdout, settings.log_format, settings.log_level)
    with route_library_logs(log):
        return asyncio.run(Daemon(settings, log).run(Shutdown()))


class Daemon:
    """One run of the tailer. For the demo, `observe` sees every event and `observe_traces` every acknowledged trace."""

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
            await within(_LAST_WRITE_LIMIT, shutdown, pipeline.checkpointing.save(STREAMS))

    async def _start(self, stack: AsyncExitStack, port: int) -> Pipeline:
        settings, emit = self._settings, self._emit
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
        state = MongoState(state_client, settings.state_database, emit, destination=self._destination())
        sink = await stack.enter_async_context(self._open_sink(state))
        await state.prepare(export_record=settings.export_record_lifetime)
        pipeline = await self._make_pipeline(
            state,
            sink,
            MongoDocuments(source, emit, history_bytes=settings.history_bytes),
            [
                MongoChangeStream(tolerant_database(streams_client, settings.mongo_database), stream, emit)
                for stream in STREAMS
            ],
        )
        emit(
            Started(
                version=__version__,
                watches=f"{settings.mongo_database} on {describe_address(source_client)} "
                f"(replica set {facts.replica_set}, MongoDB {facts.version})",
                writes_to=sink.name if settings.langfuse_enabled else "nothing (LANGFUSE_ENABLED=false)",
                state_database=settings.state_database,
                resumes_from=_describe_resume(pipeline.backlog),
                http_port=port,
            )
        )
        return pipeline

    async def _make_pipeline(
        self, state: MongoState, sink: Sink, reader: MongoDocuments, sources: list[MongoChangeStream]
    ) -> Pipeline:
        settings, emit = self._settings, self._emit
        patience = Patience(settings.unanswered_after, settings.unfinished_after, settings.approval_time)
        parking = Parking(state, patience)
        await parking.load()
        open_turns = OpenTurns(
            settle_seconds=settings.settle_time.total_seconds(),
            park_seconds=settings.park_after.total_seconds(),
        )
        backlog = Backlog(open_turns, parking, limit=settings.open_turns, monotonic=time.monotonic)
        for stream in STREAMS:
            checkpoint = await state.load_checkpoint(stream)
            if checkpoint is not None:
                backlog.start(stream, checkpoint)
        in_flight: set[TraceId] = set()
        transmission = Transmission(sink, emit, lookup=settings.lookup_time, monotonic=time.monotonic)
        delivery = Delivery(
            backlog,
            parking,
            state,
            sink,
            transmission,
            BatchLimits(settings.batch_traces, settings.batch_bytes),
            in_flight,
            emit,
            concurrent_requests=settings.concurrent_requests,
            new_id=lambda: uuid4().hex,
            wall_clock=time.time,
            observe_traces=self._observe_traces,
        )
        unfinished = await delivery.claim_unfinished() if settings.langfuse_enabled else []
        options = ExportOptions(
            bounds=Bounds(field_bytes=settings.field_bytes, history_bytes=settings.history_bytes),
            tags=settings.tags,
            tag_facts=(),
            sample_rate=settings.langfuse_sample_rate,
            policies=Policies(content=ContentChoice(settings.content.value)),
            naming=UserNaming(),
            mask=await _make_mask(state),
        )
        assembly = Assembly(
            backlog, parking, reader, state, sink, options, in_flight, emit, hand_over=delivery.hand_over
        )
        return Pipeline(
            sources=sources,
            backlog=backlog,
            parking=parking,
            intake=Intake(backlog, state, emit, open_limit=settings.open_turns),
            assembly=assembly,
            delivery=delivery,
            unfinished=unfinished,
            checkpointing=Checkpointing(backlog, state, emit, monotonic=time.monotonic),
            sampler=Sampler(self._metrics, self._health, backlog, parking, delivery, transmission),
            health=self._health,
            emit=emit,
            pace=Pace(
                gather=settings.langfuse_flush_interval,
                checkpoint=settings.checkpoint_interval,
                senders=settings.concurrent_requests,
                sending=settings.langfuse_enabled,
            ),
        )

    @asynccontextmanager
    async def _open_sink(self, state: MongoState) -> AsyncIterator[Sink]:
        """The sink of the settings, proven good."""
        settings = self._settings
        if not settings.langfuse_enabled:
            self._emit(SendingDisabled())
        if settings.sink is SinkChoice.FILE:
            file = TraceFile(settings.file_path)
            if settings.langfuse_enabled:
                await file.prepare()
            yield file
            return
        secret = settings.langfuse_secret_key
        credentials = Credentials(
            host=settings.langfuse_url,
            public_key=settings.langfuse_public_key or "",
            secret_key=secret.get_secret_value() if secret is not None else "",
        )
        async with LangfuseConnection(
            credentials, request_timeout=settings.request_timeout, connections=settings.concurrent_requests
        ) as connection:
            if settings.langfuse_enabled:
                await _prove(connection, state, self._emit)
            yield LangfuseSpans(
                connection, SpanContext(settings.langfuse_environment, settings.langfuse_release)
            )

    def _destination(self) -> str:
        settings = self._settings
        return settings.langfuse_url if settings.sink is SinkChoice.LANGFUSE else str(settings.file_path)

    def _emit(self, event: Event) -> None:
        self._metrics.record(event)
        if isinstance(event, StreamGapFound):
            self._health.gaps += 1
        if event.level is not None:
            self._log.write(LogLevel(event.level), event.name, **asdict(event))
        if self._observe is not None:
            self._observe(event)


async def _make_mask(state: MongoState) -> ContentPolicy:
    """The masking of this deployment; its key is kept in the state database."""
    rules, key = compile_rules((), ()), await state.mask_key()
    return mask_content(lambda: Masker(rules, key))


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


async def _prove(connection: LangfuseConnection, state: MongoState, emit: Emit) -> None:
    """See that the keys are good. A Langfuse that never answered is a wrong address; one that did is waited for."""
    host = connection.credentials.host
    known = await state.was_delivered_before()

    def report(call: RetryCallState) -> None:
        answer = call.outcome.result() if call.outcome is not None else None
        if isinstance(answer, Unreachable):
            emit(DestinationAway(host, answer.reason, call.upcoming_sleep))

    attempts = AsyncRetrying(
        retry=retry_if_result(lambda answer: known and isinstance(answer, Unreachable)),
        wait=wait_exponential(multiplier=0.5, max=30) + wait_random(0, 1),
        before_sleep=report,
    )
    answer: Proven | Unreachable = await attempts(connection.prove)
    if isinstance(answer, Unreachable):
        raise DestinationError(
            operation="reaching Langfuse",
            subject=host,
            hint=f"nothing usable answers there ({answer.reason}); check LANGFUSE_HOST, and that this machine may "
            "reach it (proxy, firewall, DNS)",
        )
    emit(DestinationProven(host, answer.project))


def _describe_resume(backlog: Backlog) -> str:
    if not all(backlog.is_started(stream) for stream in STREAMS):
        return "now (first start)"
    oldest = min(backlog.read_position(stream).cluster_seconds for stream in STREAMS)
    return f"the checkpoint of {datetime.fromtimestamp(oldest, UTC).isoformat()}"


def _locate(error: BaseException) -> tuple[str, str]:
    """The class of an error and the line of code it came from: its message could hold content."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rpartition('tailer/')[2]}:{frames[-1].lineno}" if frames else "unknown"
    return type(error).__name__, where
