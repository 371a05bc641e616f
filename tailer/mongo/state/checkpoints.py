"""`checkpoints`: how far each stream is done, one document per stream, unless a batch carried a newer position."""

from collections.abc import Mapping
from typing import Any

from tailer.core.backfill import START_JOB
from tailer.core.stream.hints import Stream
from tailer.events import StateOperation
from tailer.flow.records import Checkpoint
from tailer.mongo.state.database import StateDatabase, Transaction
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.names import StateNames
from tailer.mongo.state.positions import find_positions, write_position


class Checkpoints:
    """A `CheckpointStore`. `destination` is what a checkpoint remembers of the target of its turns."""

    def __init__(self, database: StateDatabase, fence: Fence, destination: str) -> None:
        self._database = database
        self._fence = fence
        self._destination = destination

    async def load_checkpoint(self, stream: Stream) -> Checkpoint | None:
        """The newest stored position of a stream, None before the first start."""
        found = await self._database.attempt(
            StateOperation.LOAD_CHECKPOINT, lambda: find_positions(self._database, self._fence.names)
        )
        stored = found.get(stream)
        return None if stored is None else stored.checkpoint

    async def save_checkpoint(self, stream: Stream, checkpoint: Checkpoint) -> None:
        """Store a position by itself; raises LeaseLost if a later epoch exists."""
        fields = write_position(
            stream,
            checkpoint,
            destination=self._destination,
            epoch=self._fence.epoch,
            number=self._fence.number_position(),
        )
        await self._fence.write(
            StateOperation.SAVE_CHECKPOINT,
            lambda transaction: write_checkpoints(transaction, self._fence.names, {stream: fields}),
        )

    async def forget_checkpoints(self) -> None:
        """Let the next start be a first one, with a backfill of its own where the settings ask for one.

        The backfill of an earlier start that is not done goes on under another id.
        """

        def forget(transaction: Transaction) -> None:
            mine, session, jobs = self._fence.names.query, transaction.session, transaction["backfills"]
            transaction["checkpoints"].delete_many(mine, session=session)
            transaction["slots"].update_many(mine, {"$unset": {"positions": ""}}, session=session)
            job = jobs.find_one({"_id": START_JOB}, session=session)
            jobs.delete_one({"_id": START_JOB}, session=session)
            if job is not None and not job["is_done"]:
                jobs.insert_one({**job, "_id": f"{START_JOB}-{self._fence.epoch}"}, session=session)

        await self._fence.write(StateOperation.FORGET_CHECKPOINTS, forget)


def write_checkpoints(
    transaction: Transaction, names: StateNames, positions: Mapping[Stream, Mapping[str, Any]]
) -> None:
    """Store positions in documents of their own."""
    for stream, fields in positions.items():
        # A document of an earlier release keeps its touches in a list.
        change = {
            "$set": {**fields, **names.marks},
            **({} if "touches" in fields else {"$unset": {"touches": ""}}),
        }
        transaction["checkpoints"].update_one(
            {"_id": names.checkpoint(stream)}, change, upsert=True, session=transaction.session
        )


async def was_delivered_before(
    database: StateDatabase, destination: str, names: StateNames | None = None
) -> bool:
    """Whether this destination was ever proven and written to, by this shard."""
    found = await database.attempt(StateOperation.LOAD_CHECKPOINT, lambda: find_positions(database, names))
    return any(stored.destination == destination for stored in found.values())
