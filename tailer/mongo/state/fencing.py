"""The fence: no write of an instance that lost the lease lands, however late it comes.

Every write is a transaction that also writes the fence document of its epoch. A takeover writes the same document, so
exactly one of the two commits: either the write was there before the takeover, or it fails and finds a later epoch.
Renewals of the lease write another document and never conflict.

Writes of one instance would conflict with each other on the fence, so they run one after another, over one session. The
lease document names that session. A process that is killed inside a transaction leaves it open on the server for up to
a minute, with the fence locked (tried on 6.0.5; a closed connection ends nothing). So the next holder ends that session
first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bson import Binary
from motor.motor_asyncio import AsyncIOMotorClientSession
from pymongo.errors import PyMongoError

from tailer.errors import LeaseLost
from tailer.events import StateOperation
from tailer.mongo.retrying import keep_trying
from tailer.mongo.state.database import StateDatabase, begin_transaction

FENCE_ID = "fence"
_UNKNOWN_COMMIT = "UnknownTransactionCommitResult"
_CLOSING_SECONDS = 2.0
_Result = TypeVar("_Result")

Work = Callable[[AsyncIOMotorClientSession], Awaitable[_Result]]


class Fence:
    """The writes of one epoch."""

    def __init__(self, database: StateDatabase, session: AsyncIOMotorClientSession, epoch: int) -> None:
        self._database = database
        self._session = session
        self._epoch = epoch
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[object]] = set()

    @property
    def epoch(self) -> int:
        """The epoch of the writes; a later leader has a higher one."""
        return self._epoch

    @property
    def session_id(self) -> Binary:
        """The server's id of the session."""
        identity: Binary = self._session.delegate.session_id["id"]
        return identity

    async def write(self, operation: StateOperation, work: Work[_Result]) -> _Result:
        """Do all of `work`, which passes the session to every command, or nothing of it; repeats what passes.

        `work` may run several times. Raises LeaseLost when there is a later epoch.
        """
        return await self._database.attempt(operation, lambda: self._begin(operation, work))

    async def close(self) -> None:
        """End the session; a write that was cancelled and still runs on the driver's thread has a moment to finish."""
        if self._running:
            await asyncio.wait(self._running, timeout=_CLOSING_SECONDS)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._session.end_session()

    async def _begin(self, operation: StateOperation, work: Work[_Result]) -> _Result:
        # A cancelled command goes on in its thread: the session must not be used by another one before it is done.
        task = asyncio.create_task(self._transact(operation, work), name=f"write {operation}")
        self._running.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: "asyncio.Task[object]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            # The waiting task may be gone.
            task.exception()

    async def _transact(self, operation: StateOperation, work: Work[_Result]) -> _Result:
        async with self._turn:
            begin_transaction(self._session)
            try:
                await self._prove()
                result = await work(self._session)
            except asyncio.CancelledError:
                raise
            except BaseException:
                await self._session.abort_transaction()
                raise
            await self._commit(operation)
            return result

    async def _prove(self) -> None:
        """Write the fence. From here on, a takeover and this transaction cannot both commit."""
        proven = await self._database["lease"].update_one(
            {"_id": FENCE_ID, "epoch": self._epoch}, {"$inc": {"writes": 1}}, session=self._session
        )
        if not proven.matched_count:
            raise LeaseLost(subject=self._database.name, epoch=self._epoch)

    async def _commit(self, operation: StateOperation) -> None:
        """Commit, and repeat that while the answer is lost: the server recognises a commit that it has done."""

        async def commit() -> None:
            await self._session.commit_transaction()

        def is_unknown(error: BaseException) -> bool:
            return isinstance(error, PyMongoError) and error.has_error_label(_UNKNOWN_COMMIT)

        await keep_trying(
            commit, lambda failure: self._database.report(operation, failure), passing=is_unknown
        )
