"""The way to the tailer's own database: retries failures that pass, explains the others."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from motor.motor_asyncio import AsyncIOMotorClientSession, AsyncIOMotorCollection
from pymongo import ReadPreference, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import CollectionInvalid, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from tailer.errors import StateError
from tailer.events import Emit, StateFailed, StateOperation
from tailer.mongo.connection import Client, answers
from tailer.mongo.failures import failure_name
from tailer.mongo.retrying import keep_trying

Result = TypeVar("Result")

MAJORITY = WriteConcern(w="majority")
LOCAL = ReadConcern("local")
"""Reads from the primary: whatever the URI prefers, decisions are read where they were written."""
_CONCERNS: Final[Mapping[str, Any]] = {
    "read_concern": LOCAL,
    "write_concern": MAJORITY,
    "read_preference": ReadPreference.PRIMARY,
}
_STANDALONE = (20, 263)
_NAMESPACE_EXISTS = 48
_UNAUTHORIZED = 13
_AUTHENTICATION_FAILED = 18
_STANDALONE_REMEDY = (
    "its server is standalone, and the state needs transactions, which a replica set has. One node is enough: start it "
    "with `mongod --replSet rs0 --bind_ip_all`, then once run "
    "`rs.initiate({_id: 'rs0', members: [{_id: 0, host: 'mongodb:27017'}]})` in mongosh, with the host name under which "
    "it is reached; or leave TAILER_STATE_URI out, and the state is kept on LibreChat's server"
)
_REMEDIES = {
    **dict.fromkeys(_STANDALONE, _STANDALONE_REMEDY),
    _UNAUTHORIZED: "the MongoDB user may not write it; grant the built-in role readWrite on this database, or set "
    "TAILER_STATE_URI to a server where the user may",
    _AUTHENTICATION_FAILED: "MongoDB refuses user or password; correct TAILER_STATE_URI (authSource included), or "
    "TAILER_MONGO_URI where the state has no address of its own",
}
COLLECTIONS = (
    "lease",
    "keys",
    "owner",
    "checkpoints",
    "exports",
    "batches",
    "slots",
    "parked",
    "dead_letters",
    "owed",
    "gaps",
    "backfills",
)


def begin_transaction(session: AsyncIOMotorClientSession) -> AbstractAsyncContextManager[object]:
    """Begin a transaction with the read and write concerns that the state needs, whatever the URI says; usable with
    `with`."""
    begun: AbstractAsyncContextManager[object] = session.start_transaction(**_CONCERNS)
    return begun


class Transaction:
    """A transaction on a thread of the driver: the collections, and the session that each command in it is given."""

    def __init__(self, database: "Database[dict[str, Any]]", session: ClientSession) -> None:
        self._database = database
        self.session = session

    def __getitem__(self, collection: str) -> "Collection[dict[str, Any]]":
        """One collection."""
        return self._database[collection]

    def begin(self) -> None:
        """Begin it, or begin it anew."""
        self.session.start_transaction(**_CONCERNS)


class StateDatabase:
    """One database, every write acknowledged by a majority."""

    def __init__(self, client: Client, name: str, emit: Emit) -> None:
        self._client = client
        self._database = client.get_database(
            name, write_concern=MAJORITY, read_preference=ReadPreference.PRIMARY, read_concern=LOCAL
        )
        self._emit = emit

    @property
    def name(self) -> str:
        """The name of the database."""
        return str(self._database.name)

    @property
    def client(self) -> Client:
        """The client of its server."""
        return self._client

    def __getitem__(self, collection: str) -> "AsyncIOMotorCollection[dict[str, Any]]":
        """One collection."""
        return self._database[collection]

    def transaction(self, session: AsyncIOMotorClientSession) -> Transaction:
        """A transaction over a session, which is not begun yet."""
        return Transaction(self._database.delegate, session.delegate)

    async def start_session(self) -> AsyncIOMotorClientSession:
        """A session for transactions; it costs no round trip."""
        return await self._client.start_session(causal_consistency=False)

    async def command(self, command: dict[str, Any]) -> dict[str, Any]:
        """One command on this database, tried once."""
        answer: dict[str, Any] = await self._database.command(command)
        return answer

    async def answers(self) -> bool:
        """Whether the server answers at this moment."""
        return await answers(self._database)

    async def prepare(self) -> None:
        """Check that the server has transactions and that every collection exists; raises StateError."""
        hello = await self.attempt(StateOperation.PREPARE, lambda: self.command({"hello": 1}))
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise self._explain(StateOperation.PREPARE, _STANDALONE_REMEDY)
        await self.attempt(StateOperation.PREPARE, self._create_collections)

    async def _create_collections(self) -> None:
        # Older servers create no collection inside a transaction, and in newer ones it is a cause of conflicts.
        missing = set(COLLECTIONS) - set(await self._database.list_collection_names())
        for collection in sorted(missing):
            try:
                await self._database.create_collection(collection)
            except (CollectionInvalid, OperationFailure) as error:
                # Another instance that starts at the same moment created it.
                if isinstance(error, OperationFailure) and error.code != _NAMESPACE_EXISTS:
                    raise

    async def attempt(self, operation: StateOperation, call: Callable[[], Awaitable[Result]]) -> Result:
        """The result of a call, which is repeated for as long as its failure is one that passes.

        Raises StateError for what an operator must mend.
        """
        try:
            return await keep_trying(call, lambda failure: self.report(operation, failure))
        except PyMongoError as error:
            code = error.code if isinstance(error, OperationFailure) else None
            unknown = (
                f"MongoDB answered {failure_name(error)}; see the log of its server, and check TAILER_STATE_URI, or "
                "TAILER_MONGO_URI where the state has no address of its own"
            )
            raise self._explain(operation, _REMEDIES.get(code or 0, unknown)) from error

    def report(self, operation: StateOperation, error: PyMongoError) -> None:
        """Report a failure after which the operation is tried again."""
        self._emit(StateFailed(operation, failure_name(error)))

    def _explain(self, operation: StateOperation, hint: str) -> StateError:
        return StateError(
            operation=operation.replace("_", " "), subject=f"state database {self.name}", hint=hint
        )
