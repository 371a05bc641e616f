"""What each failure of MongoDB means for a change stream; codes as measured on a real server (6.0.5)."""

from enum import StrEnum

from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from tailer.core.stream.positions import FailureCause, GapReason
from tailer.errors import SourceAway, SourceError

_STANDALONE = 40573
_UNAUTHORIZED = 13
_AUTHENTICATION_FAILED = 18
_NOT_INITIALIZED = 94
_HISTORY_LOST = 286

REPLICA_SET_REMEDY = (
    "change streams need a replica set, and this mongod is standalone. One node is enough: start it with "
    "`mongod --replSet rs0 --bind_ip_all`, then once run "
    "`rs.initiate({_id: 'rs0', members: [{_id: 0, host: 'mongodb:27017'}]})` in mongosh, with the host name under "
    "which LibreChat reaches it; LibreChat's own MONGO_URI stays as it is"
)


class Reaction(StrEnum):
    """What the reader does after a failure."""

    REOPEN = "reopen"
    """Network, election, cursor gone: open again after the last token."""
    RESUME_BY_TIME = "resume_by_time"
    """280: the token is not found under this pipeline: start at its own time and drop what was seen."""
    HISTORY_LOST = "history_lost"
    """286: the oplog no longer reaches back to the token."""
    STEP_OVER = "step_over"
    """10334: one event is too large even when projected."""
    WAIT = "wait"
    """A privilege is missing or the set is not initiated: not ready until somebody mends it."""


_DAMAGED_TOKEN = (9, 15, 207, *range(40646, 40650), *range(50784, 50900), *range(51055, 51058), 6189500)
"""FailedToParse, Overflow, InvalidUUID and the numbers of the server's token and key string readers: what tokens with
random damage are answered with."""
_REACTIONS = {
    43: Reaction.REOPEN,  # CursorNotFound
    136: Reaction.REOPEN,  # CappedPositionLost of an open cursor: reopening tells whether history is lost
    237: Reaction.REOPEN,  # CursorKilled
    260: Reaction.RESUME_BY_TIME,  # InvalidResumeToken: sound, but of a stream over a whole database
    280: Reaction.RESUME_BY_TIME,
    _HISTORY_LOST: Reaction.HISTORY_LOST,
    10334: Reaction.STEP_OVER,
    _UNAUTHORIZED: Reaction.WAIT,
    _AUTHENTICATION_FAILED: Reaction.WAIT,
    _STANDALONE: Reaction.WAIT,
    _NOT_INITIALIZED: Reaction.WAIT,
    **dict.fromkeys(_DAMAGED_TOKEN, Reaction.HISTORY_LOST),
}


_CAUSES = {
    **dict.fromkeys((43, 136, 237), FailureCause.CURSOR_LOST),
    # InterruptedAtShutdown, InterruptedDueToReplStateChange, NotWritablePrimary, ShutdownInProgress and their like.
    **dict.fromkeys((91, 189, 10107, 11600, 11602, 13435, 13436), FailureCause.ELECTION),
    # HostUnreachable, HostNotFound, NetworkTimeout, SocketException.
    **dict.fromkeys((6, 7, 89, 9001), FailureCause.NETWORK),
}
_CAUSE_OF_REACTION = {
    Reaction.RESUME_BY_TIME: FailureCause.TOKEN_UNKNOWN,
    Reaction.HISTORY_LOST: FailureCause.HISTORY_LOST,
    Reaction.STEP_OVER: FailureCause.TOO_LARGE,
    Reaction.WAIT: FailureCause.DENIED,
}


def classify_failure(error: PyMongoError) -> Reaction:
    """The reaction to a failure of `aggregate` or `getMore`; what is not known is treated as passing."""
    if isinstance(error, OperationFailure) and not isinstance(error, ConnectionFailure):
        return _REACTIONS.get(error.code or 0, Reaction.REOPEN)
    return Reaction.REOPEN


def failure_cause(error: PyMongoError) -> FailureCause:
    """What ended a command of a change stream, as metrics count it."""
    # The driver makes a NotPrimaryError of what a server says that steps down: a connection that failed, by its class.
    if isinstance(error, NotPrimaryError):
        return FailureCause.ELECTION
    if isinstance(error, OperationFailure) and not isinstance(error, ConnectionFailure):
        code = error.code or 0
        return _CAUSES.get(code, _CAUSE_OF_REACTION.get(classify_failure(error), FailureCause.OTHER))
    return FailureCause.NETWORK if isinstance(error, ConnectionFailure) else FailureCause.OTHER


def gap_reason(error: PyMongoError) -> GapReason:
    """Why history after a token is lost."""
    code = error.code if isinstance(error, OperationFailure) else None
    return GapReason.OPLOG_TOO_SHORT if code == _HISTORY_LOST else GapReason.TOKEN_DAMAGED


def failure_name(error: PyMongoError) -> str:
    """A failure as a short word for logs and metrics: the server's code or the driver's class, never the message."""
    if isinstance(error, OperationFailure) and error.code is not None:
        return f"code_{error.code}"
    return type(error).__name__


def explain_source_failure(error: PyMongoError, subject: str) -> SourceError:
    """The error that tells an operator what to do about a source that cannot be tailed."""
    operation = "opening the change streams"
    if isinstance(error, ServerSelectionTimeoutError | AutoReconnect):
        hint = (
            "no server answered; check host and port in TAILER_MONGO_URI and that the names resolve from here"
        )
        return SourceAway(operation=operation, subject=subject, hint=hint)
    code = error.code if isinstance(error, OperationFailure) else None
    if code == _STANDALONE:
        hint = REPLICA_SET_REMEDY
    elif code == _UNAUTHORIZED:
        hint = (
            "the MongoDB user lacks a privilege; grant find and changeStream on the collections messages and "
            "conversations, and find on transactions and agents, for example with the built-in role `read` on "
            "LibreChat's database"
        )
    elif code == _AUTHENTICATION_FAILED:
        hint = "MongoDB refuses user or password; correct TAILER_MONGO_URI (authSource included)"
    elif code == _NOT_INITIALIZED:
        hint = "the replica set was never initiated; run rs.initiate(…) once in mongosh"
    elif isinstance(error, ServerSelectionTimeoutError | AutoReconnect):
        hint = (
            "no server answered; check host and port in TAILER_MONGO_URI and that the names resolve from here"
        )
    elif isinstance(error, ConfigurationError):
        hint = (
            "the URI cannot be used as it is; check host name, options and the SRV record in TAILER_MONGO_URI"
        )
    else:
        hint = f"MongoDB answered {failure_name(error)}; check TAILER_MONGO_URI and the server's log"
    return SourceError(operation=operation, subject=subject, hint=hint)
