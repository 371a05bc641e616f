"""The names of what one shard keeps for itself: its lease, its fence, its slots, its positions.

Everything else in the state is shared. Where there is one shard its names have no prefix.
"""

from dataclasses import dataclass
from typing import Any

from tailer.core.stream.hints import Stream
from tailer.core.stream.shard import Shard


@dataclass(frozen=True, slots=True)
class StateNames:
    """The `_id`s of one share, and how its documents are found. `shard` is None while all work is one share."""

    shard: str | None = None

    @property
    def writer(self) -> str:
        """The lease document."""
        return self._name("writer")

    @property
    def fence(self) -> str:
        """The fence document."""
        return self._name("fence")

    @property
    def query(self) -> dict[str, Any]:
        """Finds the documents of this share among those of all; a document without the field is of the first kind."""
        return {"shard": self.shard}

    @property
    def marks(self) -> dict[str, Any]:
        """What `query` finds a document by."""
        return {} if self.shard is None else {"shard": self.shard}

    def slot(self, number: int) -> str:
        """A slot document."""
        return self._name(f"slot-{number}")

    def checkpoint(self, stream: Stream) -> str:
        """The checkpoint document of a stream."""
        return self._name(stream.value)

    def stream(self, checkpoint_id: str) -> Stream:
        """The stream of a checkpoint document."""
        return Stream(checkpoint_id.removeprefix(self._name("")))

    def _name(self, name: str) -> str:
        return name if self.shard is None else f"{self.shard}/{name}"


def names_of(shard: Shard) -> StateNames:
    """The names of a shard; of the only one they have no prefix."""
    return StateNames(None if shard.is_whole else str(shard))
