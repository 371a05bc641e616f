"""What is being sent right now, with the exact bytes, each batch in a slot (`tailer/mongo/state/slots.py`).

`batches` holds the others: those that an earlier epoch, or a release without slots, left behind, and those for which no
slot was free. Both are empty while nothing is being sent.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import bson
from bson import Binary
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.events import StateOperation
from tailer.flow.records import Batch, BatchItem, Checkpoint, DeadLetter
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.checkpoints import write_checkpoints
from tailer.mongo.state.database import StateDatabase, Transaction
from tailer.mongo.state.dead_letters import write_letters
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.positions import write_position
from tailer.mongo.state.records import amend_export, amend_late, read_item, write_export, write_item
from tailer.mongo.state.slots import Slots

_LARGEST_BYTES: Final = 16_000_000
"""Of the 16 MiB of a document; positions take the rest of a slot: fifty kilobytes at the most."""


class Batches:
    """A `BatchStore`. `destination` is what a carried position remembers of the target of its turns."""

    _database: StateDatabase
    _fence: Fence
    _belonging: Belonging
    _destination: str
    _slots: Slots

    async def begin_batch(self, batch: Batch) -> bool:
        """Record that a batch is about to be sent, with its exact bytes; False if no document can hold them."""
        fields = {
            "batch_id": batch.batch_id,
            "items": [write_item(item) for item in batch.items],
            "payload": Binary(batch.payload),
            "began_at": datetime.now(UTC),
            **self._belonging.marks,
        }
        encoded = RawBSONDocument(bson.encode(fields))
        if len(encoded.raw) > _LARGEST_BYTES:
            return False
        await self._slots.open()
        slot = self._slots.take(batch.batch_id)
        if slot is not None:
            await self._slots.fill(slot, encoded)
            return True
        document = {**fields, **self._fence.names.marks}
        await self._fence.write(
            StateOperation.BEGIN_BATCH,
            lambda transaction: transaction["batches"].replace_one(
                {"_id": batch.batch_id}, document, upsert=True, session=transaction.session
            ),
        )
        return True

    async def finish_batch(
        self,
        batch: Batch,
        delivered: Sequence[BatchItem],
        *,
        letters: Sequence[DeadLetter] = (),
        positions: Mapping[Stream, Checkpoint] | None = None,
    ) -> None:
        """Record what was acknowledged and what was refused, store the positions, and forget the batch: all of it or
        nothing."""
        stored = {
            stream: write_position(
                stream,
                checkpoint,
                destination=self._destination,
                epoch=self._fence.epoch,
                number=self._fence.number_position(),
            )
            for stream, checkpoint in (positions or {}).items()
        }
        now = datetime.now(UTC)
        records, burials = (
            _write_records(delivered, now, self._belonging),
            write_letters(letters, now, self._belonging),
        )
        await self._slots.open()

        def record(transaction: Transaction) -> None:
            if records:
                transaction["exports"].bulk_write(records, session=transaction.session)
            if burials:
                transaction["dead_letters"].bulk_write(burials, session=transaction.session)

        def finish(transaction: Transaction) -> None:
            record(transaction)
            write_checkpoints(transaction, self._fence.names, stored)
            transaction["batches"].delete_one({"_id": batch.batch_id}, session=transaction.session)

        slot = self._slots.holder(batch.batch_id)
        if slot is None:
            await self._fence.write(StateOperation.FINISH_BATCH, finish)
            return
        carried = {f"positions.{stream.value}": fields for stream, fields in stored.items()}
        if records or burials:
            await self._fence.write_proven(
                StateOperation.FINISH_BATCH,
                lambda transaction: self._slots.empty_within(slot, carried, transaction),
                record,
            )
        else:
            await self._slots.empty(slot, carried)
        self._slots.let_go(batch.batch_id)

    async def pending_batches(self) -> Sequence[Batch]:
        """Batches that were begun and not finished, oldest first."""
        query = {**self._fence.names.query, **self._belonging.query}
        full = await self._database.attempt(
            StateOperation.PENDING_BATCHES,
            lambda: (
                self._database["slots"]
                .find({**query, "batch": {"$exists": True}}, {"batch": 1})
                .to_list(None)
            ),
        )
        # Second, because batches are moved from slots to here: one that is moved in between is seen twice.
        kept = await self._database.attempt(
            StateOperation.PENDING_BATCHES, lambda: self._database["batches"].find(query).to_list(None)
        )
        found = {str(document["_id"]): document for document in kept}
        found |= {str(slot["batch"]["batch_id"]): slot["batch"] for slot in full}
        return [
            Batch(
                batch_id=batch_id,
                items=tuple(read_item(item) for item in document["items"]),
                payload=bytes(document["payload"]),
            )
            for batch_id, document in sorted(found.items(), key=lambda each: each[1]["began_at"])
        ]

    async def pending_elsewhere(self) -> Mapping[str, DocumentKey]:
        """What is on its way in batches of other shards: record ids, with the row of each."""
        own = self._fence.names.shard
        if own is None:
            return {}
        query = {"shard": {"$ne": own}, **self._belonging.query}
        fields = ("items.record_id", "items.document_key")

        async def find_kept() -> list[dict[str, Any]]:
            return await self._database.attempt(
                StateOperation.PENDING_BATCHES,
                lambda: self._database["batches"].find(query, dict.fromkeys(fields, 1)).to_list(None),
            )

        # Before and after the slots, because batches move from slots to here, and halves of these into slots.
        kept = await find_kept()
        slots = await self._database.attempt(
            StateOperation.PENDING_BATCHES,
            lambda: (
                self._database["slots"]
                .find({**query, "batch": {"$exists": True}}, {f"batch.{name}": 1 for name in fields})
                .to_list(None)
            ),
        )
        kept += await find_kept()
        items = (item for batch in (*(slot["batch"] for slot in slots), *kept) for item in batch["items"])
        return {str(item["record_id"]): DocumentKey(item["document_key"]) for item in items}


def _write_records(
    delivered: Sequence[BatchItem], sent_at: datetime, belonging: Belonging
) -> list[UpdateOne]:
    amendments = [
        # A later edit may have been recorded before this batch of an earlier run was settled; it is not undone.
        UpdateOne(
            {"_id": belonging.id_of(item.probe.trace_id), "sent.edits": {"$lte": item.edit.number}},
            amend_export(item.edit),
        )
        for item in delivered
        if item.edit is not None
    ]
    late = [
        UpdateOne(
            {"_id": belonging.id_of(item.probe.trace_id), "sent.edits": {"$lte": item.late.number}},
            amend_late(item.late),
        )
        for item in delivered
        if item.late is not None
    ]
    # An existing record stays as it is; an insert would end the transaction.
    records = [
        UpdateOne(
            {"_id": belonging.id_of(item.record_id)},
            {"$setOnInsert": {**write_export(item, sent_at), **belonging.marks}},
            upsert=True,
        )
        for item in delivered
    ]
    return [*amendments, *late, *records]
