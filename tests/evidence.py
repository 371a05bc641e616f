"""What tests look at: the events that were emitted, a stream that is being read, traces to send."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from tailer.core.identity import DocumentKey, ObservationId, TraceId, turn_trace_id
from tailer.core.stream.hints import ChangeHint
from tailer.core.stream.positions import StreamPosition
from tailer.core.trace.observations import Observation, ObservationType, Trace
from tailer.events import Event
from tailer.flow.ports import ChangeSource
from tailer.flow.records import BatchItem, Probe

_Kind = TypeVar("_Kind", bound=Event)


class Events:
    """An `Emit` that keeps everything."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.all.append(event)
        self._changed.set()

    def of(self, kind: type[_Kind]) -> list[_Kind]:
        """The events of one kind, oldest first."""
        return [event for event in self.all if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool], *, seconds: float = 20) -> None:
        """Return once the condition holds; it is asked after every event."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Reading:
    """Follows a change stream for as long as the block lasts; the block begins once the stream is open.

    `open_seconds` bounds that beginning. What the stream raises is raised by `until`.
    """

    def __init__(
        self, source: ChangeSource, start: StreamPosition | None = None, *, open_seconds: float = 20
    ) -> None:
        self.hints: list[ChangeHint] = []
        self.positions: list[StreamPosition] = []
        self.read_at: list[float] = []
        self.last = start
        self.batches = 0
        self._source = source
        self._start = start
        self._open_seconds = open_seconds
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        try:
            await self.until(lambda: self.batches > 0, seconds=self._open_seconds)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], *, seconds: float = 20) -> None:
        """Return once the condition holds; it is asked after every batch."""
        assert self._task is not None
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait({changed, self._task}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if self._task.done():
                    self._task.result()

    async def until_read(self, count: int, *, seconds: float = 20) -> list[ChangeHint]:
        """The hints, once there are at least so many."""
        await self.until(lambda: len(self.hints) >= count, seconds=seconds)
        return self.hints

    async def beyond(self, *, batches: int = 2) -> None:
        """Return after that many more answers of the server: what it had to say by now has arrived."""
        goal = self.batches + batches
        await self.until(lambda: self.batches >= goal)

    def ids(self) -> list[str | None]:
        """The message ids of the hints in their order."""
        return [hint.message_id for hint in self.hints]

    async def _follow(self) -> None:
        async for batch in self._source.follow(self._start):
            for hint, position in batch.hints:
                self.hints.append(hint)
                self.positions.append(position)
                self.read_at.append(time.monotonic())
            self.last = batch.position
            self.batches += 1
            self._changed.set()


def make_trace(message_id: str, *, text: str = "What is the time?") -> Trace:
    """A trace of one observation."""
    return Trace(
        id=turn_trace_id(message_id),
        name="LibreChat turn",
        message_id=message_id,
        document_key=message_id.encode()[-12:].hex().rjust(24, "0"),
        user_id="user-1",
        session_id="conversation-1",
        tags=("librechat",),
        metadata={},
        observations=(
            Observation(
                id=ObservationId(turn_trace_id(message_id)[:16]),
                parent_id=None,
                type=ObservationType.AGENT,
                name=f"turn {message_id}",
                start_milliseconds=1_760_000_000_000,
                end_milliseconds=1_760_000_002_000,
                input=text,
                output="Noon",
            ),
        ),
    )


def trace_ids(*message_ids: str) -> list[TraceId]:
    """The trace ids of turns."""
    return [turn_trace_id(message_id) for message_id in message_ids]


def observation_ids(*message_ids: str) -> list[ObservationId]:
    """The ids of the only observations of traces by `make_trace`."""
    return [make_trace(message_id).root.id for message_id in message_ids]


def probes(*message_ids: str) -> list[Probe]:
    """What to look for of traces by `make_trace`."""
    return [
        Probe(trace.id, trace.root.id, trace.root.start_milliseconds)
        for trace in map(make_trace, message_ids)
    ]


def make_item(trace: Trace, chunk: bytes) -> BatchItem:
    """A trace as one item of a batch."""
    return BatchItem(
        record_id=trace.record_id,
        probe=Probe(trace.id, trace.root.id, trace.root.start_milliseconds),
        message_id=trace.message_id,
        document_key=DocumentKey(trace.document_key),
        chunk_bytes=len(chunk),
    )
