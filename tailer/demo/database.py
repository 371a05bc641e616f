"""The MongoDB that the demo plays into: its own replica set, or a server that the user names.

Owns the two databases of the demo and their removal. On a foreign server it reads and writes nothing else.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from pymongo.errors import ConnectionFailure, PyMongoError

from tailer.demo.programme import Programme
from tailer.demo.stage.player import play
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import SourceError
from tailer.mongo.connection import (
    SOCKET_MILLISECONDS,
    Client,
    connect,
    describe_address,
    inspect_source,
)
from tailer.mongo.failures import explain_source_failure, failure_name

DATABASE: Final = "librechat_tailer_demo"
STATE_DATABASE: Final = "librechat_tailer_demo_state"
URI_NAME: Final = "TAILER_MONGO_URI"


def given_uri() -> str | None:
    """The server that the environment names. A server in `.env` is ignored, because the target of writes must be named
    on purpose."""
    return os.environ.get(URI_NAME, "").strip() or None


class DemoDatabase:
    """A running server; `description` names it for people."""

    def __init__(self, uri: str, client: Client, description: str) -> None:
        self.uri = uri
        self.description = description
        self._client = client

    async def play(self, programme: Programme, *, speed: float) -> None:
        """Play a programme into `DATABASE`; raises SourceError when the server does not take it."""
        try:
            await play(programme.recordings, self._client[DATABASE], speed=speed)
        except PyMongoError as error:
            raise _refusal("playing the recordings", self._client, error) from error

    async def drop(self) -> None:
        """Remove what the demo wrote, and nothing else."""
        try:
            for name in (DATABASE, STATE_DATABASE):
                await self._client.drop_database(name)
        except PyMongoError as error:
            raise _refusal(f"dropping {DATABASE} and {STATE_DATABASE}", self._client, error) from error


@asynccontextmanager
async def open_database(uri: str | None) -> AsyncIterator[DemoDatabase]:
    """The server at `uri`, or a new replica set on this machine; gone, or cleaned, at the end.

    Raises TailerError when there is no mongod, and SourceError when the server at `uri` cannot be tailed.
    """
    if uri is not None:
        async with _connected(uri, "your") as database:
            # An earlier demo may have been killed: its checkpoints would let this one read old turns.
            await database.drop()
            try:
                yield database
            except BaseException:
                # The reader wants to know what ended the demo, and not that the same server does not clean up either.
                with suppress(SourceError):
                    await database.drop()
                raise
            await database.drop()
        return
    async with ReplicaSet() as replica_set, _connected(replica_set.uri, "a new") as database:
        yield database


@asynccontextmanager
async def _connected(uri: str, owner: str) -> AsyncIterator[DemoDatabase]:
    try:
        client = connect(uri, application="librechat-tailer-demo", socket_milliseconds=SOCKET_MILLISECONDS)
    except PyMongoError as error:
        raise explain_source_failure(error, URI_NAME) from error
    try:
        facts = await inspect_source(client[DATABASE])
        address = describe_address(client)
        yield DemoDatabase(
            uri, client, f"{owner} MongoDB {facts.version}, replica set {facts.replica_set} on {address}"
        )
    finally:
        client.close()


def _refusal(operation: str, client: Client, error: PyMongoError) -> SourceError:
    if isinstance(error, ConnectionFailure):
        hint = f"the server does not answer any more ({failure_name(error)}); see that it runs, and start the demo again"
    else:
        hint = (
            f"MongoDB answered {failure_name(error)}; the demo's user needs readWrite and dropDatabase on {DATABASE} "
            f"and {STATE_DATABASE}, or leave {URI_NAME} unset for a server of the demo's own"
        )
    return SourceError(operation=operation, subject=describe_address(client), hint=hint)
