"""Warnings and errors by kind: how often, and when last.

A kind is the name of an event, so there are only as many kinds as the code has. The fields of an event are never kept.
"""

from dataclasses import dataclass
from typing import Final

from tailer.events import Event

_COUNTED: Final = frozenset({"warning", "error"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind; `last_seconds` is its last time, in seconds since 1970."""

    kind: str
    level: str
    count: int
    last_seconds: float


class Troubles:
    """Counts events as they happen."""

    def __init__(self) -> None:
        self._found: dict[str, Trouble] = {}

    def record(self, event: Event, at_seconds: float) -> None:
        """Count an event if it is a warning or an error."""
        if event.level not in _COUNTED:
            return
        known = self._found.get(event.name)
        count = 1 if known is None else known.count + 1
        self._found[event.name] = Trouble(event.name, event.level, count, at_seconds)

    def latest_first(self) -> list[Trouble]:
        """All kinds that have happened."""
        return sorted(self._found.values(), key=lambda trouble: trouble.last_seconds, reverse=True)
