"""The fence: no write of an instance that lost the lease lands, however late it comes.

Every write is a transaction that also writes the fence document of its epoch. A takeover writes the same document, so
exactly one of the two commits: either the write was there before the takeover, or it fails and finds a later epoch.
Renewals of the lease write another document and never conflict. The slots of batches (`tailer/mongo/state/slots.py`)
carry the epoch themselves, and a write of a slot proves itself by that slot.

Writes of one instance would conflict with each other on the fence, so they run one after another, over one session. The
lease document names that session. A process that is killed inside a transaction leaves it open on the server for up to
a minute, with the fence or a slot locked (tried on 6.0.5; a closed connection ends nothing). So every transaction runs
in that session, and the next holder ends it first.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from bson import Binary
from motor.motor_asyncio import AsyncIOMotorClientSession
from pymongo.errors import PyMongoError

from tailer.errors import LeaseLost
from tailer.events import StateOperation
from tailer.mongo.driver_thread import run_job
from tailer.mongo.retrying import keep_trying
from tailer.mongo.state.database import StateDatabase, Transaction
from tailer.mongo.state.names import StateNames

_UNKNOWN_COMMIT = "UnknownTransactionCommitResult"
_CLOSING_SECONDS = 2.0
_Result = TypeVar("_Result")

Work = Callable[[Transaction], _Result]
Proof = Callable[[Transaction], bool]
"""The first write of a transaction, of a document that names the epoch; False if it names another one."""


class Fence:
    """The writes of one epoch of one share of the work."""

    def __init__(
        self, database: StateDatabase, session: AsyncIOMotorClientSession, names: StateNames, epoch: int
    ) -> None:
        self._database = database
        self._session = session
        self._names = names
        self._epoch = epoch
        self._positions = 0
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[object]] = set()

    @property
    def epoch(self) -> int:
        """The epoch of the writes; a later leader has a higher one."""
        return self._epoch

    @property
    def names(self) -> StateNames:
        """The names of what this share keeps for itself."""
        return self._names

    def lost(self) -> LeaseLost:
        """The error of a write that a later epoch made miss."""
        return LeaseLost(subject=self._database.name, epoch=self._epoch)

    def number_position(self) -> int:
        """The number of the next position; of two positions of an epoch the one with the higher number is newer."""
        self._positions += 1
        return self._positions

    @property
    def session_id(self) -> Binary:
        """The server's id of the session."""
        identity: Binary = self._session.delegate.session_id["id"]
        return identity

    async def write(self, operation: StateOperation, work: Work[_Result]) -> _Result:
        """Do all of `work`, which passes the session to every command, or nothing of it; repeats what passes.

        `work` runs on a thread of the driver, and may run several times. Raises LeaseLost when there is a later epoch.
        """
        return await self.write_proven(operation, self._prove, work)

    async def write_proven(self, operation: StateOperation, proof: Proof, work: Work[_Result]) -> _Result:
        """As `write`, with a proof of its own in place of the fence document."""
        return await self._database.attempt(operation, lambda: self._begin(operation, proof, work))

    async def close(self) -> None:
        """End the session; a write that was cancelled and still runs on the driver's thread has a moment to finish."""
        if self._running:
            await asyncio.wait(self._running, timeout=_CLOSING_SECONDS)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._session.end_session()

    async def _begin(self, operation: StateOperation, proof: Proof, work: Work[_Result]) -> _Result:
        # A cancelled job goes on in its thread: the session must not be used by another one before it is done.
        task = asyncio.create_task(self._transact(operation, proof, work), name=f"write {operation}")
        self._running.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: "asyncio.Task[object]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            # The waiting task may be gone.
            task.exception()

    async def _transact(self, operation: StateOperation, proof: Proof, work: Work[_Result]) -> _Result:
        async with self._turn:
            tried: tuple[_Result, PyMongoError | None] = await run_job(self._try, proof, work)
            result, doubt = tried
            if doubt is not None:
                self._database.report(operation, doubt)
                await self._commit_again(operation)
            return result

    def _try(self, proof: Proof, work: Work[_Result]) -> tuple[_Result, PyMongoError | None]:
        """The whole transaction, and the error if the answer to its commit was lost."""
        transaction = self._database.transaction(self._session)
        transaction.begin()
        try:
            self._require(transaction, proof)
            result = work(transaction)
        except BaseException:
            transaction.session.abort_transaction()
            raise
        try:
            transaction.session.commit_transaction()
        except PyMongoError as error:
            if not _is_unknown(error):
                raise
            return result, error
        return result, None

    def prove(self, transaction: Transaction) -> None:
        """Prove this epoch within a transaction of another fence; raises LeaseLost if there is a later one."""
        self._require(transaction, self._prove)

    def _require(self, transaction: Transaction, proof: Proof) -> None:
        if not proof(transaction):
            raise self.lost()

    def _prove(self, transaction: Transaction) -> bool:
        """Write the fence. From here on, a takeover and this transaction cannot both commit."""
        proven = transaction["lease"].update_one(
            {"_id": self._names.fence, "epoch": self._epoch},
            {"$inc": {"writes": 1}},
            session=transaction.session,
        )
        return bool(proven.matched_count)

    async def _commit_again(self, operation: StateOperation) -> None:
        """Repeat the commit while its answer is lost: the server recognises one that it has done."""

        async def commit() -> None:
            await self._session.commit_transaction()

        await keep_trying(
            commit, lambda failure: self._database.report(operation, failure), passing=_is_unknown
        )


def _is_unknown(error: BaseException) -> bool:
    return isinstance(error, PyMongoError) and error.has_error_label(_UNKNOWN_COMMIT)
