"""Stores how far each stream is done. Batches carry the positions along when they are recorded; where none does, a
position is stored by itself from time to time, and at the end of a run."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Stream
from tailer.events import CheckpointSaved, Emit
from tailer.flow.backlog import Backlog
from tailer.flow.records import Checkpoint
from tailer.flow.stores import CheckpointStore

_FIRST_IDLE_SECONDS = 0.5
_LAST_IDLE_SECONDS = 10.0
"""How old the stored position of an idle stream may become: little is read again after a quiet night."""
_IDLE_GROWTH = 4
_UNCHANGED_SECONDS = 60.0
"""How long a stored position that did not change is left alone; then it is stored again, to show that it can be."""
_LOOK_SHARE = 0.25
"""How often it is looked whether a position is due, as a share of the interval."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """The state at the last save of a stream, and how long it may idle before the next save."""

    moves: int
    saved_seconds: float
    idle_seconds: float


class Checkpointing:
    """Knows which positions are stored, and stores those that no batch carried for a while. The position of an idle
    stream moves with the server's clock."""

    def __init__(
        self, backlog: Backlog, state: CheckpointStore, emit: Emit, *, monotonic: Callable[[], float]
    ) -> None:
        self._backlog = backlog
        self._state = state
        self._emit = emit
        self._monotonic = monotonic
        self._storing = asyncio.Lock()
        self._saved: dict[Stream, Checkpoint] = {}
        self._marks: dict[Stream, _Mark] = {}
        self._first = {stream: asyncio.Event() for stream in Stream}

    def saved(self, stream: Stream) -> Checkpoint | None:
        """The positions that were stored last in this run."""
        return self._saved.get(stream)

    async def wait_for_first(self, streams: Sequence[Stream]) -> None:
        """Return once a position of every stream is stored: from then on a crash loses nothing."""
        for stream in streams:
            await self._first[stream].wait()

    @asynccontextmanager
    async def carrying(
        self, closing: Callable[[], Collection[EntryKey]]
    ) -> AsyncIterator[Mapping[Stream, Checkpoint]]:
        """The positions that a batch carries, to be stored within the block: those that changed, as they are once the
        entries that `closing` gives are closed.

        One batch after another: each knows which entries the one before has closed, so no position goes back.
        """
        async with self._storing:
            began = self._monotonic()
            positions = self._backlog.checkpoints_without(closing())
            carried = {
                stream: checkpoint
                for stream, checkpoint in positions.items()
                if checkpoint != self._saved.get(stream)
            }
            yield carried
            for stream, checkpoint in carried.items():
                self._remember(stream, checkpoint, self._backlog.moves(stream), began)

    async def run(self, streams: Sequence[Stream], every: timedelta) -> None:
        """Save what is due, for ever."""
        seconds = every.total_seconds()
        while True:
            for stream in streams:
                if self._backlog.is_started(stream) and self._is_due(stream, seconds):
                    await self._save(stream)
            await asyncio.sleep(seconds * _LOOK_SHARE)

    async def save(self, streams: Sequence[Stream]) -> None:
        """Save every stream now."""
        for stream in streams:
            if self._backlog.is_started(stream):
                await self._save(stream)

    async def _save(self, stream: Stream) -> None:
        async with self._storing:
            moves = self._backlog.moves(stream)
            checkpoint = self._backlog.checkpoint(stream)
            began = self._monotonic()
            await self._state.save_checkpoint(stream, checkpoint)
            self._remember(stream, checkpoint, moves, began)

    def _remember(self, stream: Stream, checkpoint: Checkpoint, moves: int, began: float) -> None:
        self._saved[stream] = checkpoint
        self._marks[stream] = _Mark(moves, began, self._next_idle(stream, moves))
        self._first[stream].set()
        self._emit(CheckpointSaved(stream, checkpoint.position.cluster_seconds, self._monotonic() - began))

    def _is_due(self, stream: Stream, every_seconds: float) -> bool:
        """Whether a position is to be stored by itself: none was stored for a while, and it has changed; or an idle
        stream's grows old."""
        mark = self._marks.get(stream)
        if mark is None:
            return True
        age = self._monotonic() - mark.saved_seconds
        idle = self._backlog.moves(stream) == mark.moves
        if age < (max(every_seconds, mark.idle_seconds) if idle else every_seconds):
            return False
        return age >= _UNCHANGED_SECONDS or self._backlog.checkpoint(stream) != self._saved[stream]

    def _next_idle(self, stream: Stream, moves: int) -> float:
        """The next idle time. Our own write moves an idle stream again, so its saves become less and less frequent."""
        mark = self._marks.get(stream)
        if mark is None or mark.moves != moves:
            return _FIRST_IDLE_SECONDS
        return min(mark.idle_seconds * _IDLE_GROWTH, _LAST_IDLE_SECONDS)
