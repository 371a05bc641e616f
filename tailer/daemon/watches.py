"""What active and standby instances look at alike, now and then: the oplog, the dead letters, the other shards."""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Final

from tailer.daemon.connections import Connections
from tailer.daemon.faults import report_faults
from tailer.daemon.shard_watch import LOOK_SECONDS, ShardWatch
from tailer.daemon.side_tasks import looking
from tailer.errors import StateError
from tailer.events import Emit, LettersCounted, SideTask
from tailer.mongo.oplog import OplogWatch
from tailer.mongo.state.survey import count_dead_letters
from tailer.settings import Settings

_WATCH_SECONDS: Final = 30.0


@asynccontextmanager
async def watching(settings: Settings, connections: Connections, emit: Emit) -> AsyncIterator[None]:
    """Look at all of it within the block."""
    oplog = OplogWatch(connections.source, emit)
    report = report_faults(emit)

    async def count_letters() -> None:
        # A state database that must be fixed ends the instance where it is written to, not here.
        with suppress(StateError):
            emit(LettersCounted(await count_dead_letters(connections.state)))

    async with (
        looking(SideTask.OPLOG, oplog.look, every_seconds=_WATCH_SECONDS, report=report),
        looking(SideTask.DEAD_LETTERS, count_letters, every_seconds=_WATCH_SECONDS, report=report),
        _watching_shards(settings, connections, emit),
    ):
        yield


def _watching_shards(
    settings: Settings, connections: Connections, emit: Emit
) -> AbstractAsyncContextManager[None]:
    if settings.shard.is_whole:
        return nullcontext()
    watch = ShardWatch(
        connections.state, settings.shard.total, settings.lease_time, emit, monotonic=time.monotonic
    )
    return looking(SideTask.SHARDS, watch.look, every_seconds=LOOK_SECONDS, report=report_faults(emit))
