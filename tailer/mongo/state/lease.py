"""The lease document: which instance is the active one. All others stand by.

A takeover is a few plain writes, and no transaction, which could be left open itself. The lease goes to the next epoch,
then the fence is raised, and then every slot. An instance that dies in between has done nothing under its epoch, and
the next one raises all of them to its own. What is pending is read only after that.
"""

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from bson import Binary
from pymongo.errors import DuplicateKeyError, OperationFailure, WriteConcernError

from tailer.core.lease import LeaseRecord
from tailer.errors import LeaseLost
from tailer.events import StateOperation
from tailer.mongo.state.database import MAJORITY, StateDatabase
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.names import StateNames

_SESSIONS = 4
_RAISE_MILLISECONDS = 1000
_DUPLICATE_KEY = 11000


class MongoLease:
    """A `LeaseStore`; after `take` it holds the fence of the new epoch."""

    def __init__(
        self, database: StateDatabase, *, lease_time: timedelta, names: StateNames | None = None
    ) -> None:
        self._database = database
        self._names = names or StateNames()
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
        found = await self._database.attempt(StateOperation.READ_LEASE, self._find)
        if found is None:
            return None
        return LeaseRecord(
            epoch=int(found["epoch"]),
            beat=int(found.get("beat", 0)),
            holder=str(found.get("holder", "")),
            host=str(found.get("host", "")),
            lease_seconds=float(found.get("lease_seconds", 0)),
            # Databases from before leases existed name only an epoch.
            released=bool(found.get("released", True)),
        )

    async def take(self, seen: LeaseRecord | None) -> int | None:
        """Take the lease over if it is still as it was seen. Returns the new epoch, None if another instance was
        faster."""
        before = await self._database.attempt(StateOperation.READ_LEASE, self._find)
        sessions = list((before or {}).get("sessions", ()))
        session = await self._database.start_session()
        fence = Fence(self._database, session, self._names, 1 if seen is None else seen.epoch + 1)
        try:
            taken = await self._database.attempt(
                StateOperation.TAKE_LEASE, lambda: self._claim(fence, seen, sessions)
            )
            taken = taken and await self._database.attempt(
                StateOperation.RAISE_FENCE, lambda: self._raise_fence(fence, sessions)
            )
            # Only then is the earlier epoch over: what it has not committed by now will never be committed.
            if taken:
                await self._database.attempt(
                    StateOperation.RAISE_SLOTS, lambda: self._raise_slots(fence, sessions)
                )
        except BaseException:
            await fence.close()
            raise
        if not taken:
            await fence.close()
            return None
        self._fence = fence
        return fence.epoch

    async def renew(self, epoch: int) -> None:
        """Move the beat on; raises LeaseLost if a later epoch exists."""
        renewed = await self._database.attempt(
            StateOperation.RENEW_LEASE,
            lambda: self._database["lease"].update_one(
                {"_id": self._names.writer, "epoch": epoch, "holder": self._holder}, {"$inc": {"beat": 1}}
            ),
        )
        if not renewed.matched_count:
            raise LeaseLost(subject=self._database.name, epoch=epoch)

    async def release(self, epoch: int) -> None:
        """Let the next instance begin at once; nothing happens if a later epoch exists."""
        await self._database.attempt(
            StateOperation.RELEASE_LEASE,
            lambda: self._database["lease"].update_one(
                {"_id": self._names.writer, "epoch": epoch, "holder": self._holder},
                {"$set": {"released": True}},
            ),
        )

    async def _find(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._database["lease"].find_one({"_id": self._names.writer})
        return found

    async def _claim(self, fence: Fence, seen: LeaseRecord | None, sessions: list[Binary]) -> bool:
        fields = {
            "epoch": fence.epoch,
            "beat": 0,
            "holder": self._holder,
            "host": platform.node(),
            "lease_seconds": self._lease_time.total_seconds(),
            "released": False,
            # Its own sessions, and those of earlier holders that died before they had ended the ones before them.
            "sessions": [fence.session_id, *sessions[: _SESSIONS - 1]],
            # For people; no decision depends on it.
            "taken_at": datetime.now(UTC),
        }
        lease = self._database["lease"]
        if seen is None:
            with suppress(DuplicateKeyError):
                await lease.insert_one({"_id": self._names.writer, **fields})
                return True
        else:
            # The beat of a released lease stands still.
            beat = {} if seen.released else {"beat": seen.beat}
            claimed = await lease.replace_one(
                {"_id": self._names.writer, "epoch": seen.epoch, **beat}, fields
            )
            if claimed.matched_count:
                return True
        # An earlier attempt may have done it, and its answer was lost.
        return await lease.find_one({"_id": self._names.writer, "sessions.0": fence.session_id}) is not None

    async def _raise_fence(self, fence: Fence, sessions: list[Binary]) -> bool:
        """Raise the fence to an epoch; False if it is already at a later one."""
        statement = {
            "q": {"_id": self._names.fence, "epoch": {"$lt": fence.epoch}},
            "u": {"$set": {"epoch": fence.epoch, "writes": 0}},
            "upsert": True,
        }
        for failure in await self._raise("lease", statement, sessions):
            if failure["code"] == _DUPLICATE_KEY:
                stands = await self._database["lease"].find_one({"_id": self._names.fence}) or {}
                return bool(stands.get("epoch") == fence.epoch)
            raise OperationFailure(str(failure.get("errmsg")), failure["code"])
        return True

    async def _raise_slots(self, fence: Fence, sessions: list[Binary]) -> None:
        """Raise the epoch of every slot, those of an earlier release's number of them too. None of an earlier epoch is
        made any more: that takes the fence."""
        statement = {
            "q": {**self._names.query, "epoch": {"$lt": fence.epoch}},
            "u": {"$set": {"epoch": fence.epoch}},
            "multi": True,
        }
        for failure in await self._raise("slots", statement, sessions):
            raise OperationFailure(str(failure.get("errmsg")), failure["code"])

    async def _raise(
        self, collection: str, statement: dict[str, Any], sessions: list[Binary]
    ) -> Sequence[Mapping[str, Any]]:
        """End the sessions of earlier holders and do one update; returns the errors of its statement."""
        if sessions:
            # Without names this command would end the sessions of every user, including LibreChat's.
            with suppress(OperationFailure):
                await self._database.command({"killSessions": [{"id": session} for session in sessions]})
        answer = await self._database.command(
            {
                "update": collection,
                "updates": [statement],
                "writeConcern": MAJORITY.document,
                # The write may not wait longer behind a transaction that began after the sessions were ended: they are
                # ended again.
                "maxTimeMS": _RAISE_MILLISECONDS,
            }
        )
        failures: Sequence[Mapping[str, Any]] = answer.get("writeErrors", ())
        for concern in filter(None, [None if failures else answer.get("writeConcernError")]):
            raise WriteConcernError(str(concern.get("errmsg")), concern["code"])
        return failures
