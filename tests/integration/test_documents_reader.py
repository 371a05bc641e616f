"""What only a real server shows of reading rows back: sizes, broken rows, collections that may not be read."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import DatetimeMS, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from tailer.core.identity import DocumentKey
from tailer.core.turn.readback import Row
from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.events import CollectionDenied, RowUnreadable
from tailer.mongo.collections import Collections
from tailer.mongo.connection import Database, connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.users import Users
from tests.evidence import Events
from tests.rows import ALICE, answer, question


@pytest.fixture
async def database(replica_set: ReplicaSet) -> AsyncIterator[Database]:
    client = connect(replica_set.uri, application="test", socket_milliseconds=30_000)
    name = f"librechat_{uuid.uuid4().hex}"
    yield tolerant_database(client, name)
    await client.drop_database(name)
    client.close()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def reader(database: Database, events: Events) -> MongoDocuments:
    return MongoDocuments(database, events, history_bytes=64_000, with_users=False)


async def store(database: Database, collection: str, *rows: Mapping[str, Any]) -> list[DocumentKey]:
    await database[collection].insert_many([dict(row) for row in rows])
    return [to_key(row["_id"]) for row in rows]


async def test_rows_are_read_in_groups_of_bounded_size(database: Database, events: Events) -> None:
    """Stored bytes are known before anything large is read; a row beyond the limit makes a group of its own."""
    reader = MongoDocuments(database, events, history_bytes=64_000, with_users=False, group_bytes=100_000)
    rows = []
    for number in range(12):
        size = 250_000 if number == 5 else 30_000
        rows += [
            question(f"q{number}", None, conversationId=f"c{number}"),
            answer(f"a{number}", f"q{number}", conversationId=f"c{number}", text="x" * size),
        ]
    keys = await store(database, "messages", *rows)

    located = await reader.locate(
        [key for row, key in zip(rows, keys, strict=True) if not row["isCreatedByUser"]]
    )
    sizes = [[row.stored_bytes for row, _ in group] async for group in reader.read_turns(located)]

    assert sum(map(len, sizes)) == 12
    assert all(sum(group) <= 100_000 or len(group) == 1 for group in sizes)
    assert max(map(len, sizes)) == 3
    assert next(row.stored_bytes for row in located if row.message_id == "a5") > 250_000


async def test_broken_rows_are_reported_and_do_not_stop_the_others(
    database: Database, reader: MongoDocuments, events: Events
) -> None:
    """Broken UTF-8, years beyond any calendar, missing ids: stored by some program, and read for what is sound."""
    broken_text = answer("a1", "q1", text="QQQQ", content=[{"type": "text", "text": "QQQQ"}])
    raw = bson.encode(broken_text).replace(b"QQQQ", b"\xff\xfe\xff\xc3")
    await database["messages"].insert_one(RawBSONDocument(raw))
    keys = await store(
        database,
        "messages",
        answer("a2", "q1", createdAt=DatetimeMS(2**62), updatedAt=DatetimeMS(-(2**62))),
        answer("a3", "q1", createdAt="yesterday", content=7) | {"user": 3.5},
        answer("", "q1"),
        {"_id": ObjectId(), "messageId": 7, "conversationId": "c1"},
        {"_id": ObjectId(), "messageId": "a4"},
        answer("a5", "q1"),
    )
    await store(
        database,
        "conversations",
        {
            "_id": ObjectId(),
            "conversationId": "c1",
            "user": ALICE,
            "title": 7,
            "createdAt": DatetimeMS(2**62),
        },
    )
    await store(
        database,
        "transactions",
        {"_id": ObjectId(), "conversationId": "c1", "messageId": "a5", "tokenType": 1, "rawAmount": "many"},
    )

    rows = await reader.locate([to_key(broken_text["_id"]), *keys])
    records = {row.message_id: record async for group in reader.read_turns(rows) for row, record in group}

    assert set(records) == {"a1", "a2", "a3", "a5"}
    first, second, third, last = (records[message_id] for message_id in ("a1", "a2", "a3", "a5"))
    assert first is not None
    assert first.response is not None
    assert first.response.text == "\ufffd" * 4
    assert second is not None
    assert second.response is not None
    assert (second.response.created_milliseconds, second.response.updated_milliseconds) == (None, None)
    assert third is not None
    assert third.response is not None
    assert (third.response.parts, third.response.user_id) == ((), None)
    assert last is not None
    assert last.transactions == ()
    unreadable = {(event.document_key, event.field) for event in events.of(RowUnreadable)}
    assert unreadable == {(keys[2], "messageId"), (keys[3], "messageId"), (keys[4], "conversationId")}


READABLE = ("messages", "conversations")


def reads(*collections: str) -> list[Document]:
    """The privileges to read some collections."""
    return [
        {"resource": {"db": "LibreChat", "collection": name}, "actions": ["find"]} for name in collections
    ]


@pytest.fixture(scope="module")
def guarded_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server where the user may read messages and conversations and nothing else."""
    key: Path = tmp_path_factory.mktemp("guarded") / "key"
    key.write_text("bm90IGEgc2VjcmV0")
    key.chmod(0o600)
    with ReplicaSet(mongod_arguments=["--auth", "--keyFile", str(key)]) as started:
        with MongoClient[Document](started.uri) as client:
            client.admin.command("createUser", "admin", pwd="admin", roles=["root"])
        address = started.uri.removeprefix("mongodb://")
        with MongoClient[Document](f"mongodb://admin:admin@{address}&authSource=admin") as client:
            client.admin.command("createRole", "two", privileges=reads(*READABLE), roles=[])
            client.admin.command("createUser", "reader", pwd="reader", roles=["two"])
            rows = [
                question("q1", None),
                answer("a1", "q1", model="agent_x"),
                answer("a2", "q1", model="agent_x"),
            ]
            client["LibreChat"]["messages"].insert_many(rows)
            client["LibreChat"]["conversations"].insert_one(
                {"conversationId": "c1", "user": ALICE, "title": "t"}
            )
            client["LibreChat"]["transactions"].insert_one({"conversationId": "c1", "messageId": "a1"})
        yield f"mongodb://reader:reader@{address}&authSource=admin"


