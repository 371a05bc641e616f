"""Clients for LibreChat's database and for the state database, and the checks that a start needs."""

import time
from dataclasses import dataclass
from datetime import UTC
from typing import Any, TypeAlias

from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo.errors import PyMongoError

from tailer.errors import SourceError
from tailer.mongo.document_keys import TOLERANT
from tailer.mongo.error_codes import REPLICA_SET_REMEDY
from tailer.mongo.failures import explain_source_failure

Client: TypeAlias = "AsyncIOMotorClient[dict[str, Any]]"
Database: TypeAlias = "AsyncIOMotorDatabase[dict[str, Any]]"

_OPENING = "opening the change streams"

POLL_MILLISECONDS = 1000
"""How long the server holds a `getMore` with nothing to say: often enough to prove that the stream is alive."""
STREAM_SOCKET_MILLISECONDS = 20_000
"""The server answers after a poll, but not while it scans an oplog full of other writes: with less patience a stream
that catches up would ask for the same stretch again and again. A half-open connection is noticed sooner, by the
driver's own monitor."""
QUERY_SOCKET_MILLISECONDS = 30_000
"""A query of large rows on a busy server may take its time."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What `hello` tells of the server; `now` is the first moment of cluster time after its answer."""

    replica_set: str
    version: str
    now: Timestamp | None


def connect(uri: str, *, application: str, socket_milliseconds: int) -> Client:
    """A client that gives up soon on a server that is away, because the caller tries again for ever."""
    return AsyncIOMotorClient(
        uri,
        appname=application,
        serverSelectionTimeoutMS=2000,
        heartbeatFrequencyMS=2000,
        connectTimeoutMS=3000,
        socketTimeoutMS=socket_milliseconds,
        retryReads=True,
        retryWrites=True,
        maxPoolSize=16,
    )


def tolerant_database(client: Client, name: str) -> Database:
    """A database whose documents decode whatever was stored."""
    return client.get_database(name, codec_options=TOLERANT)


async def inspect_source(database: Database) -> SourceFacts:
    """Ask the server what it is; raises SourceError when its changes cannot be tailed."""
    subject = describe_address(database.client)
    try:
        hello = await database.command("hello")
        build = await database.command("buildInfo")
    except PyMongoError as error:
        raise explain_source_failure(error, subject, _OPENING) from error
    replica_set = hello.get("setName")
    if replica_set is None and hello.get("msg") != "isdbgrid":
        raise SourceError(operation=_OPENING, subject=subject, hint=REPLICA_SET_REMEDY)
    return SourceFacts(
        replica_set=str(replica_set or "sharded cluster"),
        version=str(build.get("version", "unknown")),
        now=_following(hello.get("operationTime")),
    )


def _following(moment: object) -> Timestamp | None:
    return Timestamp(moment.time, moment.inc + 1) if isinstance(moment, Timestamp) else None


def describe_address(client: Client) -> str:
    """The hosts of a client, without user and password."""
    seeds = client.delegate.topology_description.server_descriptions()
    return ", ".join(sorted(f"{host}:{port}" for host, port in seeds))


async def ask_hello(database: Database) -> tuple[dict[str, Any], float]:
    """The answer of `hello`, and how many seconds this machine's clock is ahead of the one in it.

    The server's clock was read somewhere within the round trip: half of that is uncertain.
    """
    asked, began = time.time(), time.monotonic()
    hello: dict[str, Any] = await database.command("hello")
    middle = asked + (time.monotonic() - began) / 2
    # The driver gives UTC without saying so.
    return hello, middle - hello["localTime"].replace(tzinfo=UTC).timestamp()
