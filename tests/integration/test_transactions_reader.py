"""Reading transactions: those that name no message go to turns by their times, those of no chat to the remote API."""

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import DocumentKey
from tailer.core.trace.spending import Spending
from tailer.core.turn.turns import TurnRecord
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.mongo.connection import Database, connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tests.evidence import Events
from tests.rows import ALICE, BOB, NOW, answer, question, transaction
from tests.sent import make_sent


@pytest.fixture
async def database(replica_set: ReplicaSet) -> AsyncIterator[Database]:
    client = connect(replica_set.uri, application="test", socket_milliseconds=30_000)
    name = f"librechat_{uuid.uuid4().hex}"
    yield tolerant_database(client, name)
    await client.drop_database(name)
    client.close()


@pytest.fixture
def reader(database: Database) -> MongoDocuments:
    return MongoDocuments(database, Events(), history_bytes=64_000, with_users=False)


def at(seconds: float) -> dict[str, Any]:
    """When a row was stored."""
    moment = NOW + timedelta(seconds=seconds)
    return {"createdAt": moment, "updatedAt": moment}


def spent(tokens: int, seconds: float, user: str = ALICE, **fields: Any) -> dict[str, Any]:
    return transaction(
        user, **{"rawAmount": -tokens, "createdAt": NOW + timedelta(seconds=seconds), **fields}
    )


async def store(database: Database, collection: str, *rows: Mapping[str, Any]) -> list[DocumentKey]:
    await database[collection].insert_many([dict(row) for row in rows])
    return [to_key(row["_id"]) for row in rows]


async def tokens_of(database: Database, reader: MongoDocuments) -> dict[tuple[str, str | None], list[int]]:
    """The tokens of each response, by message id and owner."""
    query = {"isCreatedByUser": False}
    keys = [to_key(document["_id"]) for document in await database["messages"].find(query).to_list(None)]
    records: list[TurnRecord | None] = []
    async for group in reader.read_turns(await reader.locate(keys)):
        records += [record for _, record in group]
    return {
        (record.response.message_id, record.response.user_id): [item.tokens for item in record.transactions]
        for record in records
        if record is not None and record.response is not None
    }


async def test_unnamed_transactions_go_to_the_turn_of_their_time(
    database: Database, reader: MongoDocuments
) -> None:
    """Two turns of one conversation; what was spent outside both belongs to neither."""
    await store(
        database, "messages",
        question("q1", None, **at(-300)), answer("a1", "q1", **at(-290)),
        question("q2", "a1", **at(-100)), answer("a2", "q2", **at(-90)),
    )  # fmt: skip
    await store(
        database, "transactions",
        spent(1, -299), spent(2, -289), spent(3, -99), spent(4, -88, messageId=None), spent(5, -200), spent(6, -20),
    )  # fmt: skip

    assert await tokens_of(database, reader) == {("a1", ALICE): [1, 2], ("a2", ALICE): [3, 4]}


async def test_unnamed_transactions_stay_with_their_user(database: Database, reader: MongoDocuments) -> None:
    """Two users own a conversation of the same id, and both have a turn at the same time."""
    await store(
        database, "messages",
        question("qa", None, ALICE, **at(-100)), answer("aa", "qa", ALICE, **at(-90)),
        question("qb", None, BOB, **at(-100)), answer("ab", "qb", BOB, **at(-90)),
    )  # fmt: skip
    await store(database, "transactions", spent(1, -89, ALICE), spent(2, -89, BOB), spent(3, -91, BOB))

    assert await tokens_of(database, reader) == {("aa", ALICE): [1], ("ab", BOB): [2, 3]}


async def test_named_transactions_are_not_given_away_by_their_time(
    database: Database, reader: MongoDocuments
) -> None:
    """A title is billed under its response's id long after; the time of another turn does not draw it there."""
    await store(
        database, "messages",
        question("q1", None, **at(-300)), answer("a1", "q1", **at(-290)),
        question("q2", "a1", **at(-100)), answer("a2", "q2", **at(-90)),
    )  # fmt: skip
    await store(database, "transactions", spent(1, -89, messageId="a1"), spent(2, -89))

    assert await tokens_of(database, reader) == {("a1", ALICE): [1], ("a2", ALICE): [2]}


def by_reference(
    found: Mapping[DocumentKey, Spending | None],
) -> dict[tuple[str, str], tuple[str | None, list[int]]]:
    """User and tokens of each call."""
    return {
        (item.conversation_id, item.reference): (item.user_id, [entry.tokens for entry in item.transactions])
        for item in found.values()
        if item is not None
    }


