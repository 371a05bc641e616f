"""Reads the streams into the backlog, batch by batch, and pauses while too much is open."""

from dataclasses import replace

from tailer.core.stream.hints import Operation, Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.shard import WHOLE, Shard
from tailer.events import Emit, HintsRead, ReadingPaused, StreamGapFound
from tailer.flow.backlog import Backlog
from tailer.flow.ports import ChangeSource, HistoryLost
from tailer.flow.records import Gap, StreamBatch
from tailer.flow.stores import GapStore


class Intake:
    """One reader for each source. A reader never ends by itself.

    What is certainly another `shard`'s is dropped here; the lanes decide where a hint does not say.
    """

    def __init__(
        self, backlog: Backlog, state: GapStore, emit: Emit, *, open_limit: int, shard: Shard = WHOLE
    ) -> None:
        self._shard = shard
        self._backlog = backlog
        self._state = state
        self._emit = emit
        self._open_limit = open_limit

    async def read(self, source: ChangeSource) -> None:
        """Follow a source for ever. Lost history is declared and stored as a gap; reading continues after it."""
        stream = source.stream
        start = self._backlog.read_position(stream) if self._backlog.is_started(stream) else None
        lost: HistoryLost | None = None
        while True:
            try:
                async for read in source.follow(start):
                    batch = self._choose_own(read)
                    if lost is not None:
                        self._backlog.skip(stream, batch.position)
                        await self._declare_gap(lost, batch.position)
                        lost = None
                    self._backlog.remember(stream, batch)
                    if stream is Stream.CONVERSATIONS and batch.hints:
                        # A title whose turn is already open goes with it. Ahead of its turn it would be built twice.
                        await self._backlog.wait_for_messages(stream, batch.hints[-1][1])
                    self._backlog.take_hints(stream, batch)
                    self._count(stream, batch)
                    if len(self._backlog) >= self._open_limit:
                        self._emit(ReadingPaused(stream, len(self._backlog)))
                        await self._backlog.wait_for_room(stream)
            except HistoryLost as error:
                lost, start = error, None

    async def _declare_gap(self, lost: HistoryLost, resumed: StreamPosition) -> None:
        begin, end = lost.position.cluster_seconds, resumed.cluster_seconds
        if begin > end:
            # A position of another server: all that is known is when it was stored.
            begin = min(end, self._backlog.saved_seconds(lost.stream) or end)
        gap = Gap(lost.stream, begin, end, lost.reason)
        await self._state.add_gap(gap)
        self._emit(StreamGapFound(gap.stream, gap.from_seconds, gap.to_seconds, gap.reason))

    def _choose_own(self, batch: StreamBatch) -> StreamBatch:
        if self._shard.is_whole:
            return batch
        owns = self._shard.owns
        hints = [
            each for each in batch.hints if each[0].conversation_id is None or owns(each[0].conversation_id)
        ]
        return replace(batch, hints=hints)

    def _count(self, stream: Stream, batch: StreamBatch) -> None:
        counts = dict.fromkeys(Operation, 0)
        for hint, _ in batch.hints:
            counts[hint.operation] += 1
        self._emit(
            HintsRead(
                stream,
                inserts=counts[Operation.INSERT],
                updates=counts[Operation.UPDATE],
                replaces=counts[Operation.REPLACE],
                deletes=counts[Operation.DELETE],
            )
        )
