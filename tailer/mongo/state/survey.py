"""What the state database holds, for people who ask. It takes no part in the daemon's work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tailer.core.backfill import Job, JobReason
from tailer.core.identity import TraceId
from tailer.events import StateOperation
from tailer.flow.letter_reasons import LetterReason
from tailer.mongo.state.backfills import read_job, survey_job
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.dead_letters import ASKED
from tailer.mongo.state.layout import read_layout
from tailer.mongo.state.names import StateNames, names_of
from tailer.mongo.state.positions import StoredCheckpoint, find_positions
from tailer.settings.destinations import DEFAULT_NAME


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits in the state database; `owed` is what destinations that were away still have to get, by name."""

    batches: int
    parked: int
    dead_letters: int
    gaps: int
    owed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter without its content. `stored_bytes` is the size of the trace that was refused, None where none was
    built; `replay` is "asked", or what came of the last replay, or None. `letter_id` is its own id, `record_id` that of
    the trace, which may have a letter at each destination."""

    letter_id: str
    record_id: str
    destination: str
    message_id: str
    document_key: str
    reason: LetterReason
    first_failed_at: datetime
    last_failed_at: datetime
    tries: int
    stored_bytes: int | None
    replay: str | None

    @property
    def is_asked(self) -> bool:
        """Whether a replay was requested and is not done yet."""
        return self.replay == ASKED


async def list_checkpoints(
    database: StateDatabase, names: StateNames | None = None
) -> Sequence[StoredCheckpoint]:
    """The newest stored positions of all streams of a shard, by name."""
    found = await database.attempt(StateOperation.LIST_CHECKPOINTS, lambda: find_positions(database, names))
    return list(found.values())


async def list_all_checkpoints(database: StateDatabase) -> Sequence[StoredCheckpoint]:
    """The newest stored positions of all streams of all shards."""
    layout = await read_layout(database)
    return [stored for shard in layout.shards for stored in await list_checkpoints(database, names_of(shard))]


async def count_pending(database: StateDatabase) -> Pending:
    """How much of each kind there is; gaps that are not filled."""

    async def count(collection: str, query: dict[str, object]) -> int:
        counted = await database.attempt(
            StateOperation.COUNT_PENDING, lambda: database[collection].count_documents(query)
        )
        return int(counted)

    return Pending(
        batches=await count("batches", {}) + await count("slots", {"batch": {"$exists": True}}),
        parked=await count("parked", {}),
        dead_letters=await count("dead_letters", {}),
        gaps=await count("gaps", {"filled": False}),
        owed=await _count_owed(database),
    )


async def _count_owed(database: StateDatabase) -> Mapping[str, int]:
    by_name: list[Mapping[str, Any]] = [{"$group": {"_id": "$destination", "shares": {"$sum": 1}}}]
    found = await database.attempt(
        StateOperation.COUNT_OWED, lambda: database["owed"].aggregate(by_name).to_list(None)
    )
    counted = {group["_id"] or DEFAULT_NAME: int(group["shares"]) for group in found}
    return dict(sorted(counted.items()))


async def count_dead_letters(database: StateDatabase) -> int:
    """How many dead letters are kept."""
    counted = await database.attempt(
        StateOperation.COUNT_DEAD_LETTERS, lambda: database["dead_letters"].count_documents({})
    )
    return int(counted)


async def list_letters(
    database: StateDatabase, letter_ids: Sequence[str] | None = None
) -> Sequence[StoredLetter]:
    """The dead letters with these ids, or all of them, the latest failure first."""
    query = {} if letter_ids is None else {"_id": {"$in": list(letter_ids)}}
    # The server computes the size: the trace itself may be megabytes, and is not read here.
    size = {"$cond": [{"$eq": ["$chunk", None]}, None, {"$binarySize": "$chunk"}]}
    pipeline: list[dict[str, object]] = [
        {"$match": query},
        {"$sort": {"last_failed_at": -1, "_id": 1}},
        {"$set": {"stored_bytes": size}},
        {"$project": {"chunk": 0, "item": 0}},
    ]
    found = await database.attempt(
        StateOperation.LIST_DEAD_LETTERS, lambda: database["dead_letters"].aggregate(pipeline).to_list(None)
    )
    return [_read_letter(document) for document in found]


async def find_asked_job(database: StateDatabase, job: Job, *, until_seconds: int | None) -> Job | None:
    """A backfill that was asked for, is not done, and walks the same rows as `job`; any end will do where None."""
    query = {
        "reason": JobReason.ASKED.value,
        "is_done": False,
        "since_seconds": job.since_seconds,
        "conversation_id": job.conversation_id,
        "destination": job.destination,
        **({} if until_seconds is None else {"until_seconds": until_seconds}),
    }
    found = await database.attempt(
        StateOperation.FIND_JOB, lambda: database["backfills"].find_one(query, sort=[("created_at", 1)])
    )
    return None if found is None else read_job(found)


async def look_at_job(database: StateDatabase, job_id: str) -> Job | None:
    """A backfill as it stands; None where it was removed."""
    found = await database.attempt(
        StateOperation.LOOK_AT_JOB, lambda: database["backfills"].find_one({"_id": job_id})
    )
    return None if found is None else survey_job(found)


async def find_exported(
    database: StateDatabase, trace_ids: Sequence[TraceId], destination: str
) -> frozenset[str]:
    """Those of these traces that one destination has acknowledged."""
    belonging = Belonging(destination)
    found = await database.attempt(
        StateOperation.COUNT_EXPORTS,
        lambda: database["exports"].find(belonging.among(trace_ids), {"_id": 1}).to_list(None),
    )
    return frozenset(belonging.record_of(document["_id"]) for document in found)


async def find_sent_times(
    database: StateDatabase, trace_ids: Sequence[TraceId], destination: str
) -> Mapping[TraceId, datetime]:
    """When a destination acknowledged each of these traces. Unacknowledged and deleted ones are left out."""
    belonging = Belonging(destination)
    query = {**belonging.among(trace_ids), "deleted_at": None}
    found = await database.attempt(
        StateOperation.FIND_SENT, lambda: database["exports"].find(query, {"sent_at": 1}).to_list(None)
    )
    return {
        TraceId(belonging.record_of(document["_id"])): document["sent_at"].replace(tzinfo=UTC)
        for document in found
    }


def _read_letter(document: Mapping[str, Any]) -> StoredLetter:
    belonging = Belonging(document.get("destination") or DEFAULT_NAME)
    return StoredLetter(
        letter_id=str(document["_id"]),
        record_id=belonging.record_of(document["_id"]),
        destination=belonging.of,
        message_id=str(document["message_id"]),
        document_key=str(document["document_key"]),
        reason=LetterReason.parse(str(document["reason"])),
        first_failed_at=document["first_failed_at"].replace(tzinfo=UTC),
        last_failed_at=document["last_failed_at"].replace(tzinfo=UTC),
        tries=int(document["tries"]),
        stored_bytes=document.get("stored_bytes"),
        replay=document.get("replay"),
    )
