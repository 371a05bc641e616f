"""The division of the state: one document says how many shards there are, and a change moves everything at once.

Instances of two divisions never work at the same time. A change first takes the lease of every old shard, as a standby
would, so that nothing of theirs can be written any more. Then one transaction proves all their fences, moves what they
kept to the new shards, and writes the number. Whoever takes an old lease after that finds another number, and whoever
took one in between makes the transaction fail.

The new shards begin at the oldest position of the old ones; the records of what was sent are common, so nothing is sent
twice. Batches that were on their way are given to the new shards by turns: each is settled by one. Parked turns are
adopted by the shard of their conversation (`parked.py`). Jobs go on from where the slowest old shard was.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tailer.core.layout import Layout
from tailer.core.lease import LeaseRecord
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.shard import Shard
from tailer.errors import LeaseLost
from tailer.events import StateOperation
from tailer.mongo.state.backfills import rejoin_job
from tailer.mongo.state.checkpoints import write_checkpoints
from tailer.mongo.state.database import StateDatabase, Transaction
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.lease import MongoLease
from tailer.mongo.state.names import names_of
from tailer.mongo.state.positions import StoredCheckpoint, find_positions_within, write_position

_LAYOUT: Final = "layout"
_TOUCHES: Final = 500


class MongoLayouts:
    """A `LayoutStore`."""

    def __init__(self, database: StateDatabase, *, lease_time: timedelta) -> None:
        self._database = database
        self._lease_time = lease_time

    async def read(self) -> Layout:
        """The division in force; one shard where nothing is stored, as in every release before there were shards."""
        return await read_layout(self._database)

    def leases(self, layout: Layout) -> Sequence[MongoLease]:
        """The lease of every shard of a division."""
        return [
            MongoLease(self._database, lease_time=self._lease_time, names=names_of(shard))
            for shard in layout.shards
        ]

    async def begin(self, layout: Layout, seconds: int) -> None:
        """Store where shards without a position begin, unless another instance has done so."""
        query = {"_id": _LAYOUT, "total": layout.total, "began_seconds": None}
        await self._database.attempt(
            StateOperation.CHANGE_LAYOUT,
            lambda: self._database["lease"].update_one(query, {"$set": {"began_seconds": seconds}}),
        )

    async def change(
        self, old: Layout, seen: Sequence[LeaseRecord | None], leases: Sequence[MongoLease], new: Layout
    ) -> bool:
        """Take the leases of the old division if they are still as they were seen, and put the new one in force.

        False if another instance was faster with any of it; then nothing has changed but leases.
        """
        async with AsyncExitStack() as stack:
            fences: list[Fence] = []
            for lease, record in zip(leases, seen, strict=True):
                epoch = await lease.take(record)
                if epoch is None:
                    return False
                fences.append(lease.fence)
                stack.push_async_callback(_give_up, lease, epoch)
            change = _Change(fences, old, new)
            try:
                await fences[0].write(StateOperation.CHANGE_LAYOUT, change.make)
            except LeaseLost:
                return False
            return True


async def _give_up(lease: MongoLease, epoch: int) -> None:
    await lease.release(epoch)
    await lease.fence.close()


async def read_layout(database: StateDatabase) -> Layout:
    """The division in force."""
    found = await database.attempt(
        StateOperation.READ_LAYOUT, lambda: database["lease"].find_one({"_id": _LAYOUT})
    )
    return _read(found)


async def forget_beginning(database: StateDatabase) -> None:
    """Let shards without a position begin at the next start."""
    await database.attempt(
        StateOperation.CHANGE_LAYOUT,
        lambda: database["lease"].update_one({"_id": _LAYOUT}, {"$set": {"began_seconds": None}}),
    )


def _read(document: Mapping[str, Any] | None) -> Layout:
    if document is None:
        return Layout()
    return Layout(int(document["total"]), document.get("began_seconds"))


class _Change:
    """One transaction. It may run several times, each time from the beginning."""

    def __init__(self, fences: Sequence[Fence], old: Layout, new: Layout) -> None:
        self._fences = fences
        self._old = old
        self._new = new
        self._old_query = {"shard": {"$in": [fence.names.shard for fence in fences]}}

    def make(self, transaction: Transaction) -> None:
        """Everything; the fence of the first old shard is proven already."""
        for fence in self._fences[1:]:
            fence.prove(transaction)
        lease = transaction["lease"]
        if _read(lease.find_one({"_id": _LAYOUT}, session=transaction.session)) != self._old:
            raise self._fences[0].lost()
        self._move_positions(transaction)
        self._move_batches(transaction)
        self._rejoin_jobs(transaction)
        fields = {
            "total": self._new.total,
            "began_seconds": self._new.began_seconds,
            "changed_at": datetime.now(UTC),
        }
        lease.update_one({"_id": _LAYOUT}, {"$set": fields}, upsert=True, session=transaction.session)

    def _move_positions(self, transaction: Transaction) -> None:
        found = [find_positions_within(transaction, fence.names) for fence in self._fences]
        oldest = {
            stream: position
            for stream in Stream
            if (position := _find_oldest(stream, found, self._old.began_seconds)) is not None
        }
        transaction["checkpoints"].delete_many(self._old_query, session=transaction.session)
        transaction["slots"].update_many(
            self._old_query, {"$unset": {"positions": ""}}, session=transaction.session
        )
        for shard in self._new.shards:
            positions = {
                stream: write_position(
                    stream, stored.checkpoint, destination=stored.destination, epoch=0, number=0
                )
                for stream, stored in oldest.items()
            }
            write_checkpoints(transaction, names_of(shard), positions)

    def _move_batches(self, transaction: Transaction) -> None:
        """Batches in slots get documents of their own, and all of them a new shard each."""
        slots, batches = transaction["slots"], transaction["batches"]
        query = {**self._old_query, "batch": {"$exists": True}}
        for slot in slots.find(query, session=transaction.session):
            fields = {name: value for name, value in slot["batch"].items() if name != "batch_id"}
            if slot.get("destination") is not None:
                fields["destination"] = slot["destination"]
            if slot.get("shard") is not None:
                fields["shard"] = slot["shard"]
            batches.replace_one(
                {"_id": slot["batch"]["batch_id"]}, fields, upsert=True, session=transaction.session
            )
            slots.update_one(
                {"_id": slot["_id"]},
                {"$unset": {"batch": ""}, "$inc": {"steps": 1}},
                session=transaction.session,
            )
        kept = batches.find(self._old_query, {"_id": 1}, session=transaction.session).sort("_id", 1)
        for number, document in enumerate(kept):
            marks = names_of(Shard(number % self._new.total, self._new.total)).marks
            change = {"$set": marks} if marks else {"$unset": {"shard": ""}}
            batches.update_one({"_id": document["_id"]}, change, session=transaction.session)

    def _rejoin_jobs(self, transaction: Transaction) -> None:
        jobs = transaction["backfills"]
        for job in jobs.find({"is_done": False}, session=transaction.session):
            jobs.update_one({"_id": job["_id"]}, rejoin_job(job, self._old), session=transaction.session)
        # A gap of one old shard is a gap of every new one.
        transaction["gaps"].update_many(
            {"filled": False}, {"$unset": {"shard": ""}}, session=transaction.session
        )


def _find_oldest(
    stream: Stream, found: Sequence[Mapping[Stream, StoredCheckpoint]], began_seconds: int | None
) -> StoredCheckpoint | None:
    """The oldest position of a stream, with the touches of all; a shard that never ran stands where its division
    began."""
    stored = [positions[stream] for positions in found if stream in positions]
    if not stored:
        return None
    oldest = min(stored, key=lambda each: each.position.moment)
    position = oldest.position
    if began_seconds is not None and not all(positions for positions in found):
        position = min(position, StreamPosition(None, began_seconds), key=lambda each: each.moment)
    touches = tuple(dict(touch for each in stored for touch in each.checkpoint.touches).items())
    return replace(
        oldest, checkpoint=replace(oldest.checkpoint, position=position, touches=touches[-_TOUCHES:])
    )
