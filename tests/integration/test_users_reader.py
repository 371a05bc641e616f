"""Reading users: only where a setting asks for it, and never more of them than may be known."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.policy.users import USER_FIELDS, User
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.mongo.connection import Database, connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tests.evidence import Events
from tests.rows import ALICE, BOB, answer

APPLICATION = "reading"
PERSON = {
    "email": "alice@example.org", "username": "alice", "name": "Alice", "role": "ADMIN", "provider": "local",
    "password": "$2a$10$hash", "totpSecret": "JBSWY3DPEHPK3PXP", "backupCodes": [{"codeHash": "x"}],
    "refreshToken": [{"refreshToken": "y"}], "googleId": "7",
}  # fmt: skip


@pytest.fixture
async def database(replica_set: ReplicaSet) -> AsyncIterator[Database]:
    client = connect(replica_set.uri, application=APPLICATION, socket_milliseconds=30_000)
    name = f"librechat_{uuid.uuid4().hex}"
    yield tolerant_database(client, name)
    await client.drop_database(name)
    client.close()


def make_reader(database: Database, *, with_users: bool) -> MongoDocuments:
    return MongoDocuments(database, Events(), history_bytes=64_000, with_users=with_users)


async def read(database: Database, reader: MongoDocuments) -> dict[str, User | None]:
    """The users of all stored rows, by message id."""
    documents = await database["messages"].find({}, {"_id": 1}).to_list(None)
    rows = await reader.locate([to_key(document["_id"]) for document in documents])
    return {
        row.message_id: record.user
        async for group in reader.read_turns(rows)
        for row, record in group
        if record is not None
    }


async def observe(database: Database, reader: MongoDocuments) -> list[dict[str, Any]]:
    """The queries on users that reading all rows makes, as the server saw them."""
    await database["system.profile"].drop()
    await database.command({"profile": 2})
    await read(database, reader)
    await database.command({"profile": 0})
    query = {"ns": f"{database.name}.users", "appName": APPLICATION}
    return await database["system.profile"].find(query).to_list(None)


async def test_a_turn_has_the_user_it_belongs_to(database: Database) -> None:
    """By the id that a message holds as text; nobody where the account is gone, or the row names none."""
    await database["users"].insert_one({"_id": ObjectId(ALICE), **PERSON})
    await database["users"].insert_one({"_id": "imported", "username": "guest"})
    await database["messages"].insert_many(
        [
            answer("a1", "q"),
            answer("a2", "q", BOB),
            answer("a3", "q", "imported"),
            {**answer("a4", "q"), "user": None},
        ]
    )

    users = await read(database, make_reader(database, with_users=True))

    assert users == {
        "a1": User(ALICE, "alice@example.org", "alice", "ADMIN"),
        "a2": None,
        "a3": User("imported", None, "guest", None),
        "a4": None,
    }


async def test_no_secret_of_a_user_is_asked_for(database: Database) -> None:
    """The projection, as it reached the server, names what may be read and nothing else."""
    await database["users"].insert_one({"_id": ObjectId(ALICE), **PERSON})
    await database["messages"].insert_one(answer("a1", "q"))

    (query,) = await observe(database, make_reader(database, with_users=True))

    assert query["command"]["projection"] == dict.fromkeys(USER_FIELDS, 1)
    assert query["planSummary"].startswith(("IXSCAN { _id: 1 }", "IDHACK"))


async def test_users_are_not_read_where_no_setting_asks_for_them(database: Database) -> None:
    """The id in the message is enough for most."""
    await database["users"].insert_one({"_id": ObjectId(ALICE), **PERSON})
    await database["messages"].insert_one(answer("a1", "q"))
    reader = make_reader(database, with_users=False)

    assert await read(database, reader) == {"a1": None}
    assert await observe(database, reader) == []


async def test_a_user_who_was_read_is_remembered(database: Database) -> None:
    """One query for the first turns, none for those that follow."""
    await database["users"].insert_one({"_id": ObjectId(ALICE), **PERSON})
    await database["messages"].insert_many([answer("a1", "q"), answer("a2", "q")])
    reader = make_reader(database, with_users=True)

    assert len(await observe(database, reader)) == 1
    assert await observe(database, reader) == []
    known = await read(database, reader)
    assert {user.username for user in known.values() if user is not None} == {"alice"}


async def test_the_groups_of_a_user_are_those_that_name_either_of_the_ids(database: Database) -> None:
    """Members from a directory stand in `groups` by their id there, others by LibreChat's own."""
    await database["users"].insert_one({"_id": ObjectId(ALICE), "idOnTheSource": "entra-1", **PERSON})
    await database["groups"].insert_many(
        [
            {"name": "Finance", "memberIds": ["entra-1", "entra-2"]},
            {"name": "Board", "memberIds": [ALICE]},
            {"name": "IT", "memberIds": ["entra-2"]},
            {"memberIds": [ALICE]},
        ]
    )
    await database["messages"].insert_many([answer("a1", "q"), answer("a2", "q", BOB)])
    with_groups = MongoDocuments(database, Events(), history_bytes=64_000, with_users=True, with_groups=True)

    users = await read(database, with_groups)
    without = await read(database, make_reader(database, with_users=True))

    assert users["a1"] is not None
    assert users["a1"].groups == ("Board", "Finance")
    assert users["a2"] is None
    assert without["a1"] is not None
    assert without["a1"].groups is None


async def test_groups_that_are_too_many_to_know_all_are_not_known(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule might ask for the one that was not read."""
    monkeypatch.setattr("tailer.mongo.users._MOST_GROUPS", 2)
    await database["users"].insert_many([{"_id": ObjectId(ALICE)}, {"_id": ObjectId(BOB)}])
    groups = [("A", [ALICE, BOB]), ("B", [ALICE, BOB]), ("C", [ALICE])]
    await database["groups"].insert_many([{"name": name, "memberIds": members} for name, members in groups])
    await database["messages"].insert_many([answer("a1", "q"), answer("a2", "q", BOB)])
    reader = MongoDocuments(database, Events(), history_bytes=64_000, with_users=True, with_groups=True)

    users = await read(database, reader)

    found = {message_id: user.groups for message_id, user in users.items() if user is not None}
    assert found == {"a1": None, "a2": ("A", "B")}
