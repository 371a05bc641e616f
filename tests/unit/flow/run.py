"""A whole run of the daemon's pipeline, put together by the composition root, between the outside in memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from pydantic import SecretStr

from tailer.core.stream.hints import Interest
from tailer.core.stream.positions import Answer
from tailer.daemon import wiring
from tailer.daemon.destinations import OpenDestination
from tailer.daemon.pipeline import Pipeline
from tailer.daemon.supervision import Shutdown, supervise
from tailer.daemon.wiring import Observers, make_pipeline
from tailer.events import TurnDone
from tailer.health import Health
from tailer.metrics import Metrics
from tailer.mongo.state import MongoState
from tailer.outbound.proof import Proven
from tailer.settings import Settings, load_settings
from tailer.settings.destinations import DEFAULT_NAME
from tests.evidence import Events
from tests.memory import (
    MemoryChanges,
    MemoryFollowups,
    MemoryMedia,
    MemoryReader,
    MemoryState,
    MemoryWalk,
)
from tests.memory.clock import monotonic
from tests.unit.flow.scene import LOOKUP_SECONDS, QUIET_SECONDS, Scene, server_clock, until

_GIVEN = {
    "mongo_uri": SecretStr("mongodb://memory/LibreChat"),
    "langfuse_public_key": "pk-lf-memory",
    "langfuse_secret_key": SecretStr("sk-lf-memory"),
    "langfuse_url": "https://langfuse.example",
    "checkpoint_interval": timedelta(seconds=5),
}
LONG = timedelta(days=2)


class VirtualClocks:
    """What the composition root takes for the module `time`."""

    @staticmethod
    def monotonic() -> float:
        return monotonic()

    @staticmethod
    def time() -> float:
        return server_clock()


@dataclass(frozen=True, slots=True)
class Run:
    """What a test sees of a run while it lasts."""

    scene: Scene
    pipeline: Pipeline
    events: Events
    shutdown: Shutdown
    task: "asyncio.Task[None]"

    async def until_done(self, *, limit: timedelta = LONG) -> None:
        """Return once everything that was written so far was read, and nothing is open but waiting questions."""
        written = self.scene.librechat.position()
        backlog = self.pipeline.backlog

        def is_done() -> bool:
            if self.task.done():
                self.task.result()
            read = [backlog.read_position(stream) for stream in self.pipeline.streams]
            waiting = backlog.turns.count(Interest.QUESTION)
            return min(place.moment for place in read) >= written.moment and len(backlog) == waiting

        await until(is_done, seconds=limit.total_seconds())

    async def stop(self) -> None:
        """An orderly end, as after the first signal; the last position is stored."""
        if not self.shutdown.asked.is_set():
            self.shutdown.request()
        await self.task
        await self.pipeline.checkpointing.save(self.pipeline.streams)

    def outcomes(self) -> list[str]:
        """How entries were closed, oldest first."""
        return [event.outcome for event in self.events.of(TurnDone)]


@asynccontextmanager
async def running(
    scene: Scene,
    *,
    reader: MemoryReader | None = None,
    media: MemoryMedia | None = None,
    drain: timedelta = timedelta(seconds=20),
    **changed: Any,
) -> AsyncIterator[Run]:
    """A run for as long as the block lasts; its end is a crash, unless it was stopped before."""
    settings = load_settings(**{**_GIVEN, **changed})
    events, shutdown = Events(), Shutdown()
    pipeline = await _make_pipeline(scene, settings, events, reader or MemoryReader(scene.librechat), media)
    task = asyncio.create_task(
        supervise(pipeline.readers(), pipeline.workers(), shutdown, lambda: pipeline.drain(shutdown, drain))
    )
    try:
        await until(lambda: set(pipeline.streams) <= set(scene.database.checkpoints) or task.done())
        # A task that is cancelled before it began leaves its coroutine behind.
        await asyncio.sleep(0.01)
        yield Run(scene, pipeline, events, shutdown, task)
    finally:
        if not task.done():
            task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
        raise ended


async def _make_pipeline(
    scene: Scene, settings: Settings, events: Events, reader: MemoryReader, media: MemoryMedia | None
) -> Pipeline:
    assert isinstance(vars(wiring)["time"], VirtualClocks)

    async def prepare() -> None:
        """Nothing."""

    async def prove() -> Proven:
        return Proven(None)

    destinations = [
        OpenDestination(
            described.name,
            scene.sink_of(described.name),
            MemoryFollowups(scene.at(described.name)),
            media if described.name == DEFAULT_NAME else None,
            timedelta(seconds=LOOKUP_SECONDS),
            prepare,
            prove,
        )
        for described in settings.destinations
    ]
    return await make_pipeline(
        settings,
        # The composition root names the adapter; it asks no more of it than the port and the key of masking.
        cast(MongoState, MemoryState(scene.database)),
        destinations,
        reader,
        MemoryWalk(scene.librechat),
        [MemoryChanges(scene.librechat, stream, poll_seconds=QUIET_SECONDS) for stream in settings.streams],
        Observers(events, None, Metrics("test"), Health(time.monotonic(), time.monotonic())),
        Answer(int(server_clock()), monotonic()),
    )


def told(history: list[tuple[str, str]]) -> Mapping[str, list[str]]:
    """What happened at the destination, by kind, in its order."""
    return {kind: [name for said, name in history if said == kind] for kind, _ in history}
