"""A real MongoDB replica set on this machine, for as long as a `with` block lasts.

Owns a set of mongod processes, their ports, their data directories and the one `replSetInitiate`. The data is
disposable: leaving the block kills every process and deletes every file. It never touches a mongod that it
did not start.

All work runs on one thread of its own. That keeps the event loop free, makes the same object usable with
`with` and with `async with` and from several event loops, and has one more reason: Linux sends the
parent-death signal when the *thread* that started the child ends, so a child of a passing worker thread would
die with that worker.
"""

import asyncio
import atexit
import concurrent.futures
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from bson import Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tailer.demo.stage.member import Member
from tailer.demo.stage.mongod import Mongod, find_mongod

_UNAUTHORIZED: Final = 13

_Result = TypeVar("_Result")


class ReplicaSet:
    """One or more mongod processes forming a replica set; `standalone=True` makes one server without a set.

    `mongod_arguments` are added to every node's command line (for example `--setParameter
    enableTestCommands=1`, `--auth --keyFile FILE`). `oplog_megabytes` is by default the least that
    MongoDB lets one set at run time. `election_timeout` is short, so that failover takes seconds.
    Starting raises TailerError with the end of the server's log when a node ends, or when the set has no
    primary after `start_timeout`; whatever had been started by then is cleaned up. One object can be
    started once.
    """

    def __init__(
        self,
        *,
        size: int = 1,
        standalone: bool = False,
        name: str = "rs0",
        mongod: Path | None = None,
        mongod_arguments: Sequence[str] = (),
        oplog_megabytes: int = 990,
        election_timeout: timedelta = timedelta(seconds=2),
        start_timeout: timedelta = timedelta(seconds=60),
    ) -> None:
        if standalone and size != 1:
            raise ValueError("a standalone server has size 1")
        self.name = name
        self.members: tuple[Member, ...] = ()
        self._servers: list[Mongod] = []
        self._size = size
        self._standalone = standalone
        self._binary = mongod
        replication = () if standalone else ("--replSet", name, "--oplogSize", str(oplog_megabytes))
        self._arguments = (*replication, *mongod_arguments)
        self._election_timeout = election_timeout
        self._start_timeout = start_timeout
        self._closing = threading.Event()
        self._directory: Path | None = None
        self._thread: concurrent.futures.ThreadPoolExecutor | None = None

    @property
    def uri(self) -> str:
        """A URI of the whole set (or of the standalone server), without a database."""
        return self.uri_of("")

    def uri_of(self, database: str) -> str:
        """A URI as LibreChat's MONGO_URI has it: with the database in the path."""
        addresses = ",".join(server.address for server in self._servers)
        options = "directConnection=true" if self._standalone else f"replicaSet={self.name}"
        return f"mongodb://{addresses}/{database}?{options}"

    async def primary(self) -> Member:
        """The present primary; waits for an election, at most `start_timeout` (then TailerError)."""
        return await self.run(self._wait_for_primary)

    async def secondaries(self) -> tuple[Member, ...]:
        """The nodes that answer as secondaries at this moment."""
        return await self.run(lambda: self._answering("secondary"))

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Run blocking work on the set's own thread, one piece at a time."""
        if self._thread is None:
            raise RuntimeError("the replica set is not running")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def __enter__(self) -> Self:
        thread = self._open_thread()
        try:
            thread.submit(self._start).result()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean_up()

    async def __aenter__(self) -> Self:
        self._open_thread()
        try:
            await self.run(self._start)
        except BaseException:
            self._clean_up()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not awaited: a cancellation half way would leave processes behind, and SIGKILL takes milliseconds.
        self._clean_up()

    def _open_thread(self) -> concurrent.futures.ThreadPoolExecutor:
        if self._thread is not None or self._closing.is_set():
            raise RuntimeError("a replica set is started once")
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"replica-set-{self.name}")
        atexit.register(self._clean_up)
        return self._thread

    def _start(self) -> None:
        binary = find_mongod(self._binary)
        self._directory = Path(tempfile.mkdtemp(prefix="tailer-mongod-"))
        for index in range(self._size):
            server = Mongod(
                binary,
                directory=self._directory / f"member-{index}",
                arguments=self._arguments,
                patience=self._start_timeout,
            )
            if self._closing.is_set():
                raise server.failure("start mongod", reason="the replica set is closing")
            self._servers.append(server)
            server.launch_on_a_free_port()
        self.members = tuple(Member(server, self.run) for server in self._servers)
        if not self._standalone:
            self._initiate()

    def _initiate(self) -> None:
        configuration = {
            "_id": self.name,
            "members": [{"_id": index, "host": server.address} for index, server in enumerate(self._servers)],
            "settings": {"electionTimeoutMillis": self._election_timeout // timedelta(milliseconds=1)},
        }
        with _client(self._servers[0].uri) as client:
            client.admin.command("replSetInitiate", configuration)
        self._wait_for_primary()
        self._servers[0].wait_until(
            lambda: len(self._answering("secondary")) == self._size - 1,
            waiting_for="complete set of secondaries",
        )
        if self._size > 1:
            self._age()

    def _age(self) -> None:
        """Give every node a commit point and a checkpoint: a node that must roll back without them aborts."""
        try:
            with _client(self.uri) as client:
                note = client.admin.command(
                    "appendOplogNote", data={"message": "the set is complete"}, writeConcern={"w": self._size}
                )
        except OperationFailure as failure:
            if failure.code == _UNAUTHORIZED:
                # With --auth there is no user yet; such a set is for tests of privileges, not of failover.
                return
            raise
        written = note["operationTime"]
        for server in self._servers:
            server.wait_until(partial(_has_committed, server, written), waiting_for="commit point")
            with _client(server.uri) as client:
                client.admin.command("fsync")

    def _answering(self, role: str) -> tuple[Member, ...]:
        return tuple(
            member
            for member, server in zip(self.members, self._servers, strict=True)
            if server.process_id is not None and (server.hello() or {}).get(role) is True
        )

    def _wait_for_primary(self) -> Member:
        found: list[Member] = []

        def look() -> bool:
            found.extend(self._answering("isWritablePrimary"))
            return bool(found)

        self._servers[0].wait_until(look, waiting_for="primary")
        return found[0]

    def _clean_up(self) -> None:
        self._closing.set()
        atexit.unregister(self._clean_up)
        # From the calling thread, because the own thread may be in the middle of waiting for a node; and
        # again when that thread has ended, because an interrupted start may have launched one more node.
        self._kill_all()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self._kill_all()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _kill_all(self) -> None:
        for server in self._servers:
            server.end(signal.SIGKILL)


def _client(uri: str) -> MongoClient[dict[str, Any]]:
    # Every node has answered already, so a long search only means that the set is being closed.
    return MongoClient(uri, serverSelectionTimeoutMS=10_000)


def _has_committed(server: Mongod, written: Timestamp) -> bool:
    # The field is absent until the node has heard of a first majority.
    majority = (server.hello() or {}).get("lastWrite", {}).get("majorityOpTime")
    return majority is not None and bool(majority["ts"] >= written)
