"""Why a change stream had to be opened again, and why history was lost: closed lists for metrics and alerts."""

from enum import StrEnum


class FailureCause(StrEnum):
    """What ended a command of a change stream."""

    NETWORK = "network"
    """No connection, or none in time."""
    ELECTION = "election"
    """The server is no primary any more, or is shutting down."""
    CURSOR_LOST = "cursor_lost"
    """The server forgot or ended the cursor."""
    TOKEN_UNKNOWN = "token_unknown"
    """The token is not found under this pipeline: the stream starts at its time."""
    HISTORY_LOST = "history_lost"
    """The oplog no longer reaches back to the token, or nobody can read the token."""
    INVALIDATE = "invalidate"
    """The collection was dropped or renamed."""
    TOO_LARGE = "too_large"
    """One event is too large even when projected."""
    DENIED = "denied"
    """A privilege is missing, the password is refused, or the set is not initiated."""
    OTHER = "other"
    """Anything else; treated as passing."""


class GapReason(StrEnum):
    """Why a stretch of history was lost."""

    OPLOG_TOO_SHORT = "oplog_too_short"
    TOKEN_DAMAGED = "token_damaged"
