"""Reading rows back from real collections: whose they are, how many at once, and what broken ones do."""

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import DatetimeMS, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from tailer.core.identity import DocumentKey
from tailer.core.turn.copies import is_copy
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import TurnRecord
from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.events import CollectionDenied, RowUnreadable
from tailer.mongo import documents as reader_module
from tailer.mongo.connection import Database, connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tests.evidence import Events
from tests.rows import ALICE, BOB, answer, question


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


async def read(reader: MongoDocuments, keys: list[DocumentKey]) -> dict[str, TurnRecord | None]:
    """The records of rows by message id."""
    rows = await reader.locate(keys)
    return {row.message_id: record async for group in reader.read_turns(rows) for row, record in group}


async def test_a_response_is_read_with_everything_that_belongs_to_it(
    database: Database, reader: MongoDocuments
) -> None:
    """Question, history in order, siblings, conversation, transactions of its own, and the agent that answered."""
    rows = [
        question("q1", None), answer("a1", "q1"), question("q2", "a1"),
        answer("a2", "q2", model="agent_x"), answer("a2b", "q2"),
    ]  # fmt: skip
    keys = await store(database, "messages", *rows)
    await store(
        database,
        "conversations",
        {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "Clocks", "agent_id": "agent_x"},
    )
    await store(
        database,
        "transactions",
        *(
            {
                "_id": ObjectId(), "conversationId": "c1", "messageId": owner, "user": ObjectId(ALICE),
                "tokenType": "completion", "rawAmount": -tokens, "context": "message",
            }
            for owner, tokens in (("a1", 1), ("a2", 2), ("a2", 3))
        ),
    )  # fmt: skip
    await store(database, "agents", {"_id": ObjectId(), "id": "agent_x", "name": "Clockmaker", "model": "o3"})

    record = (await read(reader, [keys[3]]))["a2"]

    assert record is not None
    assert record.response is not None
    assert record.response.message_id == "a2"
    assert record.question is not None
    assert record.question.message_id == "q2"
    assert [item.message_id for item in record.history] == ["q1", "a1"]
    assert {item.message_id for item in record.siblings} == {"a2", "a2b"}
    assert record.conversation is not None
    assert record.conversation.title == "Clocks"
    assert [item.tokens for item in record.transactions] == [2, 3]
    assert record.agent is not None
    assert record.agent.name == "Clockmaker"


async def test_two_users_with_the_same_conversation_id_are_never_mixed(
    database: Database, reader: MongoDocuments
) -> None:
    """LibreChat's ids are unique only together with the user: shared links and imports make such pairs."""
    keys = await store(
        database,
        "messages",
        question("qa", None, ALICE), answer("aa", "qa", ALICE), question("qa2", "aa", ALICE), answer("aa2", "qa2", ALICE),
        question("qa", None, BOB), answer("ab", "qa", BOB), question("qb2", "aa", BOB), answer("ab2", "qb2", BOB),
    )  # fmt: skip
    await store(
        database,
        "conversations",
        *(
            {"_id": ObjectId(), "conversationId": "c1", "user": user, "title": f"title of {user}"}
            for user in (ALICE, BOB)
        ),
    )

    records = await read(reader, [keys[1], keys[3], keys[5], keys[7]])

    assert len(records) == 4
    for message_id, record in records.items():
        owner = ALICE if message_id.startswith("aa") else BOB
        assert record is not None
        assert record.conversation is not None
        assert record.conversation.title == f"title of {owner}"
        assert record.question is not None
        for item in (record.response, record.question, *record.history):
            assert item is not None
            assert item.user_id == owner
    found = records["aa2"]
    assert found is not None
    assert [item.message_id for item in found.history] == ["qa", "aa"]
    # Bob's question hangs on an answer that only Alice has: his history ends there.
    found = records["ab2"]
    assert found is not None
    assert found.history == ()
    found = records["ab"]
    assert found is not None
    assert [item.message_id for item in found.siblings] == ["ab"]


async def test_titles_of_the_same_conversation_id_go_to_their_owners(
    database: Database, reader: MongoDocuments
) -> None:
    """One title each, in the same round."""
    await store(
        database, "messages",
        question("qa", None, ALICE), answer("aa", "qa", ALICE), question("qb", None, BOB), answer("ab", "qb", BOB),
    )  # fmt: skip
    keys = await store(
        database,
        "conversations",
        *({"_id": ObjectId(), "conversationId": "c1", "user": user, "title": "t"} for user in (ALICE, BOB)),
    )
    await store(
        database,
        "transactions",
        *(
            {"_id": ObjectId(), "conversationId": "c1", "messageId": message_id, "context": "title"}
            for message_id in ("aa", "ab")
        ),
    )

    both = await reader.locate_titled(keys)
    bobs = await reader.locate_titled(keys[1:])

    assert {(key, row.message_id) for key, row in both} == {(keys[0], "aa"), (keys[1], "ab")}
    assert [(key, row.message_id) for key, row in bobs] == [(keys[1], "ab")]


