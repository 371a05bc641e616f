"""`backfills`: jobs that walk the collections, with their progress, and the gaps that some of them fill.

Every shard walks a job, opens its own rows and keeps its progress beside that of the others, in `shards`. A gap of one
shard, with its job, names that shard in `shard`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument

from tailer.core.backfill import Counts, Job, JobReason
from tailer.core.identity import DocumentKey
from tailer.core.layout import Layout
from tailer.core.stream.hints import Stream
from tailer.core.stream.shard import Shard
from tailer.events import StateOperation
from tailer.flow.records import Gap
from tailer.mongo.document_keys import from_key
from tailer.mongo.state.database import StateDatabase, Transaction
from tailer.mongo.state.fencing import Fence


class Backfills:
    """A `BackfillStore`."""

    def __init__(self, database: StateDatabase, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def add_job(self, job: Job) -> None:
        """Store a job, unless one with this id exists."""

        def add(transaction: Transaction) -> None:
            gap = None
            if job.gap_id is not None:
                gap = transaction["gaps"].find_one({"_id": job.gap_id}, session=transaction.session)
            own = {"shard": gap["shard"]} if gap is not None and "shard" in gap else {}
            transaction["backfills"].update_one(
                {"_id": job.job_id},
                {"$setOnInsert": {**write_job(job), **own}},
                upsert=True,
                session=transaction.session,
            )

        await self._fence.write(StateOperation.ADD_JOB, add)

    async def next_job(self, destinations: Sequence[str], *, except_for: Collection[str] = ()) -> Job | None:
        """The oldest unfinished job of this shard for all destinations, or for one of these, other than some."""
        shard = self._fence.names.shard
        # A job of an earlier release names none.
        query: dict[str, Any] = {
            "_id": {"$nin": list(except_for)},
            "is_done": False,
            "destination": {"$in": [None, *destinations]},
        }
        if shard is not None:
            query |= {f"shards.{shard}.is_done": {"$ne": True}, **self._own}
        found = await self._database.attempt(
            StateOperation.NEXT_JOB,
            lambda: self._database["backfills"].find_one(query, sort=[("created_at", 1)]),
        )
        return None if found is None else read_job(found, shard)

    @property
    def _own(self) -> dict[str, Any]:
        """Finds what no other shard has to do alone."""
        shard = self._fence.names.shard
        return (
            {} if shard is None else {"shard": {"$nin": [each for each in _siblings(shard) if each != shard]}}
        )

    async def size_job(self, job_id: str, total_rows: int | None) -> None:
        """Store how many rows a job has to walk."""
        await self._set(StateOperation.SIZE_JOB, job_id, {"total_rows": total_rows})

    async def advance_job(self, job_id: str, position: DocumentKey, counts: Counts) -> None:
        """Store the progress of a job."""
        shard = self._fence.names.shard
        prefix = "" if shard is None else f"shards.{shard}."
        fields: dict[str, object] = {f"{prefix}position": position, f"{prefix}counts": asdict(counts)}
        await self._set(StateOperation.ADVANCE_JOB, job_id, fields)

    async def finish_job(self, job_id: str, gap_id: str | None) -> None:
        """Store that a job is done, and with it that its gap is filled."""
        now, shard = datetime.now(UTC), self._fence.names.shard

        def finish(transaction: Transaction) -> None:
            if shard is not None and not _finish_share(transaction, job_id, shard):
                return
            transaction["backfills"].update_one(
                {"_id": job_id}, {"$set": {"is_done": True, "finished_at": now}}, session=transaction.session
            )
            if gap_id is not None:
                transaction["gaps"].update_one(
                    {"_id": gap_id}, {"$set": {"filled": True, "filled_at": now}}, session=transaction.session
                )

        await self._fence.write(StateOperation.FINISH_JOB, finish)

    async def unfilled_gaps(self) -> Mapping[str, Gap]:
        """The gaps that no backfill has filled yet, by id; without those of other shards."""
        query = {"filled": False, **self._own}
        found = await self._database.attempt(
            StateOperation.UNFILLED_GAPS, lambda: self._database["gaps"].find(query).to_list(None)
        )
        return {
            str(document["_id"]): Gap(
                Stream(document["stream"]),
                int(document["from_seconds"]),
                int(document["to_seconds"]),
                str(document["reason"]),
            )
            for document in found
        }

    async def _set(self, operation: StateOperation, job_id: str, fields: dict[str, object]) -> None:
        await self._fence.write(
            operation,
            lambda transaction: transaction["backfills"].update_one(
                {"_id": job_id}, {"$set": fields}, session=transaction.session
            ),
        )


def _finish_share(transaction: Transaction, job_id: str, shard: str) -> bool:
    """Store that a shard is done with a job; returns whether that ends the job."""
    job: dict[str, Any] | None = transaction["backfills"].find_one_and_update(
        {"_id": job_id},
        {"$set": {f"shards.{shard}.is_done": True}},
        return_document=ReturnDocument.AFTER,
        session=transaction.session,
    )
    return job is not None and _is_done_by_all(job, shard)


def write_job(job: Job) -> dict[str, Any]:
    """A job as it is stored, without its `_id`."""
    return {
        "reason": job.reason.value,
        "since_seconds": job.since_seconds,
        "until_seconds": job.until_seconds,
        "conversation_id": job.conversation_id,
        "gap_id": job.gap_id,
        "position": job.position,
        "counts": asdict(job.counts),
        "total_rows": job.total_rows,
        "is_done": job.is_done,
        "stream": job.stream.value,
        "destination": job.destination,
        "created_at": datetime.now(UTC),
    }


def read_job(document: Mapping[str, Any], shard: str | None = None) -> Job:
    """The job of a stored document; with the progress of one shard, where there are several."""
    progress = document.get("shards", {}).get(shard, {})
    position = progress.get("position", document["position"])
    counts = progress.get("counts", document["counts"] if shard is None else {})
    return Job(
        job_id=str(document["_id"]),
        reason=JobReason(document["reason"]),
        since_seconds=document["since_seconds"],
        until_seconds=document["until_seconds"],
        conversation_id=document["conversation_id"],
        gap_id=document["gap_id"],
        position=None if position is None else DocumentKey(position),
        counts=Counts(**counts),
        total_rows=document["total_rows"],
        is_done=bool(document["is_done"]),
        # Jobs of earlier releases walk messages.
        stream=Stream(document.get("stream", Stream.MESSAGES.value)),
        destination=document.get("destination"),
    )


def survey_job(document: Mapping[str, Any]) -> Job:
    """The job of a stored document with the progress of all shards together."""
    job, progress = read_job(document), document.get("shards")
    if not progress:
        return job
    return replace(job, counts=job.counts + _add_up(progress, _total(next(iter(progress)))))


def rejoin_job(document: Mapping[str, Any], old: Layout) -> dict[str, Any]:
    """The update of an unfinished job when the number of shards changes: all go on from where the slowest was."""
    progress: Mapping[str, Any] = document.get("shards", {})
    change: dict[str, Any] = {"$unset": {"shards": "", "shard": ""}}
    if progress:
        left = [
            progress.get(str(shard), {}).get("position", document["position"])
            for shard in old.shards
            if not progress.get(str(shard), {}).get("is_done")
        ]
        counts = read_job(document).counts + _add_up(progress, old.total)
        change["$set"] = {"position": _first_of(left), "counts": asdict(counts)}
    return change


def _first_of(positions: Sequence[str | None]) -> str | None:
    """The earliest of positions; the beginning where their order as texts is not that of MongoDB."""
    texts = [position for position in positions if position is not None]
    is_known = len(texts) == len(positions) and all(
        isinstance(from_key(DocumentKey(each)), ObjectId) for each in texts
    )
    return min(texts) if texts and is_known else None


def _add_up(progress: Mapping[str, Any], total: int) -> Counts:
    """What all shards have done. They walk the same rows, so the slowest says how many."""
    counts = [Counts(**each.get("counts", {})) for each in progress.values()]
    rows = min(each.rows for each in counts) if len(counts) == total else 0
    return replace(sum(counts, Counts()), rows=rows)


def _is_done_by_all(document: Mapping[str, Any], shard: str) -> bool:
    if document.get("shard") == shard:
        return True
    progress = document["shards"]
    return all(progress.get(each, {}).get("is_done") for each in _siblings(shard))


def _siblings(shard: str) -> list[str]:
    """The names of all shards of the division of one."""
    total = _total(shard)
    return [str(each) for each in Shard(0, total).all()]


def _total(shard: str) -> int:
    return int(shard.rpartition("of")[2])
