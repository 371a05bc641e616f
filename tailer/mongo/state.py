"""The tailer's own database: positions, batches on their way, traces sent, turns that wait, dead letters, gaps.

Every write is acknowledged by a majority. Each start claims a higher epoch, and every checkpoint names it: an older
instance that is still running cannot move a position any more.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_bytes
from typing import Any, TypeVar

from bson import Binary
from pymongo import DeleteMany, DeleteOne, InsertOne, ReturnDocument, UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, WriteConcernError

from tailer.core.followup import SentTurn
from tailer.core.hints import Stream
from tailer.core.identity import DocumentKey, TraceId
from tailer.core.positions import StreamPosition
from tailer.core.turns import Wait
from tailer.errors import StateError
from tailer.events import Emit, StateFailed
from tailer.flow.ports import Batch, BatchItem, Checkpoint, DeadLetter, Gap, ParkedTurn
from tailer.mongo.connection import Client
from tailer.mongo.hint_pipeline import PIPELINE_FINGERPRINTS
from tailer.mongo.persistence import keep_trying
from tailer.mongo.records import amend_export, read_item, read_sent, write_export, write_item

_Write = TypeVar("_Write", bound=InsertOne[dict[str, Any]] | UpdateOne | DeleteOne | DeleteMany)
_Result = TypeVar("_Result")
_DUPLICATE_KEY = 11000
_UNAUTHORIZED = 13
_AUTHENTICATION_FAILED = 18
_REMEDIES = {
    _UNAUTHORIZED: "the MongoDB user may not write it; grant the built-in role readWrite on this database, or set "
    "TAILER_STATE_URI to a server where the user may",
    _AUTHENTICATION_FAILED: "MongoDB refuses user or password; correct TAILER_STATE_URI (authSource included), or "
    "TAILER_MONGO_URI where the state has no address of its own",
}
_WRITER = "writer"


class MongoState:
    """A `StateStore` in a MongoDB database that belongs to the tailer alone."""

    def __init__(self, client: Client, database_name: str, emit: Emit, *, destination: str) -> None:
        majority = WriteConcern(w="majority")
        self._database = client.get_database(database_name, write_concern=majority)
        self._emit = emit
        self._destination = destination
        self._epoch = 0

    async def prepare(self, *, export_record: timedelta) -> None:
        """Claim the next epoch and see to the two indexes, on records of traces that were sent."""
        await self._try("prepare", lambda: self._prepare(export_record))

    async def _prepare(self, export_record: timedelta) -> None:
        claimed = await self._database["lease"].find_one_and_update(
            {"_id": _WRITER}, {"$inc": {"epoch": 1}}, upsert=True, return_document=ReturnDocument.AFTER
        )
        self._epoch = int(claimed["epoch"])
        seconds = int(export_record.total_seconds())
        indexes = await self._database["exports"].index_information()
        if "sent_at_1" not in indexes:
            await self._database["exports"].create_index("sent_at", expireAfterSeconds=seconds)
        elif indexes["sent_at_1"].get("expireAfterSeconds") != seconds:
            changed = {"keyPattern": {"sent_at": 1}, "expireAfterSeconds": seconds}
            await self._database.command({"collMod": "exports", "index": changed})
        # By itself: a start may have ended between the two.
        await self._database["exports"].create_index("document_key")

    async def mask_key(self) -> bytes:
        """The secret behind masked placeholders, made once: equal values stay equal over restarts."""
        found = await self._try(
            "mask_key",
            lambda: self._database["keys"].find_one_and_update(
                {"_id": "mask"},
                {"$setOnInsert": {"key": Binary(token_bytes(32))}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            ),
        )
        return bytes(found["key"])

    @property
    def epoch(self) -> int:
        """The number of this start; a later start has a higher one."""
        return self._epoch

    async def load_checkpoint(self, stream: Stream) -> Checkpoint | None:
        """The stored position of a stream, None before the first start."""
        found = await self._try(
            "load_checkpoint", lambda: self._database["checkpoints"].find_one({"_id": stream.value})
        )
        if found is None:
            return None
        touches = tuple((DocumentKey(key), tuple(times)) for key, times in found.get("touches", ()))
        return Checkpoint(StreamPosition(str(found["token"]), int(found["cluster_seconds"])), touches)

    async def save_checkpoint(self, stream: Stream, checkpoint: Checkpoint) -> None:
        """Store a position, unless a later start has stored one: then StateError."""
        fields = {
            "token": checkpoint.position.token,
            "cluster_seconds": checkpoint.position.cluster_seconds,
            "touches": [[key, list(times)] for key, times in checkpoint.touches],
            "pipeline": PIPELINE_FINGERPRINTS[stream],
            "destination": self._destination,
            "epoch": self._epoch,
            "saved_at": datetime.now(UTC),
        }
        try:
            await self._try(
                "save_checkpoint",
                lambda: self._database["checkpoints"].update_one(
                    {"_id": stream.value, "epoch": {"$lte": self._epoch}}, {"$set": fields}, upsert=True
                ),
            )
        except DuplicateKeyError as error:
            raise StateError(
                operation="saving a checkpoint",
                subject=f"{self._database.name}.checkpoints/{stream.value}",
                hint="another tailer was started on the same state database and has taken over; run one instance, or "
                "give each LibreChat its own TAILER_STATE_DATABASE",
            ) from error

    async def was_delivered_before(self) -> bool:
        """Whether this destination has ever been proven and written to."""
        query = {"destination": self._destination}
        found = await self._try("load_checkpoint", lambda: self._database["checkpoints"].find_one(query))
        return found is not None

    async def find_exported(self, record_ids: Sequence[str]) -> frozenset[str]:
        """Those that were sent and acknowledged before, deleted ones among them."""
        query = {"_id": {"$in": list(record_ids)}}
        found = await self._try(
            "find_exported", lambda: self._database["exports"].find(query, {"_id": 1}).to_list(None)
        )
        return frozenset(str(document["_id"]) for document in found)

    async def load_sent(self, trace_ids: Sequence[TraceId]) -> Mapping[TraceId, SentTurn]:
        """What is remembered of turns that were sent; those whose traces were deleted are left out."""
        turns = await self._load_sent({"_id": {"$in": list(trace_ids)}})
        return {turn.trace_id: turn for turn in turns}

    async def load_sent_by_document(self, keys: Sequence[DocumentKey]) -> Sequence[SentTurn]:
        """What is remembered of the turns of rows."""
        return await self._load_sent({"document_key": {"$in": list(keys)}})

    async def _load_sent(self, query: dict[str, Any]) -> list[SentTurn]:
        chosen = {**query, "sent": {"$exists": True}, "deleted_at": None}
        found = await self._try("load_sent", lambda: self._database["exports"].find(chosen).to_list(None))
        return [read_sent(document) for document in found]

    async def find_pending(self, keys: Sequence[DocumentKey]) -> frozenset[DocumentKey]:
        """The rows of which a batch that was begun and not finished holds something."""
        wanted = frozenset(keys)
        query, fields = {"items.document_key": {"$in": list(wanted)}}, {"items.document_key": 1}
        found = await self._try(
            "find_pending", lambda: self._database["batches"].find(query, fields).to_list(None)
        )
        return wanted & {DocumentKey(item["document_key"]) for batch in found for item in batch["items"]}

    async def find_traces_by_document(self, keys: Sequence[DocumentKey]) -> Sequence[TraceId]:
        """The traces that were sent for rows, those of titles among them."""
        query = {"document_key": {"$in": list(keys)}, "deleted_at": None, "piece_of": None}
        found = await self._try(
            "find_traces", lambda: self._database["exports"].find(query, {"_id": 1}).to_list(None)
        )
        return [TraceId(document["_id"]) for document in found]

    async def record_feedback(self, trace_id: TraceId, digest: str | None) -> None:
        """Remember which feedback was sent last."""
        change = {"$set": {"sent.feedback": digest}}
        await self._try(
            "record_feedback", lambda: self._database["exports"].update_one({"_id": trace_id}, change)
        )

    async def record_deleted(self, trace_ids: Sequence[TraceId]) -> None:
        """Remember that traces were deleted: they are never sent again."""
        query = {"_id": {"$in": list(trace_ids)}}
        change = {"$set": {"deleted_at": datetime.now(UTC)}}
        await self._try("record_deleted", lambda: self._database["exports"].update_many(query, change))

    async def begin_batch(self, batch: Batch) -> None:
        """Record that a batch is about to be sent, with the very bytes."""
        fields = {
            "items": [write_item(item) for item in batch.items],
            "payload": Binary(batch.payload),
            "began_at": datetime.now(UTC),
        }
        await self._try(
            "begin_batch",
            lambda: self._database["batches"].replace_one({"_id": batch.batch_id}, fields, upsert=True),
        )

    async def finish_batch(self, batch: Batch, delivered: Sequence[BatchItem]) -> None:
        """Record what was acknowledged, then forget the batch: a crash in between finds the records first."""
        sent_at = datetime.now(UTC)
        # First, and harmless when repeated: a record of an edit means that its turn's record knows of it.
        amendments = [
            # A later edit may have landed before this batch of an earlier run was settled: it is not taken back.
            UpdateOne(
                {"_id": item.probe.trace_id, "sent.edits": {"$lte": item.edit.number}},
                amend_export(item.edit),
            )
            for item in delivered
            if item.edit is not None
        ]
        await self._write("exports", amendments)
        await self._write("exports", [InsertOne(write_export(item, sent_at)) for item in delivered])
        await self._try("finish_batch", lambda: self._database["batches"].delete_one({"_id": batch.batch_id}))

    async def pending_batches(self) -> Sequence[Batch]:
        """Batches that an earlier run began and did not finish, oldest first."""
        found = await self._try(
            "pending_batches", lambda: self._database["batches"].find({}).sort("began_at", 1).to_list(None)
        )
        return [
            Batch(
                batch_id=str(document["_id"]),
                items=tuple(read_item(item) for item in document["items"]),
                payload=bytes(document["payload"]),
            )
            for document in found
        ]

    async def park(self, turns: Sequence[ParkedTurn]) -> None:
        """Keep turns that wait; one that is kept already keeps its deadline."""
        await self._write(
            "parked",
            [
                UpdateOne(
                    {"_id": turn.document_key},
                    {
                        "$setOnInsert": {
                            "message_id": turn.message_id,
                            "wait": turn.wait.value,
                            "since_seconds": turn.since_seconds,
                            "deadline_seconds": turn.deadline_seconds,
                        }
                    },
                    upsert=True,
                )
                for turn in turns
            ],
        )

    async def unpark(self, keys: Sequence[DocumentKey]) -> None:
        """Forget parked turns."""
        query = {"_id": {"$in": list(keys)}}
        await self._try("unpark", lambda: self._database["parked"].delete_many(query))

    async def load_parked(self, limit: int) -> Sequence[ParkedTurn]:
        """Parked turns, earliest deadline first."""
        found = await self._try(
            "load_parked",
            lambda: self._database["parked"].find({}).sort("deadline_seconds", 1).to_list(limit),
        )
        return [
            ParkedTurn(
                document_key=DocumentKey(document["_id"]),
                message_id=document["message_id"],
                wait=Wait(document["wait"]),
                since_seconds=int(document["since_seconds"]),
                deadline_seconds=int(document["deadline_seconds"]),
            )
            for document in found
        ]

    async def add_gap(self, gap: Gap) -> None:
        """Keep a stretch of a stream that was never read."""
        gap_id = f"{gap.stream.value}-{gap.from_seconds}-{gap.to_seconds}"
        fields = {
            "stream": gap.stream.value,
            "from_seconds": gap.from_seconds,
            "to_seconds": gap.to_seconds,
            "reason": gap.reason,
            "filled": False,
            "found_at": datetime.now(UTC),
        }
        await self._try(
            "add_gap", lambda: self._database["gaps"].replace_one({"_id": gap_id}, fields, upsert=True)
        )

    async def find_refused(self, record_ids: Sequence[str]) -> frozenset[str]:
        """Those whose chunk the destination refused: dead letters that were built."""
        query = {"_id": {"$in": list(record_ids)}, "chunk": {"$ne": None}}
        found = await self._try(
            "find_refused", lambda: self._database["dead_letters"].find(query, {"_id": 1}).to_list(None)
        )
        return frozenset(str(document["_id"]) for document in found)

    async def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Keep turns that cannot be sent; a repeated one counts its tries."""
        now = datetime.now(UTC)
        await self._write(
            "dead_letters",
            [
                UpdateOne(
                    {"_id": letter.record_id},
                    {
                        "$set": {
                            "message_id": letter.message_id,
                            "document_key": letter.document_key,
                            "reason": letter.reason,
                            "chunk": None if letter.chunk is None else Binary(letter.chunk),
                            "last_failed_at": now,
                        },
                        "$setOnInsert": {"first_failed_at": now},
                        "$inc": {"tries": 1},
                    },
                    upsert=True,
                )
                for letter in letters
            ],
        )

    async def _write(self, collection: str, writes: Sequence[_Write]) -> None:
        if not writes:
            return
        await self._try(f"write_{collection}", lambda: self._write_once(collection, writes))

    async def _write_once(self, collection: str, writes: Sequence[_Write]) -> None:
        try:
            await self._database[collection].bulk_write(list(writes), ordered=False)
        except BulkWriteError as error:
            # A record that is there already was written by an attempt whose answer was lost.
            if any(failure["code"] != _DUPLICATE_KEY for failure in error.details["writeErrors"]):
                raise
            for concern in error.details["writeConcernErrors"]:
                # Written, but not by a majority: the same writes again change nothing and wait for one.
                raise WriteConcernError(concern["errmsg"], concern["code"]) from error

    async def _try(self, operation: str, call: Callable[[], Awaitable[_Result]]) -> _Result:
        try:
            return await keep_trying(call, lambda failure: self._emit(StateFailed(operation, failure)))
        except OperationFailure as error:
            hint = _REMEDIES.get(error.code or 0)
            if hint is None:
                raise
            raise StateError(
                operation=operation.replace("_", " "),
                subject=f"state database {self._database.name}",
                hint=hint,
            ) from error
