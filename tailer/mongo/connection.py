"""Clients for LibreChat's database and for the state database, and the checks that a start needs."""

import time
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any, TypeAlias

from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import ReadPreference
from pymongo.errors import PyMongoError

from tailer.errors import SourceAway, SourceError
from tailer.mongo.credential_files import named_files, unreadable_files
from tailer.mongo.document_keys import TOLERANT
from tailer.mongo.error_codes import REPLICA_SET_REMEDY
from tailer.mongo.failures import explain_source_failure
from tailer.mongo.mechanisms import missing_package
from tailer.settings import connection_options
from tailer.settings.addresses import parse_mongo_uri

Client: TypeAlias = "AsyncIOMotorClient[dict[str, Any]]"
Database: TypeAlias = "AsyncIOMotorDatabase[dict[str, Any]]"

_CONNECTING = "connecting to MongoDB"
_OPENING = "opening the change streams"

_SECONDARY_REMEDY = (
    "the URI leads to a node that is not the primary; name the whole set with replicaSet=<its name>, and leave "
    "directConnection=true out"
)

LONGEST_HOLD_MILLISECONDS = 2_500
"""How long the server holds a `getMore` without events at most: short enough to prove that the stream is alive, and
long enough that an idle tailer asks seldom."""
SOCKET_MILLISECONDS = connection_options.SOCKET_MILLISECONDS


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The answer of `hello`; `now` is the first moment of cluster time after it."""

    replica_set: str
    version: str
    now: Timestamp | None


def connect(uri: str, *, application: str, socket_milliseconds: int, keeps_state: bool = False) -> Client:
    """A client that gives up soon on a server that is away, unless the URI says otherwise, because the caller tries
    again.

    Raises SourceError for what the driver refuses at once: unreadable files, contradicting options, a log-in that needs
    a package that is not installed.
    """
    missing = missing_package(uri)
    if missing is not None:
        raise SourceError(operation=_CONNECTING, subject="the MongoDB URI", hint=missing)
    options = connection_options.fill_options(
        uri, application=application, socket_milliseconds=socket_milliseconds, keeps_state=keeps_state
    )
    try:
        return AsyncIOMotorClient(uri, **options)
    except OSError as error:
        files = unreadable_files(uri) or [
            f"{option}={path} ({type(error).__name__})" for option, path in named_files(uri).items()
        ]
        raise SourceError(
            operation=_CONNECTING,
            subject=", ".join(files) or "the MongoDB URI",
            hint="the driver cannot use this file; correct the path in the URI, mount the file, or renew it: PEM with a "
            "certificate, and for tlsCertificateKeyFile its key",
        ) from None
    except (PyMongoError, ValueError, TypeError) as error:
        raise SourceError(
            operation=_CONNECTING, subject="the MongoDB URI", hint=f"{_what_is_wrong(uri, error)}; correct it"
        ) from None


def _what_is_wrong(uri: str, error: Exception) -> str:
    """The driver's own words, unless they could show a part of the credentials."""
    words = str(error)
    address = parse_mongo_uri(uri)
    is_safe = address.user is None or (address.user not in words and "://" not in words)
    return f"the driver refuses its options ({words})" if is_safe else "the driver refuses its options"


def tolerant_database(client: Client, name: str) -> Database:
    """A database whose documents decode whatever was stored, read from the primary whatever the URI prefers.

    A node that lags does not yet show a row that the stream has reported: the row would count as deleted.
    """
    return client.get_database(name, codec_options=TOLERANT, read_preference=ReadPreference.PRIMARY)


def longest_hold_milliseconds(client: Client) -> int:
    """How long the server may hold a `getMore` at most: less than the URI lets a connection be silent."""
    pool = client.delegate.options.pool_options
    limits = [limit for limit in (pool.socket_timeout, client.delegate.options.timeout) if limit]
    return max(1, min([LONGEST_HOLD_MILLISECONDS, *(int(limit * 500) for limit in limits)]))


async def answers(database: Database) -> bool:
    """Whether a server answers at this moment."""
    try:
        await database.command("ping")
    except PyMongoError:
        return False
    return True


def selection_patience(client: Client) -> timedelta:
    """How long the driver looks for a server before it says that none answers."""
    return timedelta(seconds=client.delegate.options.server_selection_timeout)


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
    if not hello.get("isWritablePrimary", hello.get("ismaster", True)):
        # An election may be in progress.
        raise SourceAway(operation=_OPENING, subject=subject, hint=_SECONDARY_REMEDY)
    return SourceFacts(
        replica_set=str(replica_set or "sharded cluster"),
        version=str(build.get("version", "unknown")),
        now=_following(hello.get("operationTime")),
    )


def _following(moment: object) -> Timestamp | None:
    return Timestamp(moment.time, moment.inc + 1) if isinstance(moment, Timestamp) else None


def describe_address(client: Client) -> str:
    """The hosts of a client, without user and password."""
    return ", ".join(seed_hosts(client))


def seed_hosts(client: Client) -> list[str]:
    """The hosts that a client knows, `host:port` each; those of its URI where it has dropped all of them, as the driver
    does with servers of another replica set than the URI names."""
    known = client.delegate.topology_description.server_descriptions()
    if not known:
        settings = client.delegate._topology_settings  # noqa: SLF001 - the driver shows the URI's hosts nowhere else
        known = dict.fromkeys(settings.seeds) if settings is not None else {}
    return sorted(f"{host}:{port}" for host, port in known)


async def ask_hello(database: Database) -> tuple[dict[str, Any], float]:
    """The answer of `hello`, and how many seconds this machine's clock is ahead of the one in it.

    The server's clock was read somewhere within the round trip: half of that is uncertain.
    """
    asked, began = time.time(), time.monotonic()
    hello: dict[str, Any] = await database.command("hello")
    middle = asked + (time.monotonic() - began) / 2
    # The driver returns UTC without a time zone.
    return hello, middle - hello["localTime"].replace(tzinfo=UTC).timestamp()
