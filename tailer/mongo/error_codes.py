"""MongoDB's error codes: what each means here, what the tailer does after it, and what an operator can do.

The one table behind streams, reads and the state; `docs/mongodb-errors.md` shows it. Codes were tried on 6.0.5 where
that server knows them; 303 and 8000 come from services that speak MongoDB's protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tailer.core.stream.positions import FailureCause


class Reaction(StrEnum):
    """What a reader does after a failure."""

    REOPEN = "reopen"
    """It passes: try again, a stream after its last token."""
    RESUME_BY_TIME = "resume_by_time"
    """The token is not found under this pipeline: start at its own time and drop what was seen."""
    HISTORY_LOST = "history_lost"
    """The oplog no longer reaches back to the token, or the token is damaged: declare a gap."""
    STEP_OVER = "step_over"
    """One event is too large even when projected: read its row by the key."""
    WAIT = "wait"
    """An operator must mend it. A first start ends; a process for which it worked before is not ready and waits."""


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One code of the server: its name, the reaction, how metrics count it, and the remedy where there is one."""

    code: int
    name: str
    reaction: Reaction
    cause: FailureCause
    remedy: str | None = None


REPLICA_SET_REMEDY: Final = (
    "change streams need a replica set, and this mongod is standalone. One node is enough: start it with "
    "`mongod --replSet rs0 --bind_ip_all`, then once run "
    "`rs.initiate({_id: 'rs0', members: [{_id: 0, host: 'mongodb:27017'}]})` in mongosh, with the host name under "
    "which LibreChat reaches it; LibreChat's own MONGO_URI stays as it is"
)
NO_SUCH_INDEX: Final = 2
"""The code for a hint at an index that is not there; also for other values that the server refuses."""
GRANT_REMEDY: Final = (
    "the MongoDB user lacks a privilege; grant find and changeStream on the collections messages and "
    "conversations, and find on transactions and agents, for example with the built-in role `read` on "
    "LibreChat's database"
)
_LOGIN_REMEDY: Final = "MongoDB refuses user or password; correct TAILER_MONGO_URI (authSource included)"
_INITIATE_REMEDY: Final = "the replica set was never initiated; run rs.initiate(…) once in mongosh"
_VIEW_REMEDY: Final = (
    "the collection is a view, which has no change stream; let TAILER_MONGO_URI name the database that holds "
    "LibreChat's own collections"
)
SERVICE_REMEDY: Final = (
    "this server lacks change streams as the tailer needs them, with startAfter, $project and a "
    "postBatchResumeToken. MongoDB 4.4 or later has them, also as Atlas from M10 on; Azure Cosmos DB, Amazon "
    "DocumentDB and FerretDB may lack them, or have them switched off. Move LibreChat's database to a MongoDB replica set, "
    "or switch change streams on where the service lets you"
)
_ATLAS_REMEDY: Final = (
    "Atlas refuses this command: shared and Flex tiers limit what a user may do; see that the user may read "
    "LibreChat's database, or use a dedicated cluster (M10 or larger)"
)

_DAMAGED_TOKEN: Final = (207, *range(40646, 40650), *range(50784, 50900), *range(51055, 51058), 6189500)
"""The numbers of the server's token and key string readers: what tokens with random damage are answered with."""


def _passing(cause: FailureCause, codes: Mapping[int, str]) -> list[ErrorCode]:
    return [ErrorCode(code, name, Reaction.REOPEN, cause) for code, name in codes.items()]


def _unsupported(codes: Mapping[int, str]) -> list[ErrorCode]:
    return [
        ErrorCode(code, name, Reaction.WAIT, FailureCause.UNSUPPORTED, SERVICE_REMEDY)
        for code, name in codes.items()
    ]


