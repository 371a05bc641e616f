"""A run of the daemon's flow with all its real parts, from the change stream to Langfuse, which can end at any
moment."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bson import Timestamp
from pydantic import SecretStr

from tailer.core.stream.hints import Interest, Stream
from tailer.core.stream.positions import Answer
from tailer.daemon.destinations import open_destinations
from tailer.daemon.options import needs_groups, needs_users
from tailer.daemon.pipeline import Pipeline
from tailer.daemon.supervision import Work
from tailer.daemon.wiring import Observers, make_pipeline
from tailer.events import TurnDone
from tailer.flow.ports import UNCONDITIONAL
from tailer.health import Health
from tailer.metrics import Metrics
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.collections import Collections
from tailer.mongo.connection import connect, tolerant_database
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.state import MongoState
from tailer.mongo.walk import MongoWalk
from tailer.settings import Settings, SinkChoice, load_settings
from tests.e2e.databases import Databases, token_time
from tests.evidence import Events
from tests.fakes.langfuse import FakeLangfuse
from tests.integration.leading import lead

_POLL_SECONDS = 0.02
_NO_PACE = {
    "settle_time": timedelta(),
    "langfuse_flush_interval": timedelta(),
    "checkpoint_interval": timedelta(seconds=0.05),
    "lookup_time": timedelta(seconds=1),
    "request_timeout": timedelta(seconds=1),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What a test sees of a run while it lasts."""

    databases: Databases
    state: MongoState
    pipeline: Pipeline
    events: Events
    tasks: tuple[asyncio.Task[None], ...]

    async def until_done(self, *, seconds: float = 20) -> None:
        """Return once everything that was written so far was read, and nothing is open but waiting questions."""
        written = await self.databases.last_write()
        backlog = self.pipeline.backlog
        async with asyncio.timeout(seconds):
            for stream in self.pipeline.streams:
                while not self._was_read(stream, written):
                    self.check()
                    await asyncio.sleep(_POLL_SECONDS)
            while len(backlog) > backlog.turns.count(Interest.QUESTION):
                self.check()
                await asyncio.sleep(_POLL_SECONDS)

    def _was_read(self, stream: Stream, written: Timestamp) -> bool:
        backlog = self.pipeline.backlog
        token = backlog.read_position(stream).token if backlog.is_started(stream) else None
        return token is not None and token_time(token) >= written

    async def until_held(self, fake: FakeLangfuse, *, seconds: float = 20) -> None:
        """Return once a batch is written down and the fake holds its request without an answer, as told to."""
        async with asyncio.timeout(seconds):
            while not await self.state.pending_batches() or not any(
                fault["fired"] for fault in fake.faults.as_json()
            ):
                self.check()

    async def until(self, condition: Callable[[], bool], *, seconds: float = 20) -> None:
        """Return once a condition holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.check()
                await asyncio.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raise what ended a task."""
        for task in self.tasks:
            if task.done():
                task.result()

    def outcomes(self) -> list[str]:
        """How entries were closed, oldest first."""
        return [event.outcome for event in self.events.of(TurnDone)]


def settings_for(databases: Databases, fake: FakeLangfuse | None, **changed: Any) -> Settings:
    """The settings of a run without any waiting; traces go to the fake, or to the file of `changed`."""
    to_langfuse = {
        "langfuse_public_key": fake.public_key if fake is not None else None,
        "langfuse_secret_key": SecretStr(fake.secret_key) if fake is not None else None,
        "sink": SinkChoice.LANGFUSE if fake is not None else SinkChoice.FILE,
    }
    if fake is not None:
        to_langfuse["langfuse_url"] = fake.url
    return load_settings(
        **{
            "mongo_uri": SecretStr(databases.uri),
            "state_uri": SecretStr(databases.uri),
            "state_database": databases.state.name,
            **_NO_PACE,
            **to_langfuse,
            **changed,
        }
    )


@dataclass(frozen=True, slots=True)
class Made:
    """A run whose tasks nobody has started."""

    state: MongoState
    pipeline: Pipeline
    events: Events
    metrics: Metrics


@asynccontextmanager
async def making(
    databases: Databases,
    fake: FakeLangfuse | None,
    *,
    began: Answer | None = None,
    streams: Sequence[Stream] = (Stream.MESSAGES,),
    **changed: Any,
) -> AsyncIterator[Made]:
    """All parts of a run; `began` is what the server said first, by default just now."""
    settings, events = settings_for(databases, fake, **changed), Events()
    async with AsyncExitStack() as stack:
        client = connect(databases.uri, application="running", socket_milliseconds=30_000)
        stack.callback(client.close)
        source = tolerant_database(client, settings.mongo_database)
        state = await lead(client, settings.state_database, events, lifetime=settings.export_record_lifetime)
        destinations = await stack.enter_async_context(
            open_destinations(settings, events, known=False, permit=UNCONDITIONAL)
        )
        for destination in destinations:
            await destination.prepare()
        reader = MongoDocuments(
            source,
            events,
            history_bytes=settings.history_bytes,
            with_users=needs_users(settings),
            with_groups=needs_groups(settings),
        )
        sources = [MongoChangeStream(source, stream, events) for stream in streams]
        metrics = Metrics("test")
        observers = Observers(events, None, metrics, Health(time.monotonic(), time.monotonic()))
        walk = MongoWalk(source, Collections(source, events))
        first = began or Answer(int(time.time()), time.monotonic())
        pipeline = await make_pipeline(settings, state, destinations, reader, walk, sources, observers, first)
        yield Made(state, pipeline, events, metrics)


@asynccontextmanager
async def running(databases: Databases, fake: FakeLangfuse | None, **changed: Any) -> AsyncIterator[Run]:
    """A run for as long as the block lasts; its end is a crash, nothing is drained and nothing stored."""
    async with making(databases, fake, **changed) as made, AsyncExitStack() as stack:
        run = Run(databases, made.state, made.pipeline, made.events, _start(made.pipeline))
        stack.push_async_callback(_end, run.tasks)
        async with asyncio.timeout(20):
            await made.pipeline.checkpointing.wait_for_first(made.pipeline.streams)
        yield run
        run.check()


def _start(pipeline: Pipeline) -> tuple[asyncio.Task[None], ...]:
    works = {**pipeline.readers(), **pipeline.workers()}
    return tuple(asyncio.create_task(_run(work), name=name) for name, work in works.items())


async def _run(work: Work) -> None:
    await work


async def _end(tasks: tuple[asyncio.Task[None], ...]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Rewind:
    """The stored position as it was when this was made: going back there has everything since told again."""

    def __init__(self, databases: Databases) -> None:
        self._state = databases.state
        self._stored: dict[str, list[dict[str, Any]]] = {}

    async def mark(self) -> None:
        """Remember the position that is stored now."""
        self._stored = {
            name: await self._state[name].find().to_list(None) for name in ("checkpoints", "slots")
        }

    async def go_back(self) -> None:
        """Store it again; no run may be under way."""
        assert self._stored
        for name, documents in self._stored.items():
            await self._state[name].delete_many({})
            if documents:
                await self._state[name].insert_many(documents)
