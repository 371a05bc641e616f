"""`backfills`: jobs that walk the collections, with their progress, and the gaps that some of them fill."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tailer.core.backfill import Counts, Job, JobReason
from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.events import StateOperation
from tailer.flow.records import Gap
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence


class Backfills:
    """A `BackfillStore`."""

    def __init__(self, database: StateDatabase, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def add_job(self, job: Job) -> None:
        """Store a job, unless one with this id exists."""
        await self._fence.write(
            StateOperation.ADD_JOB,
            lambda session: self._database["backfills"].update_one(
                {"_id": job.job_id}, {"$setOnInsert": write_job(job)}, upsert=True, session=session
            ),
        )

    async def next_job(self) -> Job | None:
        """The oldest unfinished job."""
        found = await self._database.attempt(
            StateOperation.NEXT_JOB,
            lambda: self._database["backfills"].find_one({"is_done": False}, sort=[("created_at", 1)]),
        )
        return None if found is None else read_job(found)

    async def size_job(self, job_id: str, total_rows: int | None) -> None:
        """Store how many rows a job has to walk."""
        await self._set(StateOperation.SIZE_JOB, job_id, {"total_rows": total_rows})

    async def advance_job(self, job_id: str, position: DocumentKey, counts: Counts) -> None:
        """Store the progress of a job."""
        await self._set(StateOperation.ADVANCE_JOB, job_id, {"position": position, "counts": asdict(counts)})

    async def finish_job(self, job_id: str, gap_id: str | None) -> None:
        """Store that a job is done, and with it that its gap is filled."""
        now = datetime.now(UTC)

        async def finish(session: Any) -> None:
            await self._database["backfills"].update_one(
                {"_id": job_id}, {"$set": {"is_done": True, "finished_at": now}}, session=session
            )
            if gap_id is not None:
                await self._database["gaps"].update_one(
                    {"_id": gap_id}, {"$set": {"filled": True, "filled_at": now}}, session=session
                )

        await self._fence.write(StateOperation.FINISH_JOB, finish)

    async def unfilled_gaps(self) -> Mapping[str, Gap]:
        """The gaps that no backfill has filled yet, by id."""
        found = await self._database.attempt(
            StateOperation.UNFILLED_GAPS, lambda: self._database["gaps"].find({"filled": False}).to_list(None)
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
            lambda session: self._database["backfills"].update_one(
                {"_id": job_id}, {"$set": fields}, session=session
            ),
        )


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
        "created_at": datetime.now(UTC),
    }


def read_job(document: Mapping[str, Any]) -> Job:
    """The job of a stored document."""
    position = document["position"]
    return Job(
        job_id=str(document["_id"]),
        reason=JobReason(document["reason"]),
        since_seconds=document["since_seconds"],
        until_seconds=document["until_seconds"],
        conversation_id=document["conversation_id"],
        gap_id=document["gap_id"],
        position=None if position is None else DocumentKey(position),
        counts=Counts(**document["counts"]),
        total_rows=document["total_rows"],
        is_done=bool(document["is_done"]),
        # Jobs of earlier releases walk messages.
        stream=Stream(document.get("stream", Stream.MESSAGES.value)),
    )