async def test_transactions_of_a_call_are_read_together(database: Database, reader: MongoDocuments) -> None:
    """Whichever of them is asked for; each call by itself, also two under one conversation id."""
    keys = await store(
        database, "transactions",
        spent(1, -9, conversationId="api-1", messageId="r1"), spent(2, -8, conversationId="api-1", messageId="r1"),
        spent(3, -7, conversationId="api-1", messageId="r2"), spent(4, -6, BOB, conversationId="api-2"),
    )  # fmt: skip

    every = await reader.read_spending(keys)
    one = await reader.read_spending(keys[1:2])

    assert by_reference(every) == {
        ("api-1", "r1"): (ALICE, [1, 2]),
        ("api-1", "r2"): (ALICE, [3]),
        ("api-2", "api-2"): (BOB, [4]),
    }
    assert by_reference(one) == {("api-1", "r1"): (ALICE, [1, 2])}
    assert set(one) == {keys[1]}


async def test_transactions_of_a_chat_are_no_call(database: Database, reader: MongoDocuments) -> None:
    """One that names no message is its conversation's; one that does is the message's, as long as it is stored."""
    conversation = {"_id": ObjectId(), "conversationId": "c1", "user": ALICE}
    await store(database, "conversations", conversation)
    await store(database, "messages", question("q2", None, conversationId="c2"), answer("a1", "q1"))
    keys = await store(
        database, "transactions",
        spent(1, -9, messageId="a1"), spent(6, -9), spent(2, -9, conversationId="c2"), spent(3, -9, conversationId="api"),
        spent(4, -9, conversationId=None), spent(5, -9, conversationId="broken", tokenType="credits"),
    )  # fmt: skip

    found = await reader.read_spending([*keys, to_key(ObjectId())])

    assert set(found) == set(keys)
    assert by_reference(found) == {("api", "api"): (ALICE, [3])}
    assert await reader.read_spending([]) == {}


async def test_every_route_of_the_remote_api_counts_also_with_an_empty_conversation(
    database: Database, reader: MongoDocuments
) -> None:
    """`/responses` stores a conversation without messages; either may go on in a conversation of a chat."""
    await store(database, "conversations", {"_id": ObjectId(), "conversationId": "c9", "user": ALICE})
    await store(database, "messages", question("q1", None), answer("a1", "q1"))
    keys = await store(
        database, "transactions",
        spent(1, -9, conversationId="nano", messageId="chatcmpl-1"), spent(2, -9, conversationId="c9", messageId="resp_1"),
        spent(3, -9, messageId="resp_2"),
    )  # fmt: skip

    found = by_reference(await reader.read_spending(keys))

    assert {reference: tokens for (_, reference), (_, tokens) in found.items()} == {
        "chatcmpl-1": [1], "resp_1": [2], "resp_2": [3],
    }  # fmt: skip


async def test_what_an_answer_spends_before_it_is_stored_is_its_chats(
    database: Database, reader: MongoDocuments
) -> None:
    """The title is billed under the answer's id while the answer is written; a whole chat that is gone spent too."""
    running, deleted = str(uuid.uuid4()), str(uuid.uuid4())
    await store(database, "messages", question("q1", None))
    keys = await store(
        database, "transactions",
        spent(1, -9, messageId=running, context="title"), spent(2, -9, conversationId="gone", messageId=deleted),
    )  # fmt: skip

    assert by_reference(await reader.read_spending(keys)) == {("gone", deleted): (ALICE, [2])}


@pytest.mark.parametrize("conversation_id", [["c1"], {"a": 1}, 7, None])
async def test_a_broken_conversation_id_spends_for_no_chat_and_stops_no_reading(
    database: Database, reader: MongoDocuments, conversation_id: object
) -> None:
    await store(database, "messages", question("q1", None))
    keys = await store(
        database, "transactions",
        spent(1, -9, messageId=str(uuid.uuid4()), conversationId=conversation_id),
        spent(2, -9, conversationId=conversation_id),
        spent(3, -9, conversationId="api"),
    )  # fmt: skip

    assert by_reference(await reader.read_spending(keys)) == {("api", "api"): (ALICE, [3])}


async def test_a_ledger_whose_ids_are_no_object_ids_is_looked_at_like_any_other(
    database: Database, reader: MongoDocuments
) -> None:
    """A program that writes into the ledger chooses the type of its ids. A look that fails would fail at each try."""
    await store(
        database, "transactions", spent(1, -9, messageId="a1", _id="entry-1"), spent(2, -1, messageId="a2")
    )
    turns = [
        replace(make_sent(message_id), session_id="c1", start_milliseconds=1, transactions=(counted,))
        for message_id, counted in (("a1", "entry-1"), ("a2", str(ObjectId())))
    ]

    found = await reader.read_ledgers(turns, only_news=True)

    assert {message_id: [entry.tokens for entry in entries] for message_id, entries in found.items()} == {
        "a2": [2]
    }
