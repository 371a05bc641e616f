"""Long conversations: the newest rows of one are read, and tell the same as all of them."""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database as PlainDatabase

from tailer.core.identity import DocumentKey
from tailer.core.trace.bounds import Bounds
from tailer.core.turn.turns import TurnRecord
from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.mongo.connection import connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tests.evidence import Events
from tests.memory import MemoryLibreChat, MemoryReader
from tests.rows import ALICE, BOB, answer, question, transaction
from tests.sent import make_sent
from tests.unit.documents import traces_of

INDEXES = {
    "of the newest LibreChat": (["conversationId"], ["conversationId", "user", "createdAt", "_id"]),
    "of a recent LibreChat": (["conversationId"], ["conversationId", "user", "createdAt"]),
    "of an older LibreChat": (["conversationId"],),
    "none": (),
}
WITH_TIMES = [name for name, indexes in INDEXES.items() if len(indexes) > 1]
"""The releases whose index has times; without one, the server looks at the whole conversation."""
TURNS = 300
HISTORY_BYTES = 8_000


@pytest.fixture(scope="module", params=INDEXES, ids=list(INDEXES))
def stored(request: pytest.FixtureRequest, replica_set: ReplicaSet) -> Iterator[PlainDatabase[Document]]:
    """One LibreChat with conversations of all lengths, with the indexes of a release."""
    name = f"librechat_{uuid.uuid4().hex}"
    with MongoClient[Document](replica_set.uri) as client:
        database = client[name]
        for fields in INDEXES[request.param]:
            database["messages"].create_index([(field, 1) for field in fields])
        if INDEXES[request.param]:
            for collection in ("conversations", "transactions"):
                database[collection].create_index("conversationId")
        for collection, rows in librechat().items():
            database[collection].insert_many(rows)
        yield database
        client.drop_database(name)


@pytest.fixture
async def reader(stored: PlainDatabase[Document], replica_set: ReplicaSet) -> AsyncIterator[MongoDocuments]:
    client = connect(replica_set.uri, application="test", socket_milliseconds=30_000)
    database = tolerant_database(client, stored.name)
    yield MongoDocuments(database, Events(), history_bytes=HISTORY_BYTES, with_users=False)
    client.close()


