"""Rows that change after the records of what was sent for them have expired."""

from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from tailer.core.identity import title_trace_id, turn_trace_id
from tailer.core.stream.hints import Stream
from tailer.core.turn.entry_outcomes import EntryOutcome
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse
from tests.integration.running import running
from tests.rows import ALICE, NOW, answer, question, transaction

RATING = {"$set": {"feedback": {"rating": "thumbsUp"}}}
LIFETIME = timedelta(days=90)
OLD = NOW - timedelta(days=100)
YOUNG = NOW - timedelta(days=80)


def key_made_at(made: datetime, number: int) -> ObjectId:
    return ObjectId(f"{int(made.timestamp()):08x}{number:016x}")


def chat_made_at(made: datetime) -> list[dict[str, Any]]:
    """A question and its answer, with the `_id`s and times of then."""
    rows = [question("q1", None), answer("a1", "q1")]
    return [
        {**row, "_id": key_made_at(made, number), "createdAt": made, "updatedAt": made}
        for number, row in enumerate(rows)
    ]


async def test_a_turn_whose_record_has_expired_is_not_sent_again_when_it_is_rated(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Nobody knows any more whether it was sent, and Langfuse would count it twice."""
    async with running(databases, fake, export_record_lifetime=LIFETIME) as run:
        await databases.source["messages"].insert_many(chat_made_at(OLD))
        await run.until_done()
        await databases.state["exports"].delete_many({})
        await databases.source["messages"].update_one({"messageId": "a1"}, RATING)
        await run.until_done()
        outcomes = run.outcomes()

    assert fake.trace_ids() == [turn_trace_id("a1")]
    assert outcomes == [EntryOutcome.COMPLETE, EntryOutcome.FORGOTTEN]


async def test_a_title_whose_record_has_expired_is_not_sent_again_when_it_is_renamed(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Its trace has the cost of the title's generation."""
    conversation = {"_id": key_made_at(OLD, 9), "conversationId": "c1", "user": ALICE, "title": "Clocks"}
    both = (Stream.MESSAGES, Stream.CONVERSATIONS)
    async with running(databases, fake, streams=both, export_record_lifetime=LIFETIME) as run:
        await databases.source["conversations"].insert_one(conversation)
        await databases.source["transactions"].insert_one(transaction(messageId="a1", context="title"))
        await databases.source["messages"].insert_many(chat_made_at(OLD))
        await run.until_done()
        await databases.state["exports"].delete_many({})
        await databases.source["conversations"].update_one({}, {"$set": {"title": "Watches"}})
        await run.until_done()
        outcomes = run.outcomes()

    assert set(fake.trace_ids()) == {turn_trace_id("a1"), title_trace_id("a1")}
    assert outcomes[-1] is EntryOutcome.FORGOTTEN


async def test_a_rating_of_a_turn_from_before_the_first_start_brings_the_turn_along(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """A record of it could not have expired yet, so it was never sent."""
    await databases.source["messages"].insert_many(chat_made_at(YOUNG))
    async with running(databases, fake, export_record_lifetime=LIFETIME) as run:
        await databases.source["messages"].update_one({"messageId": "a1"}, RATING)
        await run.until_done()
        outcomes = run.outcomes()

    assert fake.trace_ids() == [turn_trace_id("a1")]
    assert outcomes == [EntryOutcome.COMPLETE, EntryOutcome.FOLLOWED]


async def test_an_inserted_turn_is_new_whatever_the_clock_of_its_id_shows(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """LibreChat's machine may have started with a clock that is years behind."""
    async with running(databases, fake, export_record_lifetime=LIFETIME) as run:
        await databases.source["messages"].insert_many(chat_made_at(OLD))
        await databases.source["messages"].update_one({"messageId": "a1"}, {"$set": {"unfinished": False}})
        await run.until_done()

    assert fake.trace_ids() == [turn_trace_id("a1")]
