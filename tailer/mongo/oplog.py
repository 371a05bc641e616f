"""How far MongoDB's oplog reaches back, and how its clock differs from ours: asked now and then, for people who watch.

No decision depends on either. `serverStatus` with `oplog: 1` needs the privilege `serverStatus` on the cluster.
"""

from contextlib import suppress
from datetime import timedelta

from bson import ObjectId, Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from tailer.core.librechat.bson_values import milliseconds
from tailer.core.librechat.clock import estimate_ahead_seconds
from tailer.events import ClockCompared, Emit, LibreChatClockCompared, OplogHidden, OplogSeen
from tailer.mongo.connection import Database, ask_hello
from tailer.mongo.document_keys import to_key
from tailer.mongo.failures import failure_name

_HINT = (
    "the oplog's headroom is not known; grant serverStatus on the cluster to the MongoDB user, as "
    "deploy/mongodb/README.md says, or do without"
)
# Every section that can be left out is left out: the whole answer has some 100 KB.
_SECTIONS_LEFT_OUT = (
    "asserts", "catalogStats", "connections", "electionMetrics", "extra_info", "flowControl", "globalLock",
    "indexBulkBuilder", "indexBuilds", "indexStats", "locks", "logicalSessionRecordCache", "mem", "metrics", "mirroredReads",
    "network", "opLatencies", "opcounters", "opcountersRepl", "queryAnalyzers", "readConcernCounters", "repl",
    "scramCache", "security", "sharding", "storageEngine", "tcmalloc", "tenantMigrations", "trafficRecording",
    "transactions", "transportSecurity", "twoPhaseCommitCoordinator", "watchdog", "wiredTiger", "writeBacksQueued",
)  # fmt: skip


_ROWS = 50
_RECENT = timedelta(hours=1)
"""The age limit of a row: an older one shows how the clocks were, not how they are."""


async def ask_librechats_clock(database: Database, *, newer_than: timedelta | None = None) -> float | None:
    """How many seconds LibreChat's clock is ahead of MongoDB's, by the last messages; None if no message says so.

    Raises PyMongoError.
    """
    query: dict[str, object] = {}
    if newer_than is not None:
        hello = await database.command("hello")
        query = {"_id": {"$gte": ObjectId.from_datetime(hello["localTime"] - newer_than)}}
    found = database["messages"].find(query, {"createdAt": 1}, sort=[("_id", -1)], limit=_ROWS)
    rows = [(to_key(row["_id"]), milliseconds(row.get("createdAt"))) async for row in found]
    return estimate_ahead_seconds(rows)


class OplogWatch:
    """Looks at one server. A server that is away, or that answers less than was asked, is not a failure."""

    def __init__(self, database: Database, emit: Emit) -> None:
        self._database = database
        self._emit = emit
        self._hidden = False

    async def look(self) -> None:
        """Ask once, and report the answer."""
        try:
            await self._compare_clocks()
            with suppress(OperationFailure):
                # The reader of the rows reports that.
                await self._compare_librechats_clock()
            await self._read_oplog()
        except OperationFailure as error:
            if not self._hidden:
                self._emit(OplogHidden(failure_name(error), _HINT))
            self._hidden = True
        except PyMongoError:
            # The streams report that the server is away.
            return

    async def _compare_clocks(self) -> None:
        _, ahead_seconds = await ask_hello(self._database)
        self._emit(ClockCompared(round(ahead_seconds, 3)))

    async def _compare_librechats_clock(self) -> None:
        ahead_seconds = await ask_librechats_clock(self._database, newer_than=_RECENT)
        if ahead_seconds is not None:
            self._emit(LibreChatClockCompared(round(ahead_seconds, 1)))

    async def _read_oplog(self) -> None:
        status = await self._database.client.admin.command(
            {"serverStatus": 1, "oplog": 1, **dict.fromkeys(_SECTIONS_LEFT_OUT, 0)}
        )
        oplog = status.get("oplog") or {}
        first, last = oplog.get("earliestOptime"), oplog.get("latestOptime")
        if isinstance(first, Timestamp) and isinstance(last, Timestamp):
            self._hidden = False
            self._emit(OplogSeen(first.time, last.time))
