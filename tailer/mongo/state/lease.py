"""The lease document: which instance is the active one. Everybody else stands by."""

import platform
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pymongo.errors import DuplicateKeyError, OperationFailure

from tailer.core.lease import LeaseRecord
from tailer.errors import LeaseLost
from tailer.mongo.state.database import MAJORITY, StateDatabase
from tailer.mongo.state.fencing import FENCE_ID, Fence

_WRITER = "writer"


class MongoLease:
    """A `LeaseStore`; after `take` it holds the fence of the new epoch."""

    def __init__(self, database: StateDatabase, *, lease_time: timedelta) -> None:
        self._database = database
        self._lease_time = lease_time
        self._holder = uuid4().hex
        self._fence: Fence | None = None

    @property
    def holder(self) -> str:
        """The random id of this process."""
        return self._holder

    @property
    def fence(self) -> Fence:
        """The fence of the epoch that was taken last."""
        if self._fence is None:
            raise LeaseLost(subject=self._database.name, epoch=0)
        return self._fence

    async def read(self) -> LeaseRecord | None:
        """The lease as it is, None before the first start."""
        found = await self._database.attempt("read_lease", self._find)
        if found is None:
            return None
        return LeaseRecord(
            epoch=int(found["epoch"]),
            beat=int(found.get("beat", 0)),
            holder=str(found.get("holder", "")),
            host=str(found.get("host", "")),
            lease_seconds=float(found.get("lease_seconds", 0)),
            # Databases from before there were leases name an epoch alone.
            released=bool(found.get("released", True)),
        )

    async def take(self, seen: LeaseRecord | None) -> int | None:
        """Take the lease over if it still is as it was seen; the new epoch, None when somebody was faster."""
        await self._end_session_of_holder()
        session = await self._database.start_session()
        fence = Fence(self._database, session, 1 if seen is None else seen.epoch + 1)
        try:
            taken = await self._database.attempt("take_lease", lambda: self._take(fence, seen))
        except BaseException:
            await fence.close()
            raise
        if not taken:
            await fence.close()
            return None
        self._fence = fence
        return fence.epoch

    async def renew(self, epoch: int) -> None:
        """Move the beat on; raises LeaseLost when there is a later epoch."""
        renewed = await self._database.attempt(
            "renew_lease",
            lambda: self._database["lease"].update_one(
                {"_id": _WRITER, "epoch": epoch, "holder": self._holder}, {"$inc": {"beat": 1}}
            ),
        )
        if not renewed.matched_count:
            raise LeaseLost(subject=self._database.name, epoch=epoch)

    async def release(self, epoch: int) -> None:
        """Say that the next may begin at once; nothing happens when there is a later epoch."""
        await self._database.attempt(
            "release_lease",
            lambda: self._database["lease"].update_one(
                {"_id": _WRITER, "epoch": epoch, "holder": self._holder}, {"$set": {"released": True}}
            ),
        )

    async def _find(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._database["lease"].find_one({"_id": _WRITER})
        return found

    async def _end_session_of_holder(self) -> None:
        found = await self._database.attempt("read_lease", self._find)
        if found is None or "session" not in found:
            return
        # Where a server does not let us, it ends a transaction that was left open after a minute by itself.
        with suppress(OperationFailure):
            await self._database.command({"killSessions": [{"id": found["session"]}]})

    async def _take(self, fence: Fence, seen: LeaseRecord | None) -> bool:
        """Lease and fence together, or neither."""
        fields = {
            "epoch": fence.epoch,
            "beat": 0,
            "holder": self._holder,
            "host": platform.node(),
            "lease_seconds": self._lease_time.total_seconds(),
            "released": False,
            "session": fence.session_id,
            # For people; nothing is decided by it.
            "taken_at": datetime.now(UTC),
        }
        lease = self._database["lease"]
        session = await self._database.start_session()
        async with session:
            try:
                async with session.start_transaction(write_concern=MAJORITY):
                    if seen is None:
                        await lease.insert_one({"_id": _WRITER, **fields}, session=session)
                    else:
                        # The beat of a released lease stands still.
                        beat = {} if seen.released else {"beat": seen.beat}
                        taken = await lease.replace_one(
                            {"_id": _WRITER, "epoch": seen.epoch, **beat}, fields, session=session
                        )
                        if not taken.matched_count:
                            return False
                    await lease.replace_one(
                        {"_id": FENCE_ID}, {"epoch": fence.epoch, "writes": 0}, upsert=True, session=session
                    )
            except DuplicateKeyError:
                return False
        return True
