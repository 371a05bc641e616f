"""LibreChat's turns against what Langfuse has: what is missing, what is doubled, what should not be there, and
repair."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import turn_trace_id
from tailer.daemon import destinations, pipeline
from tailer.errors import DestinationError, RequestRefused
from tailer.operations.backfill import Request
from tailer.operations.dead_letters import open_letters
from tailer.operations.reconcile import Comparison, open_reconciliation
from tailer.settings import Settings
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, Route
from tests.fakes.langfuse import answer as answer_with
from tests.integration.running import running, settings_for
from tests.rows import answer, question

AT_ONCE: dict[str, Any] = {"lookup_time": timedelta()}


@pytest.fixture(autouse=True)
def frequent_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_SWEEP_SECONDS", 0.05)


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        assert server.violations == []


async def store_turns(databases: Databases, *numbers: int, **fields: Any) -> None:
    for number in numbers:
        shared = {"conversationId": f"c{number}", **fields}
        await databases.source["messages"].insert_many(
            [question(f"q{number}", None, **shared), answer(f"a{number}", f"q{number}", **shared)]
        )


async def compare(
    settings: Settings, *, repair: bool = False, back: timedelta = timedelta(hours=1)
) -> Comparison:
    request = Request(since=datetime.now(UTC) - back)
    async with open_reconciliation(settings) as (reconciliation, now):
        comparison = await reconciliation.compare(request, now)
        if repair:
            await reconciliation.repair(comparison.missing)
    return comparison


def names(found: Any) -> list[tuple[str, int]]:
    return sorted((each.message_id, each.copies) for each in found)


async def test_what_is_all_there_has_no_difference(databases: Databases, fake: FakeLangfuse) -> None:
    async with running(databases, fake) as run:
        await store_turns(databases, 1, 2, 3)
        await run.until_done()
    comparison = await compare(settings_for(databases, fake, **AT_ONCE))

    assert (comparison.expected, comparison.missing, comparison.doubled) == (3, [], [])


async def test_a_trace_that_is_gone_and_one_that_is_doubled_are_named(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run:
        await store_turns(databases, 1, 2, 3)
        await run.until_done()
    # What a tracer does that sends again without looking first.
    again = [stored.span for stored in fake.trace(turn_trace_id("a3"))]
    fake.state.spans.add(again, received_at=time.time(), wire_bytes=0, body_bytes=0)
    fake.state.spans.delete_traces([turn_trace_id("a1")])
    comparison = await compare(settings_for(databases, fake, **AT_ONCE))

    assert names(comparison.missing) == [("a1", 0)]
    assert names(comparison.doubled) == [("a3", 2)]
    assert comparison.missing[0].sent_at is not None


async def test_what_the_settings_leave_out_is_not_missed(databases: Databases, fake: FakeLangfuse) -> None:
    async with running(databases, fake) as run:
        await store_turns(databases, 1)
        await store_turns(databases, 2, isTemporary=True)
        await store_turns(databases, 3, createdAt=datetime(2025, 1, 1, tzinfo=UTC))
        await run.until_done()
    comparison = await compare(settings_for(databases, fake, **AT_ONCE))

    assert (comparison.expected, comparison.missing) == (1, [])
    assert comparison.left_out["temporary"] == 1
    assert comparison.left_out["copied"] == 1


async def test_a_turn_that_was_sent_lately_may_not_be_visible_yet(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run:
        await store_turns(databases, 1)
        await run.until_done()
    fake.state.spans.delete_traces([turn_trace_id("a1")])
    comparison = await compare(settings_for(databases, fake, lookup_time=timedelta(minutes=1)))

    assert (comparison.recent, comparison.missing) == (1, [])


async def test_what_is_older_than_what_langfuse_shows_is_neither_missing_nor_sent_again(
    databases: Databases, fake: FakeLangfuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cloud shows the last 30 days on the plan Hobby."""
    monkeypatch.setattr(destinations, "shortest_sight", lambda host: timedelta(days=29))  # noqa: ARG005 - of every host
    fake.state.shown_back_seconds = timedelta(days=30).total_seconds()
    long_ago = datetime.now(UTC) - timedelta(days=40)
    async with running(databases, fake) as run:
        await store_turns(databases, 1)
        for number in (2, 3):
            dated: dict[str, Any] = {
                "conversationId": f"c{number}",
                "createdAt": long_ago,
                "updatedAt": long_ago,
            }
            rows = [question(f"q{number}", None, **dated), answer(f"a{number}", f"q{number}", **dated)]
            for place, row in enumerate(rows):
                row["_id"] = ObjectId(f"{round(long_ago.timestamp()):08x}{2 * number + place:016x}")
            await databases.source["messages"].insert_many(rows)
        await run.until_done()
        found = await compare(settings_for(databases, fake, **AT_ONCE), repair=True, back=timedelta(days=60))
        await run.until_done()

    assert (found.expected, found.out_of_sight, found.missing) == (3, 2, [])
    assert len(fake.trace_ids()) == 3
    assert fake.duplicates() == []


async def test_a_repair_sends_what_is_missing_and_nothing_else(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """A turn that was never sent, and one that Langfuse lost."""
    await store_turns(databases, 1)
    async with running(databases, fake) as run:
        await store_turns(databases, 2, 3)
        await run.until_done()
        fake.state.spans.delete_traces([turn_trace_id("a2")])
        settings = settings_for(databases, fake, **AT_ONCE)
        found = await compare(settings, repair=True)
        async with open_letters(settings) as desk:
            followed = await desk.follow(await desk.list_letters(), timedelta(seconds=20))
        after = await compare(settings)

    assert names(found.missing) == [("a1", 0), ("a2", 0)]
    assert (followed.waiting, followed.kept) == (0, [])
    assert (after.expected, after.missing, after.doubled) == (3, [], [])
    assert fake.duplicates() == []


async def test_hundreds_of_turns_are_asked_for_in_a_few_reads(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Langfuse Cloud counts reads by the minute, and one that is refused is asked again when it says so."""
    await store_turns(databases, *range(250))
    fake.faults.add(answer_with(429, route=Route.OBSERVATIONS, retry_after="0.2"))
    comparison = await compare(settings_for(databases, fake, **AT_ONCE))

    assert (comparison.expected, len(comparison.missing)) == (250, 250)
    assert fake.requests[Route.OBSERVATIONS, "200"] == 2


async def test_a_langfuse_that_cannot_be_read_is_an_error_and_no_finding(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run:
        await store_turns(databases, 1)
        await run.until_done()
    fake.faults.add(answer_with(403, route=Route.OBSERVATIONS, times=None))

    with pytest.raises(DestinationError, match="http_403"):
        await compare(settings_for(databases, fake, **AT_ONCE))


async def test_a_file_is_nothing_to_compare_with(databases: Databases, tmp_path: Any) -> None:
    with pytest.raises(RequestRefused, match="TAILER_SINK=file"):
        await compare(settings_for(databases, None, file_path=tmp_path / "traces.jsonl"))
