"""A place in a change stream, as it is read, kept and compared."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tailer.core.light_dataclass import light_dataclass

_TIMESTAMP: Final = "82"
"""A resume token of a change begins with the type of a timestamp, then its seconds and its number within them."""


@light_dataclass(frozen=True, slots=True)
class StreamPosition:
    """A resume token (the hex `_data`, always resumed with `startAfter`) and its time on the server in seconds.

    Without a token it is a moment: the stream begins with the first change of that second.
    """

    token: str | None
    cluster_seconds: int

    @property
    def moment(self) -> str:
        """The server's time, for comparison: seconds, then the number within the second, as hex digits."""
        if self.token is not None and self.token.startswith(_TIMESTAMP):
            return self.token[2:18]
        return f"{self.cluster_seconds:08x}{1:08x}".upper()


def token_seconds(token: str) -> int | None:
    """The seconds of the cluster time with which a resume token begins; None if it begins with something else."""
    try:
        return int(token[2:10], 16) if token.startswith(_TIMESTAMP) else None
    except ValueError:
        return None


_ALLOWANCE_SECONDS: Final = 30
"""A primary that has lost its set, and does not know yet, is behind by no more."""


def is_ahead(position: StreamPosition, server_seconds: int) -> bool:
    """Whether a position lies so far after the server's time that it is of another server: a set's time never goes
    back, and nothing would be read until it arrives there."""
    return position.cluster_seconds > server_seconds + _ALLOWANCE_SECONDS


class FailureCause(StrEnum):
    """What ended a command of a change stream."""

    NETWORK = "network"
    """No connection, or none in time."""
    ELECTION = "election"
    """The server is no longer primary, or is shutting down."""
    CURSOR_LOST = "cursor_lost"
    """The server forgot or ended the cursor."""
    TOKEN_UNKNOWN = "token_unknown"
    """The token is not found under this pipeline: the stream starts at its time."""
    HISTORY_LOST = "history_lost"
    """The oplog no longer reaches back to the token, or the token is unreadable."""
    INVALIDATE = "invalidate"
    """The collection was dropped or renamed."""
    TOO_LARGE = "too_large"
    """One event is too large even after the projection."""
    DENIED = "denied"
    """A privilege is missing, the password is refused, or the set is not initiated."""
    UNSUPPORTED = "unsupported"
    """The server, or the collection, has no such change streams."""
    OTHER = "other"
    """Anything else."""


class GapReason(StrEnum):
    """Why a stretch of history was lost."""

    OPLOG_TOO_SHORT = "oplog_too_short"
    TOKEN_DAMAGED = "token_damaged"
    POSITION_AHEAD = "position_ahead"


POLL_SECONDS: Final = 4.0
"""A stream answers at least every 2.5 seconds, even if nothing happens; after this time it counts as silent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The cluster time in an answer of the server, and when that came, by this machine's monotonic clock."""

    source_seconds: int
    told_seconds: float

    def is_overdue(self, now: float) -> bool:
        """Whether the next answer is overdue."""
        return now - self.told_seconds > POLL_SECONDS


def lag_seconds(last: Answer, position_seconds: int, now: float) -> float:
    """Lag in seconds: cluster time not yet read, plus the time since a silent server's last answer."""
    silent = now - last.told_seconds if last.is_overdue(now) else 0.0
    return max(0.0, last.source_seconds + silent - position_seconds)