@cache
def librechat() -> dict[str, list[dict[str, Any]]]:
    """A long chat, one with branches, one that was imported out of order, one of two users, one that was moved as JSON,
    and short ones."""
    chats = [
        chat("long", TURNS),
        chat("branched", TURNS, branches=True),
        chat("imported", TURNS // 2, disordered=True),
        chat("shared", TURNS // 4),
        chat("shared", TURNS // 4, BOB),
        chat("broken", TURNS // 4, gap=TURNS // 4 - 5),
        moved(chat("moved", TURNS // 2)),
        *(chat(f"short {number}", 2) for number in range(20)),
    ]
    return {
        "messages": [row for rows, _ in chats for row in rows],
        "transactions": [row for _, entries in chats for row in entries],
        "conversations": [
            {"_id": ObjectId(), "conversationId": name, "user": user, "title": "t"}
            for name, user in {(row["conversationId"], row["user"]) for rows, _ in chats for row in rows}
        ],
    }


def chat(
    name: str,
    turns: int,
    user: str = ALICE,
    *,
    branches: bool = False,
    disordered: bool = False,
    gap: int = -1,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A conversation, a minute a turn, up to now; every tenth answer is larger than what is read with its
    conversation. In a branched one, answers are made again and questions edited."""
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=turns)
    rows: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    parent: str | None = None

    def at(seconds: float) -> dict[str, Any]:
        moment = began + timedelta(seconds=seconds)
        shown = began + timedelta(seconds=-seconds) if disordered else moment
        stamp = ObjectId(f"{int(moment.timestamp()):08x}{uuid.uuid4().hex[:16]}")
        return {"_id": stamp, "conversationId": name, "createdAt": shown, "updatedAt": shown}

    def add(number: int, asked: str, suffix: str, seconds: float) -> str:
        message_id = f"{name} {user} a{number}{suffix}"
        text = "x" * (10_000 if number % 10 == 7 else 90)
        rows.append(
            answer(message_id, asked, user, text="", content=[{"type": "text", "text": text}], **at(seconds))
        )
        rows[-1]["metadata"] = {"usage": {"input": 9, "output": 5, "of_a_later_release": "z" * 400}}
        entries.extend(
            transaction(user, messageId=message_id, rawAmount=-number - 1, **at(seconds - 0.5))
            for _ in range(2)
        )
        return message_id

    for number in range(turns):
        start = 60.0 * number
        asked = f"{name} {user} q{number}"
        rows.append(question(asked, parent, user, text=f"{number} " + "y" * 60, **at(start)))
        parent = add(number, asked, "", start + 8)
        if branches and number % 9 == 4:
            parent = add(number, asked, " again", start + 20)
        if branches and number % 11 == 6:
            before = rows[-4]["parentMessageId"] if number % 9 == 4 else rows[-2]["parentMessageId"]
            edited = f"{name} {user} q{number} edited"
            rows.append(question(edited, before, user, text="edited", **at(start + 30)))
            parent = add(number, edited, " edited", start + 40)
        if number == gap:
            rows.pop()
    return rows, entries


def moved(
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A conversation whose older rows have times as text, and the oldest ones as numbers. MongoDB sorts them apart."""
    rows, entries = found
    for place, row in enumerate(rows[:-30]):
        for name in ("createdAt", "updatedAt"):
            is_old = place < len(rows) - 125
            row[name] = row[name].timestamp() * 1000 if is_old else row[name].isoformat()
    return rows, entries


@pytest.fixture(scope="module")
def whole_reader() -> MemoryReader:
    """Reads every row of a conversation."""
    copied = MemoryLibreChat(time.time)
    for collection, rows in librechat().items():
        copied.insert(collection, *rows)
    return MemoryReader(copied, history_bytes=HISTORY_BYTES)


async def read_all(
    reader: MongoDocuments | MemoryReader, keys: list[DocumentKey], together: int
) -> dict[DocumentKey, TurnRecord]:
    records: dict[DocumentKey, TurnRecord] = {}
    for start in range(0, len(keys), together):
        rows = await reader.locate(keys[start : start + together])
        async for group in reader.read_turns(rows):
            records.update((row.key, record) for row, record in group if record is not None)
    return records


def chosen_answers() -> list[DocumentKey]:
    """The last ones of every conversation, and some of the older ones."""
    by_chat: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in reversed(librechat()["messages"]):
        if not row["isCreatedByUser"]:
            by_chat[row["conversationId"]].append(row)
    return [
        to_key(row["_id"])
        for rows in by_chat.values()
        for place, row in enumerate(rows)
        if place < 16 or place % 60 == 0
    ]


@pytest.fixture(scope="module")
def whole(whole_reader: MemoryReader) -> dict[DocumentKey, TurnRecord]:
    """The records of those answers from all rows of their conversations."""
    return asyncio.run(read_all(whole_reader, chosen_answers(), 10_000))


@pytest.mark.parametrize("together", [1, 9, 500])
async def test_the_newest_rows_give_the_same_traces_as_all_rows(
    reader: MongoDocuments, whole: dict[DocumentKey, TurnRecord], together: int
) -> None:
    """Whatever index there is, for turns at the end, in the middle and at the beginning of conversations."""
    read = await read_all(reader, chosen_answers(), together)

    assert read.keys() == whole.keys()
    cut = 0
    for key, record in read.items():
        cut += record.history_cut
        shown, expected = (
            traces_of(item, bounds=Bounds(history_bytes=HISTORY_BYTES))
            for item in (record, replace(whole[key], history_cut=record.history_cut))
        )
        assert shown == expected, record.response
    assert cut >= 16


@pytest.mark.parametrize("stored", WITH_TIMES, indirect=True)
async def test_a_turn_of_a_long_conversation_costs_what_one_of_a_short_one_does(
    stored: PlainDatabase[Document], reader: MongoDocuments
) -> None:
    """In documents that the server looks at: a page of rows, and the transactions of the last half minute."""
    examined: dict[str, int] = {}
    looked_at: dict[str, int] = {}
    for name in ("long", "short 3"):
        row = stored["messages"].find({"conversationId": name}).sort("createdAt", -1)[0]
        with count_documents(stored, examined, name):
            await read_all(reader, [to_key(row["_id"])], 1)
        began = int(row["createdAt"].replace(tzinfo=UTC).timestamp() * 1000)
        sent = replace(make_sent(row["messageId"]), session_id=name, start_milliseconds=began)
        with count_documents(stored, looked_at, name):
            ledgers = await reader.read_ledgers([sent])
        assert len(ledgers[row["messageId"]]) == 2

    assert examined["long"] <= examined["short 3"] + 200
    assert looked_at["long"] <= looked_at["short 3"] + 100


@pytest.mark.parametrize("stored", WITH_TIMES, indirect=True)
async def test_of_the_history_only_its_words_are_sent(
    stored: PlainDatabase[Document], reader: MongoDocuments
) -> None:
    """A page's answers each have half a kilobyte of usage, which only the turn's own shows."""
    row = stored["messages"].find({"conversationId": "long"}).sort("createdAt", -1)[0]
    stored.command("profile", 2)
    records = await read_all(reader, [to_key(row["_id"])], 1)
    stored.command("profile", 0)
    page = stored["system.profile"].find_one({"command.filter.user": ALICE, "nreturned": {"$gte": 100}})
    stored.drop_collection("system.profile")

    assert page is not None
    assert page["responseLength"] <= 500 * page["nreturned"]
    (record,) = records.values()
    assert record.response is not None
    assert record.response.usage is not None


@pytest.mark.parametrize("stored", WITH_TIMES, indirect=True)
async def test_conversations_that_were_long_are_not_read_with_others_again(
    stored: PlainDatabase[Document], reader: MongoDocuments
) -> None:
    """The first round looks at twenty rows of each before it knows; the next one begins with their pages."""
    keys = [
        to_key(stored["messages"].find({"conversationId": name}).sort("createdAt", -1)[0]["_id"])
        for name in ("long", "branched")
    ]
    examined: dict[str, int] = {}
    for turn in ("first", "next"):
        with count_documents(stored, examined, turn):
            await read_all(reader, keys, len(keys))

    assert examined["next"] <= examined["first"] - 2 * 20


@pytest.mark.parametrize("stored", WITH_TIMES, indirect=True)
async def test_a_long_conversation_is_read_again_with_as_many_rows_as_were_enough(
    stored: PlainDatabase[Document], replica_set: ReplicaSet
) -> None:
    """A kilobyte of history is some fifteen rows, and a page has 110. The next turn is told by fewer, and the same."""
    client = connect(replica_set.uri, application="test", socket_milliseconds=30_000)
    database = tolerant_database(client, stored.name)
    reader = MongoDocuments(database, Events(), history_bytes=1_000, with_users=False)
    rows = stored["messages"].find({"conversationId": "long", "isCreatedByUser": False})
    key = to_key(max(rows, key=lambda row: row["createdAt"])["_id"])
    examined: dict[str, int] = {}
    records = []
    for turn in ("first", "next"):
        with count_documents(stored, examined, turn):
            read = await read_all(reader, [key], 1)
            records.append(read[key])
    client.close()

    first, following = (traces_of(record, bounds=Bounds(history_bytes=1_000)) for record in records)
    assert examined["next"] <= examined["first"] - 60
    assert first == following
    assert records[0].history_cut


@contextmanager
def count_documents(stored: PlainDatabase[Document], counted: dict[str, int], name: str) -> Iterator[None]:
    """Count the documents that the server looks at for queries within the block."""
    stored.command("profile", 2)
    yield
    stored.command("profile", 0)
    queries = stored["system.profile"].find({"op": "query"})
    counted[name] = sum(entry.get("docsExamined", 0) for entry in queries)
    stored.drop_collection("system.profile")
