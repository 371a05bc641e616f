"""How far a stream is behind, such that it is true at any moment: 0 when idle, growing while nothing answers.

Measured by the server's clock alone; this machine's serves only to tell how long ago the server last spoke.
"""

from dataclasses import dataclass
from typing import Final

POLL_SECONDS: Final = 2.0
"""A stream answers every second, also when it has nothing to say; later than this it counts as silent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The cluster time that an answer of the server named, and when it came, by this machine's monotonic clock."""

    source_seconds: int
    told_seconds: float

    def is_overdue(self, now: float) -> bool:
        """Whether the next answer should have come."""
        return now - self.told_seconds > POLL_SECONDS


def lag_seconds(last: Answer, position_seconds: int, now: float) -> float:
    """Cluster time not yet read, and the time for which nobody knows what there is to read."""
    silent = now - last.told_seconds if last.is_overdue(now) else 0.0
    return max(0.0, last.source_seconds + silent - position_seconds)
