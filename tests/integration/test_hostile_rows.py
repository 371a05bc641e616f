"""Rows that a malicious chat user left: stored by a real server, told of by its stream, and worked off like any other.

`python -m tests.fuzz` does the same without servers for a hundred thousand.
"""

from collections.abc import AsyncIterator
from random import Random

import bson
import pytest
from pymongo.errors import PyMongoError

from tailer.core.identity import turn_trace_id
from tailer.events import StreamFailed, TurnFailed
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse
from tests.fuzz.rows import make_rows
from tests.integration.running import running
from tests.rows import answer, question

PAIRS = 150


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        # A row without an owner has none in its trace either.
        assert [item for item in server.violations if "user.id" not in str(item)] == []
        assert server.duplicates() == []


@pytest.mark.parametrize("seed", ["1", "2"])
async def test_no_hostile_row_stops_the_stream_or_breaks_the_code(
    databases: Databases, fake: FakeLangfuse, seed: str
) -> None:
    """Everything that the server itself takes is worked off, and the honest turn after it arrives."""
    dice = Random(seed)
    stored = 0
    async with running(databases, fake) as run:
        for _ in range(PAIRS):
            for row in make_rows(dice, largest=2_000):
                if len(bson.encode(row)) < 2_000_000:
                    stored += await _store(databases, row)
        honest = [question("q", None, conversationId="honest"), answer("a", "q", conversationId="honest")]
        await databases.source["messages"].insert_many(honest)
        await run.until_done(seconds=60)
        failed, broken = run.events.of(TurnFailed), run.events.of(StreamFailed)

    assert stored > PAIRS
    assert (failed, broken) == ([], [])
    assert turn_trace_id("a") in fake.trace_ids()
    assert len(fake.trace_ids()) > PAIRS / 5


async def test_a_row_that_is_no_message_is_told_apart_from_one_that_was_deleted(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """One has no `messageId`; the other is gone before it is read."""
    async with running(databases, fake):
        pass
    unreadable, gone = answer("a1", "q1"), answer("a2", "q1")
    await databases.source["messages"].insert_many([{**unreadable, "messageId": 7}, gone])
    await databases.source["messages"].delete_one({"_id": gone["_id"]})
    async with running(databases, fake) as run:
        await run.until_done()
        outcomes = run.outcomes()

    assert sorted(outcomes) == ["deleted", "deletion_kept", "unreadable"]
    assert fake.trace_ids() == []


async def _store(databases: Databases, row: dict[str, object]) -> int:
    try:
        await databases.source["messages"].insert_one(row)
    except PyMongoError:
        # The server has rules of its own for names and ids.
        return 0
    return 1
