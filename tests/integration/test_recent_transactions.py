"""The ledger of the last turn of a long conversation, whatever stands in it, is the one that all its entries give."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.turn.turns import TurnRecord
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.mongo.connection import Database, connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tests.evidence import Events
from tests.rows import ALICE, answer, question, transaction

TURNS = 80
NOW = datetime.now(UTC).replace(microsecond=0)
RESTORED = timedelta(hours=2)


@pytest.fixture
async def database(replica_set: ReplicaSet) -> AsyncIterator[Database]:
    client = connect(replica_set.uri, application="test", socket_milliseconds=30_000)
    name = f"librechat_{uuid.uuid4().hex}"
    database = tolerant_database(client, name)
    await database["transactions"].create_index("conversationId")
    yield database
    await client.drop_database(name)
    client.close()


def at(seconds: float) -> dict[str, Any]:
    """An `_id` and times that many seconds before now."""
    moment = NOW - timedelta(seconds=seconds)
    stamp = ObjectId(f"{int(moment.timestamp()):08x}{uuid.uuid4().hex[:16]}")
    return {"_id": stamp, "createdAt": moment, "updatedAt": moment}


def entry(seconds: float, message_id: str | None, tokens: int) -> dict[str, Any]:
    named = {} if message_id is None else {"messageId": message_id}
    return transaction(rawAmount=-tokens, **named, **at(seconds))


OLD = [entry(60.0 * (TURNS - number) - 8, f"a{number}", 1) for number in range(TURNS - 1) for _ in range(2)]
LEDGERS = {
    "two entries": [*OLD, entry(52, "a79", 2), entry(52, "a79", 3)],
    "an agent's many": [*OLD, *(entry(52, "a79", 4) for _ in range(150))],
    "entries that name no answer": [*OLD, entry(53, None, 5), entry(52, None, 6), entry(400, None, 7)],
    "restored backwards": [entry(52, "a79", 2), entry(52, "a79", 3), *reversed(OLD)],
    "none of the turn": OLD,
    "none": [],
}


@pytest.mark.parametrize("ledger", LEDGERS.values(), ids=LEDGERS)
@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "without index"])
async def test_the_last_turn_has_all_its_entries(
    database: Database, ledger: list[dict[str, Any]], *, indexed: bool
) -> None:
    rows = make_rows()
    await database["messages"].insert_many(rows)
    if ledger:
        await database["transactions"].insert_many(ledger)
    if not indexed:
        await database["transactions"].drop_indexes()

    record = await read_last(database, rows)

    own = [item for item in ledger if item.get("messageId") == "a79"]
    unnamed = [
        item
        for item in ledger
        if "messageId" not in item and item["createdAt"] >= NOW - timedelta(seconds=61)
    ]
    expected = sorted(-item["rawAmount"] for item in [*own, *unnamed])
    assert sorted(item.tokens for item in record.transactions) == expected
    assert {item.user_id for item in record.transactions} <= {ALICE}


async def test_an_old_turn_has_all_its_entries_in_whatever_order_they_were_restored(
    database: Database,
) -> None:
    """A restore may write in any order, so the newest entries are not those that were written last."""
    hours = RESTORED.total_seconds()
    rows = make_rows(hours)
    old = [
        entry(hours + 60.0 * (TURNS - number) - 8, f"a{number}", 1)
        for number in range(TURNS - 1)
        for _ in range(2)
    ]
    ledger = [entry(hours + 52, "a79", 2), *old, entry(hours + 52, "a79", 3)]
    await database["messages"].insert_many(rows)
    await database["transactions"].insert_many(ledger)

    record = await read_last(database, rows)

    assert sorted(item.tokens for item in record.transactions) == [2, 3]


@pytest.mark.parametrize("prefix", ["$", "$$", "$$ROOT."])
async def test_ids_that_look_like_names_of_fields_are_read_like_any_other(
    database: Database, prefix: str
) -> None:
    """A client may choose the id of its message, and an answer's may be made from it."""
    rows = make_rows()
    for row in rows:
        row["messageId"] = prefix + row["messageId"]
        if row["parentMessageId"] is not None:
            row["parentMessageId"] = prefix + row["parentMessageId"]
    entries = [entry(60.0 * (TURNS - number) - 8, f"{prefix}a{number}", number) for number in range(TURNS)]
    await database["messages"].insert_many(rows)
    await database["transactions"].insert_many(entries)

    record = await read_last(database, rows)

    assert record.question is not None
    assert record.question.message_id == f"{prefix}q{TURNS - 1}"
    assert record.response is not None
    assert record.response.message_id == f"{prefix}a{TURNS - 1}"
    assert [item.tokens for item in record.transactions] == [TURNS - 1]


def make_rows(before_seconds: float = 0) -> list[dict[str, Any]]:
    """A conversation of a turn a minute."""
    rows: list[dict[str, Any]] = []
    parent: str | None = None
    for number in range(TURNS):
        asked = before_seconds + 60.0 * (TURNS - number)
        rows.append(question(f"q{number}", parent, text="x" * 200, **at(asked)))
        parent = f"a{number}"
        rows.append(answer(parent, f"q{number}", text="y" * 900, **at(asked - 8)))
    return rows


async def read_last(database: Database, rows: list[dict[str, Any]]) -> TurnRecord:
    reader = MongoDocuments(database, Events(), history_bytes=8_000, with_users=False)
    found = await reader.locate([to_key(rows[-1]["_id"])])
    ((_, record),) = [item async for group in reader.read_turns(found) for item in group]
    assert record is not None
    assert record.history_cut
    return record
