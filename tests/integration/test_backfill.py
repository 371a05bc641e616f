"""Turns that no stream tells of, sent from the collections: once each, beside the streams, and on after a crash."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.backfill import Job, JobReason, Start, StartMode
from tailer.core.identity import spending_trace_id, title_trace_id, turn_trace_id, unanswered_trace_id
from tailer.core.stream.hints import Stream
from tailer.errors import RequestRefused
from tailer.events import BackfillDone, BackfillStarted, GapsLeft, TracesDelivered
from tailer.flow import backfilling
from tailer.flow.records import Gap
from tailer.mongo.walk import MongoWalk
from tailer.operations.backfill import BackfillDesk, Request, open_backfills
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse
from tests.integration.running import Run, running, settings_for
from tests.rows import answer, question, transaction

ALL = {"start": Start(StartMode.ALL)}
NO_THROTTLE = {"backfill_rate": 10_000.0}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfilling, "_LOOK_SECONDS", 0.02)


@asynccontextmanager
async def desk_of(databases: Databases, **changed: Any) -> AsyncIterator[BackfillDesk]:
    async with open_backfills(settings_for(databases, None, **changed)) as desk:
        yield desk


def past(**ago: float) -> dict[str, Any]:
    """The `_id` and the times of a row that was made then."""
    moment = (datetime.now(UTC) - timedelta(**ago)).replace(microsecond=0)
    rest = ObjectId().binary[4:]
    key = ObjectId(int(moment.timestamp()).to_bytes(4, "big") + rest)
    return {"_id": key, "createdAt": moment, "updatedAt": moment}


def chat(number: int, **ago: float) -> list[dict[str, Any]]:
    """A turn in a conversation of its own."""
    fields = {"conversationId": f"c{number}"}
    return [
        question(f"q{number}", None, **{**fields, **past(**ago)}),
        answer(f"a{number}", f"q{number}", **{**fields, **past(**ago)}),
    ]


async def store(databases: Databases, *turns: list[dict[str, Any]]) -> None:
    await databases.source["messages"].insert_many([row for turn in turns for row in turn])


async def until_backfilled(run: Run, jobs: int = 1) -> None:
    await run.until(lambda: len(run.events.of(BackfillDone)) >= jobs)
    await run.until_done()


def traces_of(*numbers: int) -> set[str]:
    return {turn_trace_id(f"a{number}") for number in numbers}


async def test_a_first_start_with_all_sends_what_was_there_and_what_comes(
    databases: Databases, fake: FakeLangfuse
) -> None:
    await store(databases, chat(1, days=400), chat(2, hours=2))
    async with running(databases, fake, **ALL) as run:
        await store(databases, chat(3))
        await until_backfilled(run)
        (done,) = run.events.of(BackfillDone)

    assert set(fake.trace_ids()) == traces_of(1, 2, 3)
    assert done.job_id == "start"
    assert done.rows in (4, 6)
    assert done.sent + done.known == done.rows // 2


async def test_the_age_of_what_a_backfill_sends_is_no_latency(
    databases: Databases, fake: FakeLangfuse
) -> None:
    await store(databases, chat(1, days=400))
    async with running(databases, fake, **ALL) as run:
        await until_backfilled(run)
        await store(databases, chat(2))
        await run.until(lambda: len(fake.trace_ids()) == 2)
        await run.until_done()
        latencies = [
            seconds for event in run.events.of(TracesDelivered) for seconds in event.latencies_seconds
        ]

    assert len(latencies) == 1
    assert latencies[0] < 60


async def test_a_first_start_with_a_time_leaves_out_what_is_older(
    databases: Databases, fake: FakeLangfuse
) -> None:
    await store(databases, chat(1, days=3), chat(2, hours=2))
    since = Start(StartMode.SINCE, datetime.now(UTC) - timedelta(days=1))
    async with running(databases, fake, start=since) as run:
        await until_backfilled(run)

    assert set(fake.trace_ids()) == traces_of(2)


async def test_a_later_start_plans_nothing(databases: Databases, fake: FakeLangfuse) -> None:
    """The setting is of the first start alone: what was not wanted then is not wanted now."""
    await store(databases, chat(1, days=3))
    async with running(databases, fake):
        pass
    async with running(databases, fake, **ALL) as run:
        await run.until(lambda: bool(run.events.of(GapsLeft)))
        assert await run.state.next_job(["default"]) is None

    assert fake.trace_ids() == []


async def test_a_start_that_dies_before_it_has_a_position_still_owes_the_backfill(
    databases: Databases, fake: FakeLangfuse
) -> None:
    await store(databases, chat(1, days=3))
    async with running(databases, fake, **ALL) as run:
        await until_backfilled(run)
    await databases.state["backfills"].update_one({}, {"$set": {"is_done": False, "position": None}})
    await databases.state["exports"].delete_many({})
    async with FakeLangfuse() as other, running(databases, other) as run:
        await until_backfilled(run)
        sent = other.trace_ids()

    assert set(sent) == traces_of(1)


async def test_a_backfill_goes_on_where_a_crash_ended_it(
    databases: Databases, fake: FakeLangfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfilling, "_CHUNK_ROWS", 4)
    await store(databases, *(chat(number, hours=50 - number) for number in range(1, 11)))
    # Slow enough to be interrupted: two turns a chunk, at ten turns a second.
    async with running(databases, fake, **ALL, backfill_rate=10.0) as run:
        await run.until(lambda: len(fake.trace_ids()) >= 4)
    stored = await databases.state["backfills"].find_one({})
    assert stored is not None
    assert 0 < stored["counts"]["rows"] < 20
    async with running(databases, fake, **NO_THROTTLE) as run:
        await until_backfilled(run)
        (begun,) = run.events.of(BackfillStarted)
        (done,) = run.events.of(BackfillDone)

    assert set(fake.trace_ids()) == traces_of(*range(1, 11))
    assert begun.resumed
    assert done.rows == 20
    assert done.known + done.sent == 10


async def test_a_backfill_keeps_to_its_rate(
    databases: Databases, fake: FakeLangfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six turns in chunks of two, at ten a second: the pauses alone are more than half a second."""
    monkeypatch.setattr(backfilling, "_CHUNK_ROWS", 4)
    await store(databases, *(chat(number, hours=50 - number) for number in range(6)))
    began = time.monotonic()
    async with running(databases, fake, **ALL, backfill_rate=10.0) as run:
        await until_backfilled(run)

    assert time.monotonic() - began > 0.6
    assert len(fake.trace_ids()) == 6


