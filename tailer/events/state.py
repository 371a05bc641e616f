"""What happens to the tailer's own database."""

from dataclasses import dataclass
from typing import ClassVar

from tailer.core.stream.hints import Stream
from tailer.events.base import Event


@dataclass(frozen=True, slots=True)
class StateFailed(Event):
    """A write of the tailer's own state failed and is tried again."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "state_failed"
    operation: str
    failure: str


@dataclass(frozen=True, slots=True)
class CheckpointSaved(Event):
    """The position of a stream was stored."""

    level: ClassVar[str | None] = None
    stream: Stream
    cluster_seconds: int
    write_seconds: float


@dataclass(frozen=True, slots=True)
class LettersCounted(Event):
    """How many dead letters are kept."""

    level: ClassVar[str | None] = None
    kept: int
