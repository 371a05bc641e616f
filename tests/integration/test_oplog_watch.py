"""What is asked of MongoDB now and then: how far the oplog reaches, and how the clocks stand."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from bson import ObjectId

from tailer.events import ClockCompared, LibreChatClockCompared, OplogSeen
from tailer.mongo.connection import Database, connect, tolerant_database
from tailer.mongo.oplog import OplogWatch
from tests.e2e.databases import Databases
from tests.evidence import Events


@pytest.fixture
async def source(databases: Databases) -> AsyncIterator[Database]:
    client = connect(databases.uri, application="test", socket_milliseconds=5_000)
    yield tolerant_database(client, databases.source.name)
    client.close()


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is not UTC."""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def test_one_machine_has_one_clock_wherever_it_is(source: Database, far_away: None) -> None:
    del far_away
    events = Events()
    await OplogWatch(source, events).look()

    assert abs(events.of(ClockCompared)[0].ahead_seconds) < 1


async def test_the_oplog_reaches_from_its_first_entry_to_the_last_write(
    source: Database, databases: Databases
) -> None:
    await databases.source["anything"].insert_one({})
    written, events = await databases.last_write(), Events()
    await OplogWatch(source, events).look()
    seen = events.of(OplogSeen)[0]

    assert seen.first_seconds <= written.time <= seen.last_seconds


@pytest.mark.parametrize("ahead", [-300, 0, 300])
async def test_librechats_clock_is_read_from_its_last_rows(
    source: Database, databases: Databases, ahead: int
) -> None:
    """Copies, imports and rows of yesterday say nothing of it."""
    now = datetime.now(UTC)
    shifted = now + timedelta(seconds=ahead)
    await databases.source["messages"].insert_many(
        [
            {"_id": ObjectId(), "messageId": "genuine", "createdAt": shifted},
            {"_id": ObjectId(), "messageId": "copy", "createdAt": shifted - timedelta(days=30)},
            {"_id": ObjectId(), "messageId": "timeless"},
            {"_id": ObjectId.from_datetime(now - timedelta(days=1)), "messageId": "old", "createdAt": now},
        ]
    )
    events = Events()
    await OplogWatch(source, events).look()

    (compared,) = events.of(LibreChatClockCompared)
    assert abs(compared.ahead_seconds - ahead) <= 1.5


async def test_a_server_that_is_away_is_no_failure() -> None:
    """The streams tell of that."""
    client = connect("mongodb://127.0.0.1:1", application="test", socket_milliseconds=500)
    events = Events()
    await OplogWatch(tolerant_database(client, "LibreChat"), events).look()
    client.close()

    assert events.of(ClockCompared) == []
