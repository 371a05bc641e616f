"""What happens to the streams."""

from dataclasses import dataclass
from typing import ClassVar

from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import FailureCause
from tailer.events.base import Event


@dataclass(frozen=True, slots=True)
class StreamOpened(Event):
    """A change stream is open; `resumed_from_seconds` is None when it starts from now."""

    name: ClassVar[str] = "stream_opened"
    stream: Stream
    resumed_from_seconds: int | None


@dataclass(frozen=True, slots=True)
class StreamFailed(Event):
    """A command of a change stream failed; the named reaction follows. `hint` is the remedy where that is to wait."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "stream_failed"
    stream: Stream
    failure: str
    reaction: str
    cause: FailureCause = FailureCause.OTHER
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class StreamEnded(Event):
    """The server ended a change stream without an error, because its collection was dropped or renamed. It is opened
    again."""

    name: ClassVar[str] = "stream_ended"
    stream: Stream
    cause: FailureCause = FailureCause.INVALIDATE


@dataclass(frozen=True, slots=True)
class StreamGapFound(Event):
    """History is lost between two cluster times; the stream does not export the turns of that time."""

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
    """MongoDB does not answer at the start. The start waits for a while."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "source_unanswered"
    subject: str
    wait_seconds: float
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class BackfillStarted(Event):
    """A backfill begins, or continues after an earlier run; `reason` is asked, gap or start."""

    name: ClassVar[str] = "backfill_started"
    job_id: str
    reason: str
    resumed: bool


@dataclass(frozen=True, slots=True)
class BackfillBroken(Event):
    """A backfill broke the code and is left as it is until the next start; `error` is the class."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "backfill_broken"
    job_id: str
    error: str


@dataclass(frozen=True, slots=True)
class BackfillAdvanced(Event):
    """A chunk of a backfill is done, or the backfill begins. `remaining_rows` is None if they could not be counted;
    `position_seconds` is when the last walked row was made."""

    level: ClassVar[str | None] = None
    rows: int
    sent: int
    remaining_rows: int | None = None
    position_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class BackfillDone(Event):
    """A backfill is complete: rows walked, turns sent before, turns sent now, and turns that give no trace."""

    name: ClassVar[str] = "backfill_done"
    job_id: str
    rows: int
    known: int
    sent: int
    left_out: int


@dataclass(frozen=True, slots=True)
class GapsLeft(Event):
    """How many stretches of lost history are not yet filled."""

    level: ClassVar[str | None] = None
    gaps: int


@dataclass(frozen=True, slots=True)
class OplogSeen(Event):
    """How far MongoDB's oplog reaches, in cluster time."""

    level: ClassVar[str | None] = None
    first_seconds: int
    last_seconds: int


@dataclass(frozen=True, slots=True)
class OplogHidden(Event):
    """MongoDB does not say how far its oplog reaches; reported once."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "oplog_hidden"
    failure: str
    hint: str


@dataclass(frozen=True, slots=True)
class ClockCompared(Event):
    """This machine's clock was compared with that of MongoDB's primary."""

    level: ClassVar[str | None] = None
    ahead_seconds: float


@dataclass(frozen=True, slots=True)
class LibreChatClockCompared(Event):
    """LibreChat's clock was compared with MongoDB's, by the rows that it wrote last."""

    level: ClassVar[str | None] = None
    ahead_seconds: float
