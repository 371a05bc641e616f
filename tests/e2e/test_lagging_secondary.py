"""A URI that prefers a secondary, and a secondary that lags: every turn arrives all the same."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from tailer.core.identity import turn_trace_id
from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import langfuse_settings, start
from tests.e2e.databases import Databases, open_databases
from tests.fakes.langfuse import FakeLangfuse
from tests.rows import answer, question

SETTINGS = {"TAILER_SETTLE_SECONDS": "0.2", "TAILER_CHECKPOINT_SECONDS": "0.2", "TAILER_LOOKUP_SECONDS": "1"}


@pytest.fixture
async def pair() -> AsyncIterator[Databases]:
    """Databases on a set of two, of which one neither votes nor can be elected."""
    async with ReplicaSet(size=2) as running, open_databases(running) as databases:
        admin = databases.source.client.admin
        config = (await admin.command("replSetGetConfig"))["config"]
        primary = (await running.primary()).address
        for member in config["members"]:
            if member["host"] != primary:
                member |= {"votes": 0, "priority": 0}
        config["version"] += 1
        await admin.command("replSetReconfig", config)
        (secondary,) = await running.secondaries()
        client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(secondary.uri)
        await client.admin.command({"fsync": 1, "lock": True})
        try:
            yield databases
        finally:
            await client.admin.command("fsyncUnlock")
            client.close()


@pytest.mark.parametrize("preference", ["secondaryPreferred", "secondary", "nearest"])
async def test_a_row_that_a_lagging_node_does_not_show_is_not_taken_for_deleted(
    pair: Databases, tmp_path: Path, preference: str
) -> None:
    """Rows, lease and positions are read from the primary; the secondary stands still for the whole test."""
    async with FakeLangfuse() as fake:
        settings = {
            **pair.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "TAILER_MONGO_URI": f"{pair.uri}&readPreference={preference}",
        }
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            for number in range(3):
                asked = question(f"q{number}", None, conversationId=f"c{number}")
                answered = answer(f"a{number}", f"q{number}", conversationId=f"c{number}")
                await pair.source["messages"].insert_many([asked, answered])
            await pair.wait_until_done(daemon.must_run)
            metrics = await daemon.metrics()
            daemon.terminate()
            assert await daemon.exit_code() == 0

    assert set(fake.trace_ids()) == {turn_trace_id(f"a{number}") for number in range(3)}
    assert fake.duplicates() == []
    assert not metrics.series.get(("tailer_pairs_total", frozenset({("outcome", "deleted")})))
    assert [line["warning"].split()[0] for line in daemon.lines("setting_doubted")] == [
        f"readPreference={preference}"
    ]