async def test_a_second_backfill_finds_everything_sent(databases: Databases, fake: FakeLangfuse) -> None:
    await store(databases, chat(1, hours=3), chat(2, hours=2))
    async with running(databases, fake, **ALL) as run:
        await until_backfilled(run)
        await run.state.add_job(Job("again", JobReason.ASKED))
        await until_backfilled(run, 2)
        done = run.events.of(BackfillDone)[-1]

    assert (done.rows, done.known, done.sent, done.left_out) == (4, 2, 0, 0)
    assert len(fake.trace_ids()) == 2


async def test_what_the_stream_and_a_backfill_both_see_is_sent_once(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake, **NO_THROTTLE) as run:
        for number in range(30):
            await store(databases, chat(number))
            if number % 10 == 5:
                await run.state.add_job(Job(f"job {number}", JobReason.ASKED))
        await until_backfilled(run, 3)

    assert set(fake.trace_ids()) == traces_of(*range(30))


async def test_one_conversation_is_walked_alone(databases: Databases, fake: FakeLangfuse) -> None:
    await store(databases, chat(1, hours=3), chat(2, hours=2))
    async with running(databases, fake) as run:
        await run.state.add_job(Job("one", JobReason.ASKED, conversation_id="c2"))
        await until_backfilled(run)

    assert set(fake.trace_ids()) == traces_of(2)


