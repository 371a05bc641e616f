"""The walk beside the streams: how fast, when it waits, where it goes on, and what it counts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from bson import ObjectId

from tailer.core.backfill import Counts, Job, JobReason
from tailer.core.identity import turn_trace_id
from tailer.core.stream.hints import Interest, Stream
from tailer.events import BackfillBroken, BackfillDone, BackfillStarted
from tailer.flow.backfilling import Backfilling, BackfillPace
from tailer.flow.records import Batch, BatchItem, Gap
from tailer.settings.destinations import DEFAULT_NAME
from tests.evidence import make_item, make_trace
from tests.memory import MemoryWalk
from tests.memory.clock import monotonic
from tests.rows import answer, question
from tests.unit.flow.scene import Scene, server_clock, until, working

PACE = BackfillPace(turns_per_second=20, unanswered_seconds=3600, open_limit=1000)
JOB = Job("job", JobReason.ASKED)


def store_chats(scene: Scene, count: int, *, seconds_ago: int = 86_400) -> list[str]:
    """Chats of one turn each, stored before anything was read; gives the ids of the answers."""
    made = int(server_clock()) - seconds_ago
    for number in range(count):
        own = {"conversationId": f"c{number}"}
        scene.librechat.insert(
            "messages",
            question(f"q{number}", None, _id=ObjectId(f"{made + number:08x}" + f"{2 * number:016x}"), **own),
            answer(
                f"a{number}",
                f"q{number}",
                _id=ObjectId(f"{made + number:08x}" + f"{2 * number + 1:016x}"),
                **own,
            ),
        )
    return [f"a{number}" for number in range(count)]


@asynccontextmanager
async def backfilling(scene: Scene, pace: BackfillPace = PACE) -> AsyncIterator[list[str]]:
    """A run whose turns are sent at once; gives the ids of those that were, as they are sent."""
    sent: list[str] = []
    task = Backfilling(
        scene.backlog,
        scene.state,
        {DEFAULT_NAME: scene.state},
        MemoryWalk(scene.librechat),
        pace,
        scene.events,
        monotonic=monotonic,
    )
    async with scene.reading(), working(task.run(), send(scene, sent)):
        yield sent


async def send(scene: Scene, sent: list[str]) -> None:
    """In place of the lanes: every entry is recorded as sent and closed; a question is left alone."""
    while True:
        for entry in await scene.backlog.take_due(limit=1000, gather_seconds=0):
            if entry.key.interest is Interest.RESPONSE and entry.message_id is not None:
                await record(scene, [entry.message_id])
                sent.append(entry.message_id)
            scene.backlog.close(entry.key)


async def record(scene: Scene, message_ids: Sequence[str]) -> None:
    items: list[BatchItem] = [make_item(make_trace(message_id), b"x") for message_id in message_ids]
    await scene.state.finish_batch(Batch("batch", tuple(items), b"x"), items)


async def until_done(scene: Scene, jobs: int = 1) -> BackfillDone:
    await until(lambda: len(scene.events.of(BackfillDone)) >= jobs)
    return scene.events.of(BackfillDone)[-1]


async def test_every_turn_is_sent_once_and_what_was_sent_before_is_not(scene: Scene) -> None:
    """All of it counted."""
    ids = store_chats(scene, 50)
    await record(scene, ids[:7])
    await scene.state.add_job(JOB)
    async with backfilling(scene) as sent:
        done = await until_done(scene)

    assert sent == ids[7:]
    assert (done.rows, done.known, done.sent, done.left_out) == (100, 7, 43, 0)
    assert scene.database.jobs["job"].counts == Counts(100, 7, 43, 0)
    assert scene.database.jobs["job"].is_done


async def test_no_more_turns_a_second_than_was_asked_for(scene: Scene) -> None:
    """Over ten minutes of work."""
    store_chats(scene, 300)
    await scene.state.add_job(JOB)
    began = monotonic()
    async with backfilling(scene, replace(PACE, turns_per_second=0.5)):
        await until_done(scene)

    assert monotonic() - began >= 300 / 0.5


async def test_a_chunk_waits_while_a_stream_is_behind(scene: Scene) -> None:
    """The streams come first."""
    store_chats(scene, 5)
    await scene.state.add_job(JOB)
    task = Backfilling(
        scene.backlog,
        scene.state,
        {DEFAULT_NAME: scene.state},
        MemoryWalk(scene.librechat),
        PACE,
        scene.events,
        monotonic=monotonic,
    )
    sent: list[str] = []
    async with working(task.run(), send(scene, sent)):
        await asyncio.sleep(3600)
        assert sent == []
        async with scene.reading():
            await until_done(scene)
    assert len(sent) == 5


async def test_a_job_that_was_stopped_goes_on_behind_its_last_chunk(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done of the chunk that was under way is not sent again, and every row counts once."""
    monkeypatch.setattr("tailer.flow.backfilling._CHUNK_ROWS", 20)
    ids = store_chats(scene, 50)
    await scene.state.add_job(JOB)
    async with backfilling(scene) as sent:
        await until(lambda: len(sent) >= 23)
    assert not scene.database.jobs["job"].is_done

    later = scene.restart()
    async with backfilling(later) as sent_later:
        done = await until_done(later)

    assert [event.resumed for event in later.events.of(BackfillStarted)] == [True]
    assert sent + sent_later == ids
    assert (done.rows, done.known + done.sent) == (100, 50)


async def test_a_gap_gets_a_job_and_is_filled_by_it(scene: Scene) -> None:
    """Within the margin of two clocks; rows far from it are not walked."""
    store_chats(scene, 1, seconds_ago=86_400)
    own = {"conversationId": "in the gap"}
    made = int(server_clock()) - 5000
    scene.librechat.insert("messages", answer("lost", "q", _id=ObjectId(f"{made:08x}" + "0" * 16), **own))
    await scene.state.add_gap(Gap(Stream.MESSAGES, made - 100, made + 100, "oplog_too_short"))
    async with backfilling(scene) as sent:
        await until_done(scene)

    assert sent == ["lost"]
    assert await scene.state.unfilled_gaps() == {}
    assert turn_trace_id("lost") in scene.database.exports


async def test_a_job_that_breaks_the_code_is_told_and_left_and_the_others_go_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is stored may end every process that finds it."""
    ids = store_chats(scene, 1)
    await scene.state.add_job(replace(JOB, job_id="bad", until_seconds=7))
    await scene.state.add_job(JOB)
    count = MemoryWalk.count

    async def break_over(walk: MemoryWalk, job: Job) -> int | None:
        if job.until_seconds == 7:
            raise ValueError
        return await count(walk, job)

    monkeypatch.setattr(MemoryWalk, "count", break_over)
    async with backfilling(scene) as sent:
        done = await until_done(scene)
        await asyncio.sleep(60)

    assert (sent, done.job_id) == (ids, "job")
    assert scene.events.of(BackfillBroken) == [BackfillBroken("bad", "ValueError")]
    assert await scene.state.next_job([DEFAULT_NAME]) == replace(JOB, job_id="bad", until_seconds=7)


async def test_jobs_that_are_asked_for_later_are_found_and_done_in_their_order(scene: Scene) -> None:
    """By a daemon that has had nothing to do for an hour."""
    store_chats(scene, 3)
    async with backfilling(scene):
        await asyncio.sleep(3600)
        for name in ("first", "second"):
            await scene.state.add_job(Job(name, JobReason.ASKED))
        await until_done(scene, 2)

    assert [event.job_id for event in scene.events.of(BackfillDone)] == ["first", "second"]
    assert [event.known for event in scene.events.of(BackfillDone)] == [0, 3]
