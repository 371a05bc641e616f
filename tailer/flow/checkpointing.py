"""Stores how far each stream is done, again and again, and at the end of a run."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

from tailer.core.hints import Stream
from tailer.events import CheckpointSaved, Emit
from tailer.flow.backlog import Backlog
from tailer.flow.ports import Checkpoint, StateStore


class Checkpointing:
    """Saves a stream's position when it has moved; an idle stream's moves with the server's clock."""

    def __init__(
        self, backlog: Backlog, state: StateStore, emit: Emit, *, monotonic: Callable[[], float]
    ) -> None:
        self._backlog = backlog
        self._state = state
        self._emit = emit
        self._monotonic = monotonic
        self._saved: dict[Stream, Checkpoint] = {}
        self._first = {stream: asyncio.Event() for stream in Stream}

    def saved(self, stream: Stream) -> Checkpoint | None:
        """What was stored last in this run."""
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
            if not self._backlog.is_started(stream):
                continue
            checkpoint = self._backlog.checkpoint(stream)
            if checkpoint == self._saved.get(stream):
                continue
            began = self._monotonic()
            await self._state.save_checkpoint(stream, checkpoint)
            self._saved[stream] = checkpoint
            self._first[stream].set()
            self._emit(
                CheckpointSaved(stream, checkpoint.position.cluster_seconds, self._monotonic() - began)
            )
