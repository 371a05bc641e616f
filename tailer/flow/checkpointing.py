"""Stores how far each stream is done, repeatedly and at the end of a run."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tailer.core.stream.hints import Stream
from tailer.events import CheckpointSaved, Emit
from tailer.flow.backlog import Backlog
from tailer.flow.records import Checkpoint
from tailer.flow.stores import CheckpointStore

_FIRST_IDLE_SECONDS = 0.5
_LAST_IDLE_SECONDS = 10.0
"""How old the stored position of an idle stream may become: little is read again after a quiet night."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """The state at the last save of a stream, and how long it may idle before the next save."""

    moves: int
    saved_seconds: float
    patience_seconds: float


class Checkpointing:
    """Saves a stream's position when it has moved. The position of an idle stream moves with the server's clock."""

    def __init__(
        self, backlog: Backlog, state: CheckpointStore, emit: Emit, *, monotonic: Callable[[], float]
    ) -> None:
        self._backlog = backlog
        self._state = state
        self._emit = emit
        self._monotonic = monotonic
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

    async def run(self, streams: Sequence[Stream], every: timedelta) -> None:
        """Save at each interval, for ever."""
        while True:
            await self.save(streams)
            await asyncio.sleep(every.total_seconds())

    async def save(self, streams: Sequence[Stream]) -> None:
        """Save every stream whose position has moved."""
        for stream in streams:
            if not self._backlog.is_started(stream) or not self._is_due(stream):
                continue
            moves = self._backlog.moves(stream)
            checkpoint = self._backlog.checkpoint(stream)
            began = self._monotonic()
            await self._state.save_checkpoint(stream, checkpoint)
            self._saved[stream] = checkpoint
            self._marks[stream] = _Mark(moves, began, self._next_patience(stream, moves))
            self._first[stream].set()
            self._emit(
                CheckpointSaved(stream, checkpoint.position.cluster_seconds, self._monotonic() - began)
            )

    def _is_due(self, stream: Stream) -> bool:
        """Whether something was read or done since the last save, or the position of an idle stream grows old."""
        mark = self._marks.get(stream)
        if mark is None or self._backlog.moves(stream) != mark.moves:
            return True
        return self._monotonic() - mark.saved_seconds >= mark.patience_seconds

    def _next_patience(self, stream: Stream, moves: int) -> float:
        """The next idle time. Our own write moves an idle stream again, so its saves become less and less frequent."""
        mark = self._marks.get(stream)
        if mark is None or mark.moves != moves:
            return _FIRST_IDLE_SECONDS
        return min(mark.patience_seconds * 2, _LAST_IDLE_SECONDS)