async def test_collections_that_may_not_be_read_are_reported_once_and_left_out(
    guarded_uri: str, events: Events
) -> None:
    """Turns are sent without what transactions, agents and users would have told."""
    client = connect(guarded_uri, application="test", socket_milliseconds=30_000)
    database = tolerant_database(client, "LibreChat")
    reader = MongoDocuments(database, events, history_bytes=64_000, with_users=True)
    rows: list[Row] = []
    for found in await database["messages"].find({"isCreatedByUser": False}).to_list(None):
        rows += await reader.locate([to_key(found["_id"])])
    (conversation,) = await database["conversations"].find().to_list(None)
    for _ in range(2):
        records = [record async for group in reader.read_turns(rows) for _, record in group]
        assert await reader.locate_titled([to_key(conversation["_id"])]) == []
    client.close()

    assert len(records) == 2
    for record in records:
        assert record is not None
        assert record.response is not None
        assert record.conversation is not None
        assert (record.transactions, record.agent, record.user) == ((), None, None)
    denied = sorted(event.collection for event in events.of(CollectionDenied))
    assert denied == ["agents", "transactions", "users"]


@pytest.fixture
def allow(guarded_uri: str) -> Iterator[Callable[..., None]]:
    """Lets the guarded user read further collections, and no others, as long as the test lasts."""
    with MongoClient[Document](guarded_uri.replace("reader:reader", "admin:admin")) as client:

        def change(*collections: str) -> None:
            privileges = reads(*READABLE, *collections)
            client.admin.command("updateRole", "two", privileges=privileges)

        yield change
        change()
        client["LibreChat"]["users"].drop()


async def test_a_collection_that_may_not_be_read_is_asked_again_after_ten_minutes(
    guarded_uri: str, events: Events, allow: Callable[..., None]
) -> None:
    """What was granted meanwhile counts without a restart; a later refusal is told again."""
    client = connect(guarded_uri, application="test", socket_milliseconds=30_000)
    seconds = 0.0
    collections = Collections(tolerant_database(client, "LibreChat"), events, clock=lambda: seconds)

    async def may_read() -> bool:
        assert await collections.find("users", {}, {"_id": 1}) == []
        return await collections.run(lambda reading: reading.may_read("users"))

    assert not await may_read()
    allow("users")
    seconds = 599.0
    assert not await may_read()
    seconds = 601.0
    assert await may_read()
    assert len(events.of(CollectionDenied)) == 1
    allow()
    assert not await may_read()
    seconds = 1_300.0
    assert not await may_read()
    assert [event.collection for event in events.of(CollectionDenied)] == ["users", "users"]
    client.close()


async def test_groups_that_may_not_be_read_are_unknown_and_not_none_at_all(
    guarded_uri: str, events: Events, allow: Callable[..., None]
) -> None:
    """A rule that asks for a group must tell the two apart."""
    with MongoClient[Document](guarded_uri.replace("reader:reader", "admin:admin")) as admin:
        admin["LibreChat"]["users"].insert_one({"_id": ObjectId(ALICE), "role": "ADMIN"})
    client = connect(guarded_uri, application="test", socket_milliseconds=30_000)
    database = tolerant_database(client, "LibreChat")
    seconds = 0.0
    collections = Collections(database, events, clock=lambda: seconds)
    users = Users(collections, wanted=True, with_groups=True)
    allow("users")
    before = (await users.read([ALICE]))[ALICE]
    allow("users", "groups")
    seconds = 601.0
    after = (await users.read([ALICE]))[ALICE]
    client.close()

    assert [(user.role, user.groups) for user in (before, after)] == [("ADMIN", None), ("ADMIN", ())]
