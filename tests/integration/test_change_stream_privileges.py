"""A change stream under access control: what it needs, and what happens when that is taken away."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient

from tailer.core.stream.hints import Stream
from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import SourceAway, SourceError
from tailer.events import StreamFailed
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import (
    SOCKET_MILLISECONDS,
    Database,
    connect,
    inspect_source,
    tolerant_database,
)
from tests.evidence import Events, Reading

PRIVILEGE = {"resource": {"db": "LibreChat", "collection": "messages"}, "actions": ["find", "changeStream"]}


@pytest.fixture(scope="module")
def guarded_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """A server with access control: an administrator, and a reader with exactly the privilege that is needed."""
    key: Path = tmp_path_factory.mktemp("guarded") / "key"
    key.write_text("bm90IGEgc2VjcmV0")
    key.chmod(0o600)
    with ReplicaSet(mongod_arguments=["--auth", "--keyFile", str(key)]) as started:
        with MongoClient[Document](started.uri) as client:
            client.admin.command("createUser", "admin", pwd="admin", roles=["root"])
        with MongoClient[Document](uri_for(started, "admin")) as client:
            client.admin.command("createRole", "stream", privileges=[PRIVILEGE], roles=[])
            client.admin.command("createUser", "reader", pwd="reader", roles=["stream"])
            client.admin.command("createUser", "nobody", pwd="nobody", roles=[])
        yield started


def uri_for(replica_set: ReplicaSet, user: str, password: str | None = None) -> str:
    separate = replica_set.uri.replace("mongodb://", f"mongodb://{user}:{password or user}@")
    return f"{separate}&authSource=admin"


@pytest.fixture
async def administered(guarded_set: ReplicaSet) -> AsyncIterator[Database]:
    client = connect(uri_for(guarded_set, "admin"), application="test", socket_milliseconds=30_000)
    yield tolerant_database(client, "LibreChat")
    client.close()


def open_stream(
    guarded_set: ReplicaSet, events: Events, user: str, password: str | None = None
) -> tuple[Database, MongoChangeStream]:
    uri = uri_for(guarded_set, user, password)
    client = connect(uri, application="streaming", socket_milliseconds=SOCKET_MILLISECONDS)
    database = tolerant_database(client, "LibreChat")
    return database, MongoChangeStream(database, Stream.MESSAGES, events)


async def test_a_privilege_revoked_while_the_stream_is_open_is_waited_for(
    guarded_set: ReplicaSet, administered: Database
) -> None:
    """13 on the next read. What was written meanwhile arrives after the grant."""
    events = Events()
    database, messages = open_stream(guarded_set, events, "reader")
    admin = administered.client.admin
    async with Reading(messages) as reading:
        await administered["messages"].insert_one({"messageId": "m1"})
        await reading.until_read(1)
        await admin.command("revokePrivilegesFromRole", "stream", privileges=[PRIVILEGE])
        await administered["messages"].insert_one({"messageId": "m2"})
        # The first is the open cursor's, the next are those of opening it again.
        await events.until(lambda: len(events.of(StreamFailed)) >= 3)
        await admin.command("grantPrivilegesToRole", "stream", privileges=[PRIVILEGE])
        await administered["messages"].insert_one({"messageId": "m3"})
        await reading.until_read(3)
    database.client.close()

    assert reading.ids() == ["m1", "m2", "m3"]
    assert {(failed.failure, failed.reaction) for failed in events.of(StreamFailed)} == {("code_13", "wait")}


async def test_a_privilege_that_was_never_there_is_an_error_with_the_remedy(guarded_set: ReplicaSet) -> None:
    """At the start somebody is watching: better said at once than waited for."""
    database, messages = open_stream(guarded_set, Events(), "nobody")
    with pytest.raises(SourceError, match="grant find and changeStream on the collections messages"):
        async with Reading(messages):
            pass
    database.client.close()


async def test_a_wrong_password_is_an_error_that_does_not_show_it(guarded_set: ReplicaSet) -> None:
    """Code 18, from the first command on."""
    database, messages = open_stream(guarded_set, Events(), "reader", "wr0ng-secret")
    with pytest.raises(SourceError, match="refuses user or password") as inspected:
        await inspect_source(database)
    with pytest.raises(SourceError, match="refuses user or password") as opened:
        async with Reading(messages):
            pass
    database.client.close()

    assert not isinstance(inspected.value, SourceAway)
    assert "wr0ng-secret" not in f"{inspected.value} {opened.value} {inspected.value!r}"
