"""How far a stream may be checkpointed: never past an unfinished entry.

Owns the order of what was read, and what is still open. Knows neither what a position is nor where it is stored.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Position = TypeVar("Position")
Key = TypeVar("Key", bound=Hashable)


class Watermark(Generic[Key, Position]):
    """The position before the oldest open entry, or the last position read if nothing is open."""

    __slots__ = ("_open", "_read")

    def __init__(self, start: Position) -> None:
        self._read = start
        # A linked list under the hood: the oldest entry is found in constant time after any number of closings,
        # where a plain dict would walk over the holes at its front.
        self._open: OrderedDict[Key, Position] = OrderedDict()

    @property
    def read(self) -> Position:
        """The position up to which the stream was read."""
        return self._read

    @property
    def safe(self) -> Position:
        """The position that may be stored: a reader that resumes here sees every open entry again."""
        return next(iter(self._open.values()), self._read)

    def safe_without(self, done: frozenset[Key]) -> Position:
        """The position that may be stored together with the record that these entries are done."""
        return next((position for key, position in self._open.items() if key not in done), self._read)

    @property
    def open_count(self) -> int:
        """How many entries hold the position back."""
        return len(self._open)

    def open(self, key: Key) -> None:
        """Hold the position where it is; called before `advance` for the event that opens the entry.

        An entry that is already open keeps its older position, because the earlier event still needs it.
        """
        self._open.setdefault(key, self._read)

    def close(self, key: Key) -> None:
        """Release an entry that is acknowledged, parked or recorded; a key that is not open is ignored."""
        self._open.pop(key, None)

    def advance(self, position: Position) -> None:
        """Record that the stream was read up to `position`."""
        self._read = position