async def test_a_long_conversation_is_walked_in_chunks(
    databases: Databases, fake: FakeLangfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfilling, "_CHUNK_ROWS", 3)
    for number in range(5):
        rows = chat(number, minutes=50 - number)
        await store(databases, [{**row, "conversationId": "long"} for row in rows])
    async with running(databases, fake, **NO_THROTTLE) as run:
        await run.state.add_job(Job("one", JobReason.ASKED, conversation_id="long"))
        await until_backfilled(run)

    assert set(fake.trace_ids()) == traces_of(*range(5))


async def test_what_a_stream_would_leave_out_a_backfill_leaves_out_too(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """A copy, a temporary chat, and a question that was answered in another chunk."""
    copied = chat(1)
    for row in copied:
        row.update(createdAt=datetime(2025, 1, 1, tzinfo=UTC))
    temporary = [{**row, "isTemporary": True} for row in chat(2, hours=1)]
    await store(databases, copied, temporary, chat(3, hours=2))
    async with running(databases, fake, **ALL) as run:
        await until_backfilled(run)
        (done,) = run.events.of(BackfillDone)

    assert set(fake.trace_ids()) == traces_of(3)
    assert done.left_out == 2


async def test_an_old_question_without_an_answer_is_sent_as_unanswered(
    databases: Databases, fake: FakeLangfuse
) -> None:
    asked, _ = chat(1, days=2)
    recent, _ = chat(2, minutes=1)
    await store(databases, [asked, recent])
    async with running(databases, fake, **ALL) as run:
        await until_backfilled(run)

    assert fake.trace_ids() == [unanswered_trace_id("q1")]


async def test_rows_with_ids_of_other_types_are_walked_too(
    databases: Databases, fake: FakeLangfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison in the query would stop at the border between two types."""
    monkeypatch.setattr(backfilling, "_CHUNK_ROWS", 2)
    odd = [{**row, "_id": f"row {row['messageId']}"} for row in chat(1, hours=1)]
    numbered = [{**row, "_id": 40 + index} for index, row in enumerate(chat(2, hours=1))]
    await store(databases, odd, numbered, chat(3, hours=1))
    async with running(databases, fake, **ALL) as run:
        await until_backfilled(run)
        (done,) = run.events.of(BackfillDone)

    assert done.rows == 6
    assert set(fake.trace_ids()) == traces_of(1, 2, 3)


async def test_a_gap_is_filled_and_says_so(databases: Databases, fake: FakeLangfuse) -> None:
    """Rows around it are walked too: an `_id` is made by another clock than a gap."""
    now = int(datetime.now(UTC).timestamp())
    await store(databases, chat(1, hours=5), chat(2, hours=3), chat(3, hours=1))
    async with running(databases, fake) as run:
        await run.state.add_gap(
            Gap(Stream.MESSAGES, now - 4 * 3600, now - 2 * 3600, "ChangeStreamHistoryLost")
        )
        await until_backfilled(run)
        await run.until(lambda: run.events.of(GapsLeft)[-1].gaps == 0)
        counted = [event.gaps for event in run.events.of(GapsLeft)]

    assert set(fake.trace_ids()) == traces_of(2)
    assert 1 in counted
    stored = await databases.state["gaps"].find_one({})
    assert stored is not None
    assert stored["filled"] is True
    assert stored["filled_at"] is not None


async def test_a_gap_of_another_stream_is_filled_from_its_own_collection(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """A walk of messages finds neither spending of the remote API nor the title of a turn that was sent before."""
    turn = chat(1, hours=3)
    spending = [
        transaction(
            **{**past(hours=3), "conversationId": "api", "messageId": "chatcmpl-1", "tokenType": kind}
        )
        for kind in ("prompt", "completion")
    ]
    now = int(datetime.now(UTC).timestamp())
    async with running(databases, fake) as run:
        await store(databases, turn)
        await run.until_done()
        sent = set(fake.trace_ids())
        titled = {"conversationId": "c1", "user": turn[1]["user"], "title": "A title"}
        await databases.source["conversations"].insert_one({**titled, **past(hours=3)})
        billed = {**past(hours=3), "conversationId": "c1", "messageId": "a1", "context": "title"}
        await databases.source["transactions"].insert_many([*spending, transaction(**billed)])
        for stream in (Stream.CONVERSATIONS, Stream.TRANSACTIONS):
            await run.state.add_gap(Gap(stream, now - 4 * 3600, now - 2 * 3600, "ChangeStreamHistoryLost"))
        await until_backfilled(run, jobs=2)
        await run.until(lambda: run.events.of(GapsLeft)[-1].gaps == 0)
        done = {event.job_id.split("-")[1]: event for event in run.events.of(BackfillDone)}

    assert sent == traces_of(1)
    assert set(fake.trace_ids()) == {*sent, title_trace_id("a1"), spending_trace_id("chatcmpl-1")}
    assert (done["transactions"].rows, done["transactions"].sent) == (3, 1)


async def test_no_position_is_held_back_by_a_backfill(databases: Databases, fake: FakeLangfuse) -> None:
    await store(databases, chat(1, days=1))
    async with running(databases, fake, **ALL) as run:
        await until_backfilled(run)
        positions = run.pipeline.backlog
        assert positions.oldest_position(Stream.MESSAGES) is None


async def test_a_request_is_one_job_however_often_it_is_made(databases: Databases) -> None:
    since = datetime.now(UTC) - timedelta(days=1)
    async with desk_of(databases) as desk:
        first = await desk.ask(Request(since=since))
        again = await desk.ask(Request(since=since))
        other = await desk.ask(Request(conversation_id="c1"))

    assert first.job_id == again.job_id
    assert other.job_id != first.job_id
    assert other.until_seconds is None


async def test_a_time_in_the_future_is_refused(databases: Databases) -> None:
    async with desk_of(databases) as desk:
        with pytest.raises(RequestRefused, match="future"):
            await desk.ask(Request(since=datetime.now(UTC) + timedelta(days=1)))
        later, earlier = (datetime.now(UTC) - timedelta(hours=ago) for ago in (1, 2))
        with pytest.raises(RequestRefused, match="--until"):
            await desk.ask(Request(since=later, until=earlier))


async def test_a_backfill_is_refused_where_nothing_is_sent(databases: Databases) -> None:
    """It would never end; counting is no sending."""
    async with open_backfills(settings_for(databases, None, langfuse_enabled=False)) as desk:
        with pytest.raises(RequestRefused, match="LANGFUSE_ENABLED"):
            await desk.ask(Request())
        assert (await desk.estimate(Request())).rows == 0
    assert await databases.state["backfills"].count_documents({}) == 0


async def test_a_job_that_breaks_the_code_ends_the_command_that_does_it_alone(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for ever: the daemon has left the job, and goes on."""

    async def break_over(walk: MongoWalk, job: Job) -> int | None:
        del walk, job
        raise ValueError

    monkeypatch.setattr(MongoWalk, "count", break_over)
    async with desk_of(databases, file_path=tmp_path / "traces.jsonl") as desk:
        job = await desk.ask(Request(since=datetime.now(UTC) - timedelta(hours=1)))
        async with desk.working(job.job_id) as daemon:
            assert await asyncio.wait_for(daemon, 30) == 0
        assert not (await desk.look_at(job.job_id)).is_done


async def test_an_estimate_counts_and_sends_nothing(databases: Databases, fake: FakeLangfuse) -> None:
    await store(databases, chat(1, hours=3))
    async with running(databases, fake, **ALL) as run:
        await until_backfilled(run)
    await store(databases, chat(2, hours=2))
    async with desk_of(databases) as desk:
        estimate = await desk.estimate(Request())

    assert (estimate.rows, estimate.responses, estimate.known, estimate.to_look_at) == (4, 2, 1, 1)
    assert await databases.state["backfills"].count_documents({}) == 1
    assert len(fake.trace_ids()) == 1
