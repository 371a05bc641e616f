"""Looks after the other shards: whether each has an active instance, and whether its stored position gets on.

Every instance looks, active or standing by, because the missing one cannot tell. A shard counts as missing only after a
while, so that no hand-over is taken for it.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from tailer.core.layout import Layout
from tailer.core.stream.hints import Stream
from tailer.core.stream.shard import Shard
from tailer.events import Emit, ShardsMissing, ShardsSeen
from tailer.mongo.state import MongoLease, StateDatabase
from tailer.mongo.state.names import names_of
from tailer.mongo.state.survey import list_checkpoints

LOOK_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 30.0
"""Twice the time in which a standby takes over from a killed instance, or a pod is started anew."""
BEHIND_SECONDS: Final = 300
"""How far the position of a shard may lie behind that of the foremost one: an idle one moves every minute."""


class ShardWatch:
    """What one instance sees of all shards; `monotonic` in seconds."""

    def __init__(
        self,
        database: StateDatabase,
        total: int,
        lease_time: timedelta,
        emit: Emit,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._shards = Layout(total).shards
        self._leases = {
            shard: MongoLease(database, lease_time=lease_time, names=names_of(shard))
            for shard in self._shards
        }
        self._emit = emit
        self._monotonic = monotonic
        self._beats: dict[Shard, tuple[int, int]] = {}
        self._moved: dict[Shard, float] = {}
        self._missing: tuple[str, ...] = ()

    async def look(self) -> None:
        """Look once, and tell what is missing."""
        silent = [shard for shard in self._shards if not await self._beats_still(shard)]
        behind = await self._find_behind()
        missing = tuple(str(shard) for shard in self._shards if shard in silent or shard in behind)
        self._emit(ShardsSeen(len(self._shards), len(missing)))
        if missing != self._missing:
            self._missing = missing
            self._emit(ShardsMissing(missing, len(self._shards)))

    async def _beats_still(self, shard: Shard) -> bool:
        """Whether the lease of a shard has moved lately; one that was given up does not move."""
        record, now = await self._leases[shard].read(), self._monotonic()
        beat = None if record is None or record.released else (record.epoch, record.beat)
        if shard not in self._moved or (beat is not None and beat != self._beats.get(shard)):
            self._moved[shard] = now
        if beat is not None:
            self._beats[shard] = beat
        return now - self._moved[shard] < PATIENCE_SECONDS

    async def _find_behind(self) -> set[Shard]:
        seconds = {}
        for shard in self._shards:
            stored = await list_checkpoints(self._database, names_of(shard))
            seconds[shard] = min(
                (each.position.cluster_seconds for each in stored if each.stream is Stream.MESSAGES),
                default=None,
            )
        foremost = max((each for each in seconds.values() if each is not None), default=0)
        return {
            shard
            for shard, position in seconds.items()
            if position is not None and position < foremost - BEHIND_SECONDS
        }
