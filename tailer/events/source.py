"""What happens to the streams."""

from dataclasses import dataclass
from typing import ClassVar

from tailer.core.hints import Stream
from tailer.events.base import Event


@dataclass(frozen=True, slots=True)
class StreamOpened(Event):
    """A change stream is open; `resumed_from_seconds` is None when it starts from now."""

    name: ClassVar[str] = "stream_opened"
    stream: Stream
    resumed_from_seconds: int | None


@dataclass(frozen=True, slots=True)
class StreamFailed(Event):
    """A command of a change stream failed; it heals by the named reaction."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "stream_failed"
    stream: Stream
    failure: str
    reaction: str


@dataclass(frozen=True, slots=True)
class StreamGapFound(Event):
    """History is lost between two cluster times: those turns are not exported by the stream."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "stream_gap_found"
    stream: Stream
    from_seconds: int
    to_seconds: int
    reason: str


@dataclass(frozen=True, slots=True)
class HintsRead(Event):
    """A batch of hints was read."""

    level: ClassVar[str | None] = None
    stream: Stream
    inserts: int
    updates: int
    replaces: int
    deletes: int


@dataclass(frozen=True, slots=True)
class ReadingPaused(Event):
    """Too much is open: reading waits, the oplog is the buffer."""

    name: ClassVar[str] = "reading_paused"
    stream: Stream
    open_turns: int


@dataclass(frozen=True, slots=True)
class SourceUnanswered(Event):
    """MongoDB does not answer at the start, which waits for a while."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "source_unanswered"
    subject: str
    wait_seconds: float
