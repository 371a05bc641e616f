"""What the source still knows about its past: whether a stream can be resumed, and how much was written in between."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo.errors import ExecutionTimeout, PyMongoError

from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition, is_ahead
from tailer.mongo.connection import Database
from tailer.mongo.document_keys import TOLERANT
from tailer.mongo.error_codes import Reaction
from tailer.mongo.failures import classify_failure, explain_source_failure, explained
from tailer.mongo.hint_pipeline import HINT_PIPELINES, cluster_seconds
from tailer.mongo.stream_replies import start_stage

_PATIENCE_MILLISECONDS = 5_000
_MOST_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class RowCount:
    """Rows of a collection; `more` says that counting stopped there."""

    rows: int
    more: bool


async def server_seconds(database: Database) -> int:
    """The server's own time; raises SourceError."""
    with explained(database.name):
        answer = await database.command("hello")
    told = told_seconds(answer)
    return int(answer["localTime"].replace(tzinfo=UTC).timestamp()) if told is None else told


def told_seconds(answer: Mapping[str, Any]) -> int | None:
    """The cluster time that an answer tells, in seconds. None where a server only speaks MongoDB's protocol and has no
    such time."""
    gossip = answer.get("$clusterTime") or {}
    return (
        max(cluster_seconds(answer.get("operationTime")), cluster_seconds(gossip.get("clusterTime"))) or None
    )


async def lies_ahead(database: Database, position: StreamPosition) -> bool:
    """Whether a position is of another server, whose time was later; raises PyMongoError."""
    told = told_seconds(await database.command("hello"))
    return told is not None and is_ahead(position, told)


async def is_resumable(database: Database, stream: Stream, position: StreamPosition) -> bool:
    """Whether the oplog still holds everything after a position; raises SourceError if that cannot be determined."""
    with explained(f"{database.name}.{stream.value}"):
        if await lies_ahead(database, position):
            return False
    for by_time in (False, True):
        command: dict[str, Any] = {
            "aggregate": stream.value,
            "pipeline": [{"$changeStream": start_stage(position, by_time=by_time)}, *HINT_PIPELINES[stream]],
            "cursor": {"batchSize": 1},
            "maxTimeMS": _PATIENCE_MILLISECONDS,
        }
        try:
            answer = await database.command(command, codec_options=TOLERANT)
        except ExecutionTimeout:
            # The position was found, and searching the oplog after it takes long.
            return True
        except PyMongoError as error:
            reaction = classify_failure(error)
            if reaction is Reaction.RESUME_BY_TIME and not by_time:
                continue
            if reaction in (Reaction.HISTORY_LOST, Reaction.RESUME_BY_TIME):
                return False
            if reaction is Reaction.STEP_OVER:
                return True
            raise explain_source_failure(error, f"{database.name}.{stream.value}") from error
        if answer["cursor"]["id"]:
            with explained(f"{database.name}.{stream.value}"):
                await database.command({"killCursors": stream.value, "cursors": [answer["cursor"]["id"]]})
        return True
    return False


async def count_rows(database: Database, stream: Stream, begin_seconds: int, end_seconds: int) -> RowCount:
    """How many rows were made between two times, by `_id`, which begins with the time and has an index."""
    query = {"_id": {"$gte": _first_id(begin_seconds), "$lt": _first_id(end_seconds)}}
    try:
        rows = await database[stream.value].count_documents(
            query, limit=_MOST_ROWS, maxTimeMS=_PATIENCE_MILLISECONDS
        )
    except ExecutionTimeout:
        return RowCount(0, more=True)
    except PyMongoError as error:
        raise explain_source_failure(error, f"{database.name}.{stream.value}") from error
    return RowCount(rows, more=rows >= _MOST_ROWS)


def _first_id(seconds: int) -> ObjectId:
    return ObjectId.from_datetime(datetime.fromtimestamp(seconds, UTC))
