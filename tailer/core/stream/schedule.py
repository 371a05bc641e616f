"""Which open entry is due next, for each kind of work. A place may be stale: the caller decides whether it still
holds."""

import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)


class Schedule(Generic[Kind, Key]):
    """The places of entries by the time at which they are due; equal times in the order in which they came."""

    def __init__(self) -> None:
        self._places: defaultdict[Kind, list[tuple[float, int, Key]]] = defaultdict(list)
        self._count = 0
        self._sequence = 0

    def __len__(self) -> int:
        """How many places there are, including stale ones."""
        return self._count

    def push(self, kind: Kind, due_seconds: float, key: Key) -> None:
        """Add a place."""
        self._sequence += 1
        self._count += 1
        heapq.heappush(self._places[kind], (due_seconds, self._sequence, key))

    def first(self, kind: Kind) -> tuple[float, Key] | None:
        """The earliest place of a kind, None if there is none."""
        places = self._places[kind]
        return (places[0][0], places[0][2]) if places else None

    def pop(self, kind: Kind) -> None:
        """Drop the earliest place of a kind."""
        heapq.heappop(self._places[kind])
        self._count -= 1

    def rebuild(self, places: Iterable[tuple[Kind, float, Key]]) -> None:
        """Keep only these places."""
        self._places.clear()
        self._count = self._sequence = 0
        for kind, due_seconds, key in places:
            self.push(kind, due_seconds, key)
