"""What each failure of MongoDB means for a change stream. The codes were measured on a real server (6.0.5)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from tailer.core.stream.positions import FailureCause, GapReason
from tailer.errors import SourceAway, SourceError
from tailer.mongo.error_codes import ERROR_CODES, SERVICE_REMEDY, Reaction

_HISTORY_LOST: Final = 286
_PASSING_LABELS: Final = ("RetryableWriteError", "TransientTransactionError", "ResumableChangeStreamError")
"""The server's own word that a failure passes. The second one means that nothing of the transaction happened: it is
done again from its beginning."""


_TLS_REASONS: Final = (
    "certificate has expired", "unable to get local issuer certificate", "unable to get issuer certificate",
    "self-signed certificate", "self signed certificate", "hostname mismatch", "ip address mismatch", "certificate required",
    "unknown ca", "bad certificate", "wrong version number", "certificate verify failed",
)  # fmt: skip


_NO_MEMBER: Final = "available for replica set name"


class StreamUnsupported(PyMongoError):
    """A server answered a change stream without what makes it resumable."""


def passes(error: BaseException) -> bool:
    """Whether a failure goes away by itself."""
    if isinstance(error, AutoReconnect | ConnectionFailure | ExecutionTimeout):
        return True
    if not isinstance(error, OperationFailure):
        return False
    known = ERROR_CODES.get(error.code or 0)
    is_passing = known is not None and known.reaction is Reaction.REOPEN
    return is_passing or any(error.has_error_label(label) for label in _PASSING_LABELS)


def classify_failure(error: PyMongoError) -> Reaction:
    """The reaction to a failure of `aggregate` or `getMore`. An unknown failure is treated as temporary."""
    if passes(error):
        return Reaction.REOPEN
    known = ERROR_CODES.get((error.code or 0) if isinstance(error, OperationFailure) else 0)
    return Reaction.WAIT if known is None else known.reaction


def failure_cause(error: PyMongoError) -> FailureCause:
    """What ended a command of a change stream, as metrics count it."""
    # The driver raises a NotPrimaryError for what a stepping-down server says. By its class it is a failed connection.
    if isinstance(error, NotPrimaryError):
        return FailureCause.ELECTION
    if isinstance(error, StreamUnsupported):
        return FailureCause.UNSUPPORTED
    if isinstance(error, OperationFailure) and not isinstance(error, ConnectionFailure):
        known = ERROR_CODES.get(error.code or 0)
        is_known = known is not None and known.reaction is classify_failure(error)
        return known.cause if known is not None and is_known else FailureCause.OTHER
    return FailureCause.NETWORK if isinstance(error, ConnectionFailure) else FailureCause.OTHER


def gap_reason(error: PyMongoError) -> GapReason:
    """The reason why history after a token is lost."""
    code = error.code if isinstance(error, OperationFailure) else None
    return GapReason.OPLOG_TOO_SHORT if code == _HISTORY_LOST else GapReason.TOKEN_DAMAGED


def failure_name(error: PyMongoError) -> str:
    """A failure as a short word for logs and metrics: the server's code or the driver's class, never the message."""
    if isinstance(error, OperationFailure) and error.code is not None:
        return f"code_{error.code}"
    return type(error).__name__


def certificate_trouble(error: PyMongoError) -> str | None:
    """What is wrong with TLS, in words for an operator; None for another failure. The driver says it only in its
    message."""
    words = str(error).lower() if isinstance(error, ConnectionFailure) else ""
    known = next((reason for reason in _TLS_REASONS if reason in words), None)
    if known is None and "ssl handshake failed" not in words:
        return None
    return (
        f"TLS with MongoDB fails{f' ({known})' if known else ''}: see that tlsCAFile in the URI holds the authority of the "
        "server's certificate, that neither it nor tlsCertificateKeyFile has expired, and that the host name is the "
        "certificate's"
    )


def replica_set_trouble(error: PyMongoError) -> str | None:
    """What to look at where servers answer and none is of the replica set that the URI names; None for another failure.
    The driver says it only in its message."""
    if _NO_MEMBER not in str(error):
        return None
    return (
        "servers answered, and none belongs to the replica set that the URI names: the set may have another name; give the "
        "one that rs.status().set shows as replicaSet in TAILER_MONGO_URI"
    )


def find_source_failure(error: BaseException) -> SourceError | None:
    """The remedy for a driver's error that came through to the top, alone or in a group; None for any other error."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(find_source_failure, error.exceptions)), None)
    return explain_source_failure(error, "MongoDB") if isinstance(error, PyMongoError) else None


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Whatever the driver raises within the block becomes a SourceError with a remedy."""
    try:
        yield
    except PyMongoError as error:
        raise explain_source_failure(error, subject) from error


def explain_source_failure(
    error: PyMongoError, subject: str, operation: str = "reading MongoDB"
) -> SourceError:
    """The error that tells an operator what to do about a source that cannot be tailed."""
    if isinstance(error, ServerSelectionTimeoutError | AutoReconnect):
        hint = (
            certificate_trouble(error)
            or replica_set_trouble(error)
            or (
                "no server answered; check host and port in TAILER_MONGO_URI and that the names resolve from here"
            )
        )
        return SourceAway(operation=operation, subject=subject, hint=hint)
    return SourceError(operation=operation, subject=subject, hint=remedy_for(error))


def remedy_for(error: PyMongoError) -> str:
    """What an operator can do about a failure of the source that does not pass."""
    if isinstance(error, StreamUnsupported):
        return f"MongoDB answered without a postBatchResumeToken; {SERVICE_REMEDY}"
    if isinstance(error, ConfigurationError):
        return (
            "the URI cannot be used as it is; check host name, options and the SRV record in TAILER_MONGO_URI"
        )
    known = ERROR_CODES.get((error.code or 0) if isinstance(error, OperationFailure) else 0)
    if known is None or known.remedy is None:
        return f"MongoDB answered {failure_name(error)}; check TAILER_MONGO_URI and the server's log"
    is_plain = known.cause is FailureCause.DENIED
    return known.remedy if is_plain else f"MongoDB answered {failure_name(error)}; {known.remedy}"
