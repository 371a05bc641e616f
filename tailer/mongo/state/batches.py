"""`batches`: what is being sent right now, with the exact bytes; empty while nothing is being sent."""

from collections.abc import Sequence
from datetime import UTC, datetime

from bson import Binary
from motor.motor_asyncio import AsyncIOMotorClientSession
from pymongo import UpdateOne

from tailer.events import StateOperation
from tailer.flow.records import Batch, BatchItem
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.records import amend_export, amend_late, read_item, write_export, write_item


class Batches:
    """A `BatchStore`."""

    def __init__(self, database: StateDatabase, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def begin_batch(self, batch: Batch) -> None:
        """Record that a batch is about to be sent, with its exact bytes."""
        fields = {
            "items": [write_item(item) for item in batch.items],
            "payload": Binary(batch.payload),
            "began_at": datetime.now(UTC),
        }
        await self._fence.write(
            StateOperation.BEGIN_BATCH,
            lambda session: self._database["batches"].replace_one(
                {"_id": batch.batch_id}, fields, upsert=True, session=session
            ),
        )

    async def finish_batch(self, batch: Batch, delivered: Sequence[BatchItem]) -> None:
        """Record what was acknowledged and forget the batch, in one transaction."""
        writes = _write_records(delivered, datetime.now(UTC))

        async def finish(session: AsyncIOMotorClientSession) -> None:
            if writes:
                await self._database["exports"].bulk_write(writes, session=session)
            await self._database["batches"].delete_one({"_id": batch.batch_id}, session=session)

        await self._fence.write(StateOperation.FINISH_BATCH, finish)

    async def pending_batches(self) -> Sequence[Batch]:
        """Batches that an earlier run began and did not finish, oldest first."""
        found = await self._database.attempt(
            StateOperation.PENDING_BATCHES,
            lambda: self._database["batches"].find({}).sort("began_at", 1).to_list(None),
        )
        return [
            Batch(
                batch_id=str(document["_id"]),
                items=tuple(read_item(item) for item in document["items"]),
                payload=bytes(document["payload"]),
            )
            for document in found
        ]


def _write_records(delivered: Sequence[BatchItem], sent_at: datetime) -> list[UpdateOne]:
    amendments = [
        # A later edit may have been recorded before this batch of an earlier run was settled; it is not undone.
        UpdateOne(
            {"_id": item.probe.trace_id, "sent.edits": {"$lte": item.edit.number}}, amend_export(item.edit)
        )
        for item in delivered
        if item.edit is not None
    ]
    late = [
        UpdateOne(
            {"_id": item.probe.trace_id, "sent.edits": {"$lte": item.late.number}}, amend_late(item.late)
        )
        for item in delivered
        if item.late is not None
    ]
    # An existing record stays as it is; an insert would end the transaction.
    records = [
        UpdateOne({"_id": item.record_id}, {"$setOnInsert": write_export(item, sent_at)}, upsert=True)
        for item in delivered
    ]
    return [*amendments, *late, *records]
