"""One node of a running replica set, as a failover test sees it.

Owns the ways in which a node can fail and come back. It never blocks: the work runs where the set's work runs.
"""

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from tailer.demo.stage.mongod import Mongod

Run: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs blocking work on the replica set's own thread."""


class Member:
    """One node of a running set. Its address and data stay the same over kill and restart."""

    def __init__(self, mongod: Mongod, run: Run) -> None:
        self._mongod = mongod
        self._run = run

    @property
    def address(self) -> str:
        """`host:port`, as replica set configurations and drivers write it."""
        return self._mongod.address

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return self._mongod.port

    @property
    def uri(self) -> str:
        """A URI that reaches this node only, whatever its state in the set."""
        return self._mongod.uri

    @property
    def log_path(self) -> Path:
        """The server's log; deleted with the set."""
        return self._mongod.log_path

    @property
    def process_id(self) -> int | None:
        """The id of the running process; None if it was ended."""
        return self._mongod.process_id

    async def kill(self) -> None:
        """SIGKILL: gone at once, as in a power cut. Returns when the process has ended."""
        await self._run(lambda: self._mongod.end(signal.SIGKILL))

    async def terminate(self) -> None:
        """SIGTERM: a primary hands over and shuts down in order. Returns when the process has ended."""
        await self._run(lambda: self._mongod.end(signal.SIGTERM))

    async def stop(self) -> None:
        """SIGSTOP: the node keeps its connections and answers nothing, as in a network partition."""
        await self._run(lambda: self._mongod.send(signal.SIGSTOP))

    async def resume(self) -> None:
        """SIGCONT after `stop`."""
        await self._run(lambda: self._mongod.send(signal.SIGCONT))

    async def restart(self) -> None:
        """Start the node again on its old data, killing it first if it runs.

        Returns when it answers `hello`.
        """

        def kill_and_launch() -> None:
            self._mongod.end(signal.SIGKILL)
            self._mongod.launch()

        await self._run(kill_and_launch)
