"""What LibreChat overwrites before it is read, from the change stream to Langfuse; and what a backfill says of it."""

import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from bson import ObjectId

from tailer.core.backfill import Job, JobReason
from tailer.core.identity import title_trace_id, turn_trace_id
from tailer.core.stream.hints import Stream
from tailer.events import BackfillDone
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, StoredSpan
from tests.integration.running import running
from tests.rows import ALICE, answer, question, transaction

NO_THROTTLE = {"backfill_rate": 10_000.0}
BOTH = (Stream.MESSAGES, Stream.CONVERSATIONS)


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        assert server.violations == []


def id_at(now: datetime, seconds: float) -> ObjectId:
    """An `_id` as MongoDB makes it so many seconds later."""
    return ObjectId(ObjectId.from_datetime(now + timedelta(seconds=seconds)).binary[:4] + os.urandom(8))


async def chat_that_is_changed_at_once(databases: Databases, *, ahead_seconds: int) -> None:
    """A first turn; then its question is edited, its conversation renamed, and the next question has other settings.

    All times lie so many seconds ahead: what was inserted in the second of the start counts as not followed."""
    messages, conversations = databases.source["messages"], databases.source["conversations"]
    chat = {"conversationId": "c1", "user": ALICE}
    now = datetime.now(UTC) + timedelta(seconds=ahead_seconds)
    began = now - timedelta(seconds=1)
    await messages.insert_one(
        question("q1", None, text="What time is it?", createdAt=began, _id=id_at(now, -1))
    )
    await conversations.insert_one(
        {
            **chat,
            "_id": id_at(now, -1),
            "title": "New Chat",
            "temperature": 0.5,
            "model": "gpt-5",
            "createdAt": began,
        }
    )
    await databases.source["transactions"].insert_one(
        transaction(messageId="a1", context="title", _id=ObjectId())
    )
    await messages.insert_one(
        answer("a1", "q1", text="Noon", createdAt=now, updatedAt=now, _id=id_at(now, 0))
    )

    async def change(collection: str, query: dict[str, str], after: float, **fields: object) -> None:
        moment = now + timedelta(seconds=after)
        await databases.source[collection].update_one(query, {"$set": {"updatedAt": moment, **fields}})

    await change("conversations", chat, 0.5, title="Telling the time")
    await change("messages", {"messageId": "q1"}, 10, text="edited", tokenCount=1)
    await change("conversations", chat, 11, title="Renamed")
    await messages.insert_one(question("q2", "a1", createdAt=now + timedelta(seconds=12), _id=id_at(now, 12)))
    await change("conversations", chat, 12, temperature=0.1, promptPrefix="Be brief.", model="o3")
    await messages.insert_one(answer("a2", "q2", createdAt=now + timedelta(seconds=13), _id=id_at(now, 13)))


async def test_what_was_changed_before_it_was_read_is_shown_as_it_was(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake, settle_time=timedelta(seconds=2), streams=BOTH) as run:
        await chat_that_is_changed_at_once(databases, ahead_seconds=3)
        await run.until_done()

    root, call = fake.trace(turn_trace_id("a1"))[:2]
    assert root.input == "What time is it?"
    assert parameters_of(call) == {"temperature": 0.5}
    assert call.input == [{"role": "user", "content": "What time is it?"}]
    assert root.trace_metadata["question_text"] == "edited before it was read; shown as first written"
    assert "settings" not in root.trace_metadata
    later = fake.trace(turn_trace_id("a2"))[1]
    assert parameters_of(later) == {"temperature": 0.1}
    assert later.input[0] == {"role": "system", "content": "Be brief."}
    (title,) = fake.trace(title_trace_id("a1"))
    assert title.output == "Telling the time"
    assert title.metadata["timing"] == "estimated"


async def test_a_backfill_marks_what_it_knows_from_later_only(
    databases: Databases, fake: FakeLangfuse
) -> None:
    await chat_that_is_changed_at_once(databases, ahead_seconds=-60)
    async with running(databases, fake, streams=BOTH, **NO_THROTTLE) as run:
        await run.state.add_job(Job("all", JobReason.ASKED))
        await run.until(lambda: bool(run.events.of(BackfillDone)))
        await run.until_done()

    root = fake.trace(turn_trace_id("a1"))[0]
    assert root.trace_metadata["settings"] == "as of the reading; the conversation went on after the turn"
    assert root.trace_metadata["question_text"] == "saved again after the turn, perhaps edited"
    last = fake.trace(turn_trace_id("a2"))[0]
    assert "settings" not in last.trace_metadata
    (title,) = fake.trace(title_trace_id("a1"))
    assert title.metadata["title"] == "as of the reading, perhaps renamed"


def parameters_of(span: StoredSpan) -> object:
    return json.loads(str(span.attributes["langfuse.observation.model.parameters"]))