_LISTED: Final = [
    *_passing(
        FailureCause.NETWORK,
        {6: "HostUnreachable", 7: "HostNotFound", 89: "NetworkTimeout", 202: "NetworkInterfaceExceededTimeLimit",
         317: "ConnectionPoolExpired", 384: "ConnectionError", 9001: "SocketException"},
    ),
    *_passing(
        FailureCause.ELECTION,
        {91: "ShutdownInProgress", 189: "PrimarySteppedDown", 10107: "NotWritablePrimary",
         11600: "InterruptedAtShutdown", 11602: "InterruptedDueToReplStateChange", 13435: "NotPrimaryNoSecondaryOk",
         13436: "NotPrimaryOrSecondary"},
    ),
    *_passing(
        FailureCause.CURSOR_LOST,
        {43: "CursorNotFound", 136: "CappedPositionLost", 222: "CloseChangeStream", 234: "RetryChangeStream",
         237: "CursorKilled"},
    ),
    *_passing(
        FailureCause.OTHER,
        {24: "LockTimeout", 46: "LockBusy", 50: "MaxTimeMSExpired", 63: "StaleShardVersion",
         64: "WriteConcernTimeout", 112: "WriteConflict", 133: "FailedToSatisfyReadPreference",
         134: "ReadConcernMajorityNotAvailableYet", 150: "StaleEpoch", 246: "SnapshotUnavailable",
         262: "ExceededTimeLimit", 358: "InternalTransactionNotSupported", 365: "TemporarilyUnavailable",
         11601: "Interrupted", 13388: "StaleConfig"},
    ),
    ErrorCode(260, "InvalidResumeToken", Reaction.RESUME_BY_TIME, FailureCause.TOKEN_UNKNOWN),
    ErrorCode(280, "ChangeStreamFatalError", Reaction.RESUME_BY_TIME, FailureCause.TOKEN_UNKNOWN),
    ErrorCode(286, "ChangeStreamHistoryLost", Reaction.HISTORY_LOST, FailureCause.HISTORY_LOST),
    ErrorCode(9, "FailedToParse", Reaction.HISTORY_LOST, FailureCause.HISTORY_LOST),
    ErrorCode(15, "Overflow", Reaction.HISTORY_LOST, FailureCause.HISTORY_LOST),
    ErrorCode(10334, "BSONObjectTooLarge", Reaction.STEP_OVER, FailureCause.TOO_LARGE),
    ErrorCode(13, "Unauthorized", Reaction.WAIT, FailureCause.DENIED, GRANT_REMEDY),
    ErrorCode(18, "AuthenticationFailed", Reaction.WAIT, FailureCause.DENIED, _LOGIN_REMEDY),
    ErrorCode(94, "NotYetInitialized", Reaction.WAIT, FailureCause.DENIED, _INITIATE_REMEDY),
    ErrorCode(8000, "AtlasError", Reaction.WAIT, FailureCause.DENIED, _ATLAS_REMEDY),
    ErrorCode(40573, "NoReplicaSet", Reaction.WAIT, FailureCause.DENIED, REPLICA_SET_REMEDY),
    ErrorCode(166, "CommandNotSupportedOnView", Reaction.WAIT, FailureCause.UNSUPPORTED, _VIEW_REMEDY),
    *_unsupported(
        {2: "BadValue", 20: "IllegalOperation", 59: "CommandNotFound", 72: "InvalidOptions", 115: "CommandNotSupported",
         168: "InvalidPipelineOperator", 238: "NotImplemented", 303: "FeatureNotSupported",
         352: "UnsupportedOpQueryCommand", 40324: "UnrecognizedPipelineStage", 40415: "UnknownField"},
    ),
]  # fmt: skip

ERROR_CODES: Final[Mapping[int, ErrorCode]] = {
    **{
        code: ErrorCode(code, "DamagedToken", Reaction.HISTORY_LOST, FailureCause.HISTORY_LOST)
        for code in _DAMAGED_TOKEN
    },
    **{found.code: found for found in _LISTED},
}
"""Every code that the tailer knows. Any other is one that an operator must look at: `Reaction.WAIT` without a
remedy."""

LISTED_CODES: Final = tuple(sorted(found.code for found in _LISTED))
"""Those that a document can list; the others are numbers of damaged tokens."""
