"""The lease in memory."""

import asyncio
from dataclasses import replace
from uuid import uuid4

from tailer.core.lease import LeaseRecord
from tailer.errors import LeaseLost
from tests.memory.database import MemoryDatabase


class MemoryLease:
    """A `LeaseStore`; taking it raises the fence of the database."""

    def __init__(self, database: MemoryDatabase, *, lease_seconds: float = 8) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._holder = uuid4().hex

    @property
    def holder(self) -> str:
        return self._holder

    async def read(self) -> LeaseRecord | None:
        await asyncio.sleep(self._database.latency_seconds)
        return self._database.lease

    async def take(self, seen: LeaseRecord | None) -> int | None:
        await asyncio.sleep(self._database.latency_seconds)
        if not _is_as_seen(self._database.lease, seen):
            return None
        epoch = 1 if seen is None else seen.epoch + 1
        self._database.lease = LeaseRecord(
            epoch,
            beat=0,
            holder=self._holder,
            host="memory",
            lease_seconds=self._lease_seconds,
            released=False,
        )
        self._database.epoch = epoch
        return epoch

    async def renew(self, epoch: int) -> None:
        await asyncio.sleep(self._database.latency_seconds)
        lease = self._database.lease
        if lease is None or (lease.epoch, lease.holder) != (epoch, self._holder):
            raise LeaseLost(subject="memory", epoch=epoch)
        self._database.lease = replace(lease, beat=lease.beat + 1)

    async def release(self, epoch: int) -> None:
        await asyncio.sleep(self._database.latency_seconds)
        lease = self._database.lease
        if lease is not None and (lease.epoch, lease.holder) == (epoch, self._holder):
            self._database.lease = replace(lease, released=True)


def _is_as_seen(lease: LeaseRecord | None, seen: LeaseRecord | None) -> bool:
    if lease is None or seen is None:
        return lease is seen
    # The beat of a released lease stands still.
    return lease.epoch == seen.epoch and (seen.released or lease.beat == seen.beat)
