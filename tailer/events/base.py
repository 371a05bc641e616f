"""What every event has, and how an event is reported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `level` is the log level, or None for what only metrics count."""

    level: ClassVar[str | None] = "info"
    name: ClassVar[str] = "event"


Emit: TypeAlias = Callable[[Event], None]