async def test_answers_are_found_with_the_questions_of_their_own_user(
    database: Database, reader: MongoDocuments
) -> None:
    """Equal ids under two users, in a conversation of the same id and in another; questions are no answers."""
    keys = await store(
        database, "messages",
        question("q1", None, ALICE), answer("a1", "q1", ALICE), answer("a1b", "q1", ALICE),
        question("q1", None, BOB), answer("b1", "q1", BOB),
        question("follow-up", "q1", ALICE), answer("a2", "follow-up", ALICE),
        answer("elsewhere", "q1", ALICE, conversationId="c2"),
    )  # fmt: skip
    alices, bobs = await reader.locate([keys[0]]), await reader.locate([keys[3]])

    async def find(questions: list[Row]) -> set[tuple[str, DocumentKey]]:
        pairs = await reader.locate_answers(questions)
        return {(found.message_id, asked.key) for found, asked in pairs}

    assert await find([*alices]) == {("a1", keys[0]), ("a1b", keys[0])}
    assert await find([*bobs]) == {("b1", keys[3])}
    assert await find([*alices, *bobs]) == {("a1", keys[0]), ("a1b", keys[0]), ("b1", keys[3])}
    assert await find([]) == set()


async def test_rows_are_read_in_groups_of_bounded_size(
    database: Database, reader: MongoDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored bytes are known before anything large is read; a row beyond the limit makes a group of its own."""
    monkeypatch.setattr(reader_module, "GROUP_BYTES", 100_000)
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


async def test_rows_that_are_missing_are_left_out(database: Database, reader: MongoDocuments) -> None:
    """Deleted before the row was located, between the two reads, and a question that never existed."""
    keys = await store(
        database,
        "messages",
        question("q1", None),
        answer("a1", "q1"),
        answer("a2", "q1"),
        answer("a3", "gone"),
    )
    rows = list(await reader.locate([*keys[1:], to_key(ObjectId()), to_key("no such row")]))
    assert {row.message_id for row in rows} == {"a1", "a2", "a3"}

    await database["messages"].delete_many({"messageId": {"$in": ["a2", "q1"]}})
    records = {row.message_id: record async for group in reader.read_turns(rows) for row, record in group}

    assert records["a2"] is None
    for message_id in ("a1", "a3"):
        record = records[message_id]
        assert record is not None
        assert record.question is None
        assert record.conversation is None
    assert await reader.locate([]) == []
    assert [group async for group in reader.read_turns([])] == []


@pytest.mark.parametrize(
    "document_id", ["text", 7, {"a": 1}, b"\\x00\\x80", datetime(2026, 1, 2, tzinfo=UTC)], ids=str
)
async def test_rows_are_found_by_ids_of_any_type(
    database: Database, reader: MongoDocuments, document_id: object
) -> None:
    """An import may set any `_id`; the key that stands for it leads back to the row."""
    (key,) = await store(database, "messages", answer("a1", "q1", _id=document_id))

    assert [row.message_id for row in await reader.locate([key])] == ["a1"]
    assert list(await read(reader, [key])) == ["a1"]


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

    records = await read(reader, [to_key(broken_text["_id"]), *keys])

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
            privileges = [
                {"resource": {"db": "LibreChat", "collection": name}, "actions": ["find"]}
                for name in ("messages", "conversations")
            ]
            client.admin.command("createRole", "two", privileges=privileges, roles=[])
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


def pair(number: int, *, behind_seconds: float = 0) -> list[dict[str, Any]]:
    """A question and its quick answer in a conversation of their own; LibreChat's clock is behind MongoDB's."""
    created = datetime.now(UTC) - timedelta(seconds=behind_seconds)
    own: dict[str, Any] = {"conversationId": f"c{number}", "createdAt": created, "updatedAt": created}
    return [question(f"q{number}", None, **own), answer(f"a{number}", f"q{number}", **own)]


def is_copied(record: TurnRecord | None) -> bool:
    assert record is not None
    assert record.response is not None
    return is_copy(record.response, record.surroundings)


async def test_turns_of_a_librechat_whose_clock_is_behind_are_no_copies(
    database: Database, reader: MongoDocuments
) -> None:
    """The rows of other conversations show the same distance of the clocks."""
    keys = await store(
        database, "messages", *(row for number in range(10) for row in pair(number, behind_seconds=90))
    )

    records = await read(reader, keys[1::2])

    assert len(records) == 10
    assert not any(map(is_copied, records.values()))


async def test_an_import_of_one_quick_answer_is_told_by_the_conversations_around_it(
    database: Database, reader: MongoDocuments
) -> None:
    keys = await store(database, "messages", *pair(1), *pair(2, behind_seconds=600), *pair(3))

    records = await read(reader, keys[1::2])

    assert {name for name, record in records.items() if is_copied(record)} == {"a2"}
