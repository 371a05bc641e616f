"""Reads the stored positions, and moves them while a daemon may be running. The work of `tailer checkpoint`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from tailer.core.lease import LeaseRecord
from tailer.core.moments import describe_seconds
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.shard import Shard
from tailer.daemon.destinations import name_destination
from tailer.errors import RequestRefused
from tailer.flow.records import Checkpoint
from tailer.mongo.connection import Database
from tailer.mongo.resuming import RowCount, count_rows, is_resumable, server_seconds
from tailer.mongo.state import MongoLease, MongoState, StateDatabase
from tailer.mongo.state.layout import forget_beginning, read_layout
from tailer.mongo.state.names import names_of
from tailer.mongo.state.positions import StoredCheckpoint, find_oldest
from tailer.mongo.state.survey import Pending, count_pending, list_all_checkpoints, list_checkpoints
from tailer.operations.opening import open_both
from tailer.settings import Settings


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a stream, in cluster seconds, without its end."""

    begin_seconds: int
    end_seconds: int


@dataclass(frozen=True, slots=True)
class Repositioning:
    """`read_again`: changes that were read before. `skipped`: changes that no stream will read."""

    read_again: Stretch | None
    skipped: Stretch | None


@dataclass(frozen=True, slots=True)
class StreamSurvey:
    """The present state of a stream of one shard. `age_seconds` is by the server's clock."""

    shard: Shard
    checkpoint: StoredCheckpoint
    age_seconds: int
    resumable: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that `tailer checkpoint show` prints."""

    streams: Sequence[StreamSurvey]
    pending: Pending
    leases: Mapping[Shard, LeaseRecord | None]


@dataclass(frozen=True, slots=True)
class Change:
    """The effect on one stream: from where to where, and how many rows."""

    stream: Stream
    stored_seconds: int | None
    begin_seconds: int
    effect: Repositioning
    rows: RowCount | None


class CheckpointDesk:
    """The stored positions of one tailer."""

    def __init__(self, settings: Settings, source: Database, state: StateDatabase) -> None:
        self._settings = settings
        self._source = source
        self._state = state

    async def survey(self) -> Survey:
        """The present state of everything; changes nothing."""
        now, layout = await server_seconds(self._source), await read_layout(self._state)
        streams = [
            StreamSurvey(
                shard,
                stored,
                max(0, now - stored.position.cluster_seconds),
                await is_resumable(self._source, stored.stream, stored.position),
            )
            for shard in layout.shards
            for stored in await list_checkpoints(self._state, names_of(shard))
        ]
        leases = {shard: await self._lease(shard).read() for shard in layout.shards}
        return Survey(streams, await count_pending(self._state), leases)

    async def plan(self, begin: datetime | None) -> Sequence[Change]:
        """What would follow from beginning at a time, or, for None, from now like a first start.

        Raises RequestRefused for a time that cannot be reached.
        """
        now = await server_seconds(self._source)
        begin_seconds = now if begin is None else int(begin.timestamp())
        if begin_seconds > now:
            raise RequestRefused(
                operation="moving the checkpoint",
                subject=describe_seconds(begin_seconds),
                hint=f"it lies in the future: MongoDB's own time is {describe_seconds(now)}",
            )
        if begin_seconds < 0:
            raise RequestRefused(
                operation="moving the checkpoint",
                subject=describe_seconds(begin_seconds),
                hint="it lies before 1970, where MongoDB's time begins",
            )
        stored = find_oldest(await list_all_checkpoints(self._state))
        return [
            await self._plan_stream(stream, stored.get(stream), begin_seconds, now)
            for stream in self._settings.streams
        ]

    async def _plan_stream(
        self, stream: Stream, stored: StreamPosition | None, begin_seconds: int, now: int
    ) -> Change:
        if begin_seconds < now and not await is_resumable(
            self._source, stream, StreamPosition(None, begin_seconds)
        ):
            raise RequestRefused(
                operation="moving the checkpoint",
                subject=f"{stream.value} to {describe_seconds(begin_seconds)}",
                hint="MongoDB's oplog no longer reaches back so far; what was written then is still in the "
                "collections, from where `tailer backfill` sends it",
            )
        stored_seconds = None if stored is None else stored.cluster_seconds
        effect = compare_positions(stored_seconds, begin_seconds)
        stretch = effect.read_again or effect.skipped
        rows = (
            None
            if stretch is None
            else await count_rows(self._source, stream, stretch.begin_seconds, stretch.end_seconds)
        )
        return Change(stream, stored_seconds, begin_seconds, effect, rows)

    async def move(self, begin: datetime) -> int:
        """Let every stream of every shard begin at a time; returns the latest epoch of the change."""
        async with self._taken() as states:
            for state in states:
                for stream in self._settings.streams:
                    position = StreamPosition(None, int(begin.timestamp()))
                    await state.save_checkpoint(stream, Checkpoint(position))
            return max(state.epoch for state in states)

    async def reset(self) -> int:
        """Forget every position; returns the latest epoch of the change."""
        async with self._taken() as states:
            for state in states:
                await state.forget_checkpoints()
            await forget_beginning(self._state)
            return max(state.epoch for state in states)

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[Sequence[MongoState]]:
        """The leases of all shards, taken from their holders: running daemons stand by until the block ends."""
        await self._state.prepare()
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(self._take(shard))
                for shard in (await read_layout(self._state)).shards
            ]

    @asynccontextmanager
    async def _take(self, shard: Shard) -> AsyncIterator[MongoState]:
        lease = self._lease(shard)
        while (epoch := await lease.take(await lease.read())) is None:
            continue
        try:
            yield MongoState(self._state, lease.fence, destination=name_destination(self._settings))
        finally:
            await lease.release(epoch)
            await lease.fence.close()

    def _lease(self, shard: Shard) -> MongoLease:
        return MongoLease(self._state, lease_time=self._settings.lease_time, names=names_of(shard))


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[CheckpointDesk]:
    """The desk over connections of its own; raises SourceError where MongoDB cannot be tailed."""
    async with open_both(settings, command="checkpoint") as (source, state):
        yield CheckpointDesk(settings, source, state)


def compare_positions(stored_seconds: int | None, begin_seconds: int) -> Repositioning:
    """What follows from beginning at a time instead of at the stored position; None without a stored position."""
    if stored_seconds is None or stored_seconds == begin_seconds:
        return Repositioning(None, None)
    if begin_seconds < stored_seconds:
        return Repositioning(Stretch(begin_seconds, stored_seconds), None)
    return Repositioning(None, Stretch(stored_seconds, begin_seconds))
