"""What every event has, and how an event is reported."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `level` is the log level, or None for what only metrics count."""

    level: ClassVar[str | None] = "info"
    name: ClassVar[str] = "event"


Emit: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationEvent(Event):
    """Something that happened at one destination; None where there is only one."""

    destination: str | None = None


def tell_of(emit: Emit, destination: str) -> Emit:
    """Report events with the name of a destination in those that happen at one."""

    def tell(event: Event) -> None:
        emit(replace(event, destination=destination) if isinstance(event, DestinationEvent) else event)

    return tell
