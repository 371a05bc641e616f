"""`slots`: a fixed number of documents, one for each batch that is on its way.

A slot is its own fence: it names the epoch that may write it. To begin a batch is one plain update of a slot, to finish
it is one transaction with that slot in it. A takeover raises the epoch of every slot, so a late write of an earlier
epoch misses, and what a slot holds after that is all that was begun.

A slot counts its steps, one to begin and one to finish. A command that was lost on the way and arrives after its own
repetition finds a later step and misses too.

Eighteen slots: one for each of the sixteen senders that the settings allow, one for replays and one to spare; each of
these has one batch on its way. Halves of a refused batch, and batches whose sender was cancelled, may take more. A
batch that finds no free slot is kept in a document of its own (`tailer/mongo/state/batches.py`), and so is one that an
earlier epoch left in a slot: slots cannot run out.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any, Final

from pymongo import UpdateOne

from tailer.events import StateOperation
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.database import StateDatabase, Transaction
from tailer.mongo.state.fencing import Fence

SLOTS: Final = 18


@dataclass(slots=True, order=True)
class Slot:
    """A slot of this epoch, and how many steps it has made."""

    number: int
    slot_id: str
    steps: int


class Slots:
    """The slots of one epoch and destination: which are free, and which batch each of the others holds."""

    def __init__(self, database: StateDatabase, fence: Fence, belonging: Belonging) -> None:
        self._database = database
        self._fence = fence
        self._belonging = belonging
        self._free: list[Slot] = []
        self._held: dict[str, Slot] = {}
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self) -> None:
        """Make the slots that are missing, and empty those that an earlier epoch left full. Done once."""
        if self._is_open:
            return
        async with self._opening:
            if not self._is_open:
                self._free = await self._make_ready()
                heapify(self._free)
                self._is_open = True

    def take(self, batch_id: str) -> Slot | None:
        """The slot that holds a batch, or a free one for it; None where all hold others."""
        slot = self._held.get(batch_id)
        if slot is None and self._free:
            slot = self._held[batch_id] = heappop(self._free)
        return slot

    def holder(self, batch_id: str) -> Slot | None:
        """The slot that holds a batch."""
        return self._held.get(batch_id)

    def let_go(self, batch_id: str) -> None:
        """Count a slot's batch as finished."""
        slot = self._held.pop(batch_id)
        slot.steps += 2
        heappush(self._free, slot)

    async def fill(self, slot: Slot, batch: Mapping[str, Any]) -> None:
        """Put a batch into a slot, with one write; raises LeaseLost if a later epoch exists."""
        change = {"$set": {"batch": batch, "steps": slot.steps + 1}}
        await self._write(StateOperation.BEGIN_BATCH, _at(slot, slot.steps, self._fence.epoch), change)

    async def empty(self, slot: Slot, fields: Mapping[str, Any]) -> None:
        """Take the batch out of a slot, and set fields of it, with one write."""
        where, change = self._emptying(slot, fields)
        await self._write(StateOperation.FINISH_BATCH, where, change)

    def empty_within(self, slot: Slot, fields: Mapping[str, Any], transaction: Transaction) -> bool:
        """The same within a transaction, as its proof; False if a later epoch exists."""
        where, change = self._emptying(slot, fields)
        emptied = transaction["slots"].update_one(where, change, session=transaction.session)
        return bool(emptied.matched_count)

    def _emptying(self, slot: Slot, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        change = {"$set": {**fields, "steps": slot.steps + 2}, "$unset": {"batch": ""}}
        return _at(slot, slot.steps + 1, self._fence.epoch), change

    async def _write(
        self, operation: StateOperation, where: Mapping[str, Any], change: Mapping[str, Any]
    ) -> None:
        written = await self._database.attempt(
            operation, lambda: self._database["slots"].update_one(where, change)
        )
        if not written.matched_count:
            raise self._fence.lost()

    async def _make_ready(self) -> list[Slot]:
        names = self._fence.names
        wanted = {self._belonging.id_of(names.slot(number)): number for number in range(SLOTS)}
        found = await self._find()
        left_full = [slot_id for slot_id, document in found.items() if "batch" in document]
        for slot_id in left_full:
            await self._fence.write(StateOperation.OPEN_SLOTS, partial(self._move_out, slot_id))
        missing = wanted.keys() - found.keys()
        if missing:
            fields = {"epoch": self._fence.epoch, "steps": 0, **names.marks, **self._belonging.marks}
            made = [
                UpdateOne({"_id": slot_id}, {"$setOnInsert": fields}, upsert=True)
                for slot_id in sorted(missing)
            ]
            await self._fence.write(
                StateOperation.OPEN_SLOTS,
                lambda transaction: transaction["slots"].bulk_write(made, session=transaction.session),
            )
        if missing or left_full:
            found = await self._find()
        return [
            Slot(number, slot_id, int(found[slot_id]["steps"]))
            for slot_id, number in wanted.items()
            if slot_id in found
        ]

    async def _find(self) -> dict[str, dict[str, Any]]:
        """The slots of batches that go to the destination."""
        query = {**self._fence.names.query, **self._belonging.query}
        found = await self._database.attempt(
            StateOperation.OPEN_SLOTS,
            lambda: self._database["slots"].find(query, {"steps": 1, "batch.batch_id": 1}).to_list(None),
        )
        return {str(document["_id"]): document for document in found}

    def _move_out(self, slot_id: str, transaction: Transaction) -> None:
        """Give the batch of an earlier epoch a document of its own, in the form of releases without slots."""
        found = transaction["slots"].find_one({"_id": slot_id}, {"batch": 1}, session=transaction.session)
        if found is None or "batch" not in found:
            return
        batch = found["batch"]
        transaction["batches"].replace_one(
            {"_id": batch["batch_id"]},
            {**batch, **self._fence.names.marks, **self._belonging.marks},
            upsert=True,
            session=transaction.session,
        )
        transaction["slots"].update_one(
            {"_id": slot_id}, {"$unset": {"batch": ""}, "$inc": {"steps": 1}}, session=transaction.session
        )


def _at(slot: Slot, steps: int, epoch: int) -> dict[str, Any]:
    """Finds a slot before a step, or after it where the answer to the write was lost."""
    return {"_id": slot.slot_id, "epoch": epoch, "steps": {"$in": [steps, steps + 1]}}
