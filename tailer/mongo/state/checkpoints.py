"""`checkpoints`: how far each stream is done, one document per stream."""

from datetime import UTC, datetime
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClientSession

from tailer.core.backfill import START_JOB
from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.events import StateOperation
from tailer.flow.records import Checkpoint
from tailer.mongo.hint_pipeline import PIPELINE_FINGERPRINTS
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence


class Checkpoints:
    """A `CheckpointStore`. `destination` is what a checkpoint remembers of the target of its turns."""

    def __init__(self, database: StateDatabase, fence: Fence, destination: str) -> None:
        self._database = database
        self._fence = fence
        self._destination = destination

    async def load_checkpoint(self, stream: Stream) -> Checkpoint | None:
        """The stored position of a stream, None before the first start."""
        found = await self._database.attempt(
            StateOperation.LOAD_CHECKPOINT,
            lambda: self._database["checkpoints"].find_one({"_id": stream.value}),
        )
        if found is None:
            return None
        touches = tuple((DocumentKey(key), tuple(times)) for key, times in found.get("touches", ()))
        return Checkpoint(StreamPosition(found["token"], int(found["cluster_seconds"])), touches)

    async def save_checkpoint(self, stream: Stream, checkpoint: Checkpoint) -> None:
        """Store a position; raises LeaseLost if a later epoch exists."""
        fields = {
            "token": checkpoint.position.token,
            "cluster_seconds": checkpoint.position.cluster_seconds,
            "touches": [[key, list(times)] for key, times in checkpoint.touches],
            "pipeline": PIPELINE_FINGERPRINTS[stream],
            "destination": self._destination,
            "epoch": self._fence.epoch,
            "saved_at": datetime.now(UTC),
        }
        await self._fence.write(
            StateOperation.SAVE_CHECKPOINT,
            lambda session: self._database["checkpoints"].update_one(
                {"_id": stream.value}, {"$set": fields}, upsert=True, session=session
            ),
        )

    async def forget_checkpoints(self) -> None:
        """Let the next start be a first one, with a backfill of its own where the settings ask for one.

        The backfill of an earlier start that is not done goes on under another id.
        """
        jobs = self._database["backfills"]

        async def forget(session: AsyncIOMotorClientSession) -> None:
            await self._database["checkpoints"].delete_many({}, session=session)
            job: dict[str, Any] | None = await jobs.find_one({"_id": START_JOB}, session=session)
            await jobs.delete_one({"_id": START_JOB}, session=session)
            if job is not None and not job["is_done"]:
                await jobs.insert_one({**job, "_id": f"{START_JOB}-{self._fence.epoch}"}, session=session)

        await self._fence.write(StateOperation.FORGET_CHECKPOINTS, forget)


async def was_delivered_before(database: StateDatabase, destination: str) -> bool:
    """Whether this destination was ever proven and written to."""
    found = await database.attempt(
        StateOperation.LOAD_CHECKPOINT, lambda: database["checkpoints"].find_one({"destination": destination})
    )
    return found is not None
