"""`tailer backfill` as a user types it: without a daemon, beside one, killed in the middle, and only to look."""

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bson import ObjectId

from tailer.core.identity import turn_trace_id
from tests.e2e.daemon import langfuse_settings, run_to_end, start
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse

SETTINGS = {"TAILER_SETTLE_SECONDS": "0.2", "TAILER_CHECKPOINT_SECONDS": "0.2", "TAILER_LEASE_SECONDS": "1"}
TURNS = 12


async def store_history(databases: Databases, turns: int = TURNS) -> set[str]:
    """Turns of the last hours, which no stream of a new daemon tells of; their trace ids."""
    rows: list[dict[str, Any]] = []
    for number in range(turns):
        moment = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=turns + 60 - number)
        for message_id, parent, by_user in ((f"q{number}", None, True), (f"a{number}", f"q{number}", False)):
            key = ObjectId(int(moment.timestamp()).to_bytes(4, "big") + ObjectId().binary[4:])
            rows.append(
                {
                    "_id": key,
                    "messageId": message_id,
                    "conversationId": f"c{number}",
                    "parentMessageId": parent,
                    "user": "6" * 24,
                    "isCreatedByUser": by_user,
                    "text": f"text of {message_id}",
                    "createdAt": moment,
                    "updatedAt": moment,
                }
            )
    await databases.source["messages"].insert_many(rows)
    return {turn_trace_id(f"a{number}") for number in range(turns)}


def settings_of(databases: Databases, fake: FakeLangfuse, **changed: str) -> dict[str, str]:
    return {**databases.settings, **SETTINGS, **langfuse_settings(fake.url), **changed}


async def test_without_a_daemon_the_command_sends_the_history_itself(
    databases: Databases, tmp_path: Path
) -> None:
    async with FakeLangfuse() as fake:
        expected = await store_history(databases)
        code, run = await run_to_end(
            settings_of(databases, fake), directory=tmp_path, arguments=("backfill",)
        )
        sent, duplicates = set(fake.trace_ids()), fake.duplicates()

    assert (code, sent, duplicates) == (0, expected, []), run.output
    assert "no tailer is running: it is done here" in run.output
    assert f"done: {2 * TURNS} rows walked, {TURNS} turns sent, 0 sent before" in run.output
    assert "\x1b" not in run.output


async def test_beside_a_daemon_the_command_shows_what_that_one_does(
    databases: Databases, tmp_path: Path
) -> None:
    async with FakeLangfuse() as fake:
        settings = settings_of(databases, fake)
        expected = await store_history(databases)
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            code, run = await run_to_end(settings, directory=tmp_path, arguments=("backfill", "--json"))
            await daemon.wait_for_line("backfill_done")
            again, second = await run_to_end(settings, directory=tmp_path, arguments=("backfill",))
            daemon.terminate()
            assert await daemon.exit_code() == 0
        sent, duplicates = set(fake.trace_ids()), fake.duplicates()

    assert (code, again, sent, duplicates) == (0, 0, expected, [])
    told = json.loads("".join(run.text))
    assert (told["is_done"], told["sent"], told["rows"]) == (True, TURNS, 2 * TURNS)
    assert f"0 turns sent, {TURNS} sent before" in second.output


async def test_a_killed_backfill_goes_on_when_it_is_asked_for_again(
    databases: Databases, tmp_path: Path
) -> None:
    """What was sent before the kill is not sent again."""
    async with FakeLangfuse() as fake:
        expected = await store_history(databases, 150)
        slow = settings_of(databases, fake, TAILER_BACKFILL_RATE="40")
        async with start(slow, directory=tmp_path, arguments=("backfill",)) as run:
            while not fake.trace_ids():
                run.must_run()
                await databases.last_write()
            await run.kill()
        before = len(fake.trace_ids())
        code, again = await run_to_end(
            settings_of(databases, fake), directory=tmp_path, arguments=("backfill",)
        )
        sent, duplicates = set(fake.trace_ids()), fake.duplicates()

    assert 0 < before <= 150
    assert (code, sent, duplicates) == (0, expected, []), again.output


async def test_an_interrupted_backfill_says_that_it_is_not_done(databases: Databases, tmp_path: Path) -> None:
    async with FakeLangfuse() as fake:
        await store_history(databases, 500)
        slow = settings_of(databases, fake, TAILER_BACKFILL_RATE="20")
        async with start(slow, directory=tmp_path, arguments=("backfill",)) as run:
            while not fake.trace_ids():
                run.must_run()
                await databases.last_write()
            run.process.send_signal(signal.SIGINT)
            code = await run.exit_code()

    assert code == 1, run.output
    assert "stopped; asked again it goes on from here" in run.output


async def test_a_dry_run_counts_and_leaves_no_trace(databases: Databases, tmp_path: Path) -> None:
    async with FakeLangfuse() as fake:
        await store_history(databases)
        settings = settings_of(databases, fake)
        code, run = await run_to_end(settings, directory=tmp_path, arguments=("backfill", "--dry-run"))
        sent = fake.trace_ids()

    assert (code, sent) == (0, [])
    assert f"{2 * TURNS} rows, {TURNS} responses among them" in run.output
    assert await databases.state["backfills"].count_documents({}) == 0


async def test_a_first_start_with_everything_sends_the_history(databases: Databases, tmp_path: Path) -> None:
    async with FakeLangfuse() as fake:
        expected = await store_history(databases)
        settings = settings_of(databases, fake, TAILER_START="all")
        async with start(settings, directory=tmp_path) as daemon:
            done = await daemon.wait_for_line("backfill_done")
            metrics = await daemon.metrics()
            daemon.terminate()
            assert await daemon.exit_code() == 0
        sent, duplicates = set(fake.trace_ids()), fake.duplicates()

    assert (sent, duplicates) == (expected, [])
    assert done["sent"] == TURNS
    assert metrics.value("tailer_backfill_documents_total") == 2 * TURNS
    assert metrics.value("tailer_stream_gaps_unfilled") == 0


async def test_sigterm_while_backfilling_ends_in_order_and_the_next_start_goes_on(
    databases: Databases, tmp_path: Path
) -> None:
    async with FakeLangfuse() as fake:
        expected = await store_history(databases, 250)
        settings = settings_of(databases, fake, TAILER_START="all", TAILER_BACKFILL_RATE="60")
        async with start(settings, directory=tmp_path) as daemon:
            while not fake.trace_ids():
                daemon.must_run()
                await databases.last_write()
            daemon.terminate()
            assert await daemon.exit_code() == 0
            assert not daemon.lines("backfill_done")
        sent_by_then = len(fake.trace_ids())
        async with start({**settings, "TAILER_BACKFILL_RATE": "10000"}, directory=tmp_path) as daemon:
            await daemon.wait_for_line("backfill_done")
            daemon.terminate()
            assert await daemon.exit_code() == 0
        sent, duplicates = set(fake.trace_ids()), fake.duplicates()

    assert 0 < sent_by_then < 250
    assert (sent, duplicates) == (expected, [])
