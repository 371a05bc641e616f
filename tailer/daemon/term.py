"""One term as the active instance: from the lease taken to the lease given up or lost."""

import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Final

from tailer import __version__
from tailer.core.layout import Layout
from tailer.core.stream.positions import Answer
from tailer.daemon.connections import Connections
from tailer.daemon.destinations import name_destination
from tailer.daemon.options import needs_groups, needs_users
from tailer.daemon.pipeline import Pipeline
from tailer.daemon.sharing import adopt_parked, begin_shard
from tailer.daemon.supervision import Shutdown, supervise, within
from tailer.daemon.wiring import Observers, make_pipeline
from tailer.errors import LeaseLost
from tailer.events import Started
from tailer.flow.leadership import Leadership
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.collections import Collections
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.quiet import Quiet
from tailer.mongo.state import MongoState
from tailer.mongo.walk import MongoWalk
from tailer.settings import Settings

_LAST_WRITE_LIMIT: Final = timedelta(seconds=5)


class Term:
    """What this process does while it holds the lease.

    `is_first` says that this process had no term before. `begins_with_process`: where no position is stored, the
    streams begin when this process connected. Otherwise they begin now: the process may have stood by for days before
    the positions were reset.
    """

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        leadership: Leadership,
        layout: Layout,
        observers: Observers,
        *,
        http_port: int,
        is_first: bool,
        begins_with_process: bool,
    ) -> None:
        self._settings = settings
        self._connections = connections
        self._leadership = leadership
        self._layout = layout
        self._observers = observers
        self._http_port = http_port
        self._is_first = is_first
        self._begins_with_process = begins_with_process
        self._fence = connections.lease.fence

    async def run(self, shutdown: Shutdown) -> None:
        """Work until a shutdown is asked for, and give the lease up.

        Raises LeaseLost if another instance took it. Any other error gives the lease up too, because another instance
        may fare better.
        """
        async with self._leadership.kept(), AsyncExitStack() as stack:
            stack.push_async_callback(self._fence.close)

            async def end(error: type[BaseException] | None, *_: object) -> None:
                # A lost lease is another's, and a cancelled task is to end at once.
                if error is None or (issubclass(error, Exception) and not issubclass(error, LeaseLost)):
                    await self._release(shutdown)

            stack.push_async_exit(end)
            await self._work(shutdown)

    async def _work(self, shutdown: Shutdown) -> None:
        settings = self._settings
        pipeline = await self._make_pipeline()
        limit = settings.shutdown_time if settings.langfuse_flush_at_shutdown else timedelta()
        await supervise(
            pipeline.readers(),
            {**pipeline.workers(), "watch lease": self._leadership.watch()},
            shutdown,
            lambda: pipeline.drain(shutdown, limit),
        )
        if not shutdown.forced.is_set():
            await within(_LAST_WRITE_LIMIT, shutdown, pipeline.checkpointing.save(pipeline.streams))

    async def _release(self, shutdown: Shutdown) -> None:
        # After a second signal nothing is waited for. The next instance takes over when this one has fallen silent.
        if not shutdown.forced.is_set():
            await within(_LAST_WRITE_LIMIT, shutdown, self._leadership.release())

    async def _make_pipeline(self) -> Pipeline:
        settings, connections, emit = self._settings, self._connections, self._observers.emit
        state = MongoState(connections.state, self._fence, destination=name_destination(settings))
        await state.prepare(lifetime=settings.export_record_lifetime)
        for destination in connections.destinations:
            await destination.prepare()
        since, quiet = connections.facts.now if self._begins_with_process else None, Quiet()
        reader = MongoDocuments(
            connections.source,
            emit,
            history_bytes=settings.history_bytes,
            with_users=needs_users(settings),
            with_groups=needs_groups(settings),
            proven=True,
        )
        await begin_shard(state, settings.streams, self._layout, settings.start)
        await adopt_parked(state, reader, self._layout, settings.shard)
        pipeline = await make_pipeline(
            settings,
            state,
            connections.destinations,
            reader,
            MongoWalk(connections.source, Collections(connections.source, emit, proven=True)),
            [
                MongoChangeStream(connections.source, stream, emit, since, shard=settings.shard, quiet=quiet)
                for stream in settings.streams
            ],
            self._observers,
            connections.began if self._begins_with_process else _move_on(connections.began, time.monotonic()),
        )
        emit(
            Started(
                version=__version__,
                watches=f"{settings.mongo_database} on {connections.address} "
                f"(replica set {connections.facts.replica_set}, MongoDB {connections.facts.version})",
                writes_to=", ".join(destination.sink.name for destination in connections.destinations)
                if settings.langfuse_enabled
                else "nothing (LANGFUSE_ENABLED=false)",
                state_database=settings.state_database,
                resumes_from=_describe_resume(pipeline),
                http_port=self._http_port,
            )
        )
        return pipeline


def _move_on(answer: Answer, now: float) -> Answer:
    """The server's answer by now."""
    return Answer(answer.source_seconds + int(now - answer.told_seconds), now)


def _describe_resume(pipeline: Pipeline) -> str:
    started = [stream for stream in pipeline.streams if pipeline.backlog.is_started(stream)]
    if not started:
        return "now (first start)"
    oldest = min(pipeline.backlog.read_position(stream).cluster_seconds for stream in started)
    return f"the checkpoint of {datetime.fromtimestamp(oldest, UTC).isoformat()}"
