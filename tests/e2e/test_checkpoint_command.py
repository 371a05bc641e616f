"""`tailer checkpoint` beside a running daemon: what it shows, what it says before it changes anything, what follows."""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailer.demo.stage.player import play
from tests.e2e.daemon import langfuse_settings, run_to_end, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import Traffic, place
from tests.fakes.langfuse import FakeLangfuse

SETTINGS = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_LOOKUP_SECONDS": "1",
}
REFUSED, WRONG = 1, 2


async def ask(settings: Mapping[str, str], directory: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one `tailer checkpoint`."""
    code, process = await run_to_end(settings, directory=directory, arguments=("checkpoint", *words))
    return code, "".join(process.text), "".join(process.errors)


def traffic_of(number: int) -> Traffic:
    return place("01-single-turn", datetime.now(UTC), salt=str(number))


def expected_of(*played: Traffic) -> set[str]:
    return {turn.trace_id for traffic in played for turn in traffic.turns()} | {
        title for traffic in played for title in traffic.titles()
    }


async def pass_stored_second(databases: Databases) -> None:
    """Return in a later second than those of the stored positions, in which what follows is written."""
    positions = await databases.positions()
    stored = max(stored.position.cluster_seconds for stored in positions.values())
    await asyncio.sleep(max(0.0, stored + 1 - time.time()))


async def server_time(databases: Databases) -> str:
    """The server's time, as `--time` takes it."""
    return datetime.fromtimestamp((await databases.last_write()).time, UTC).isoformat()


async def test_a_running_daemon_goes_on_from_a_position_that_was_set_and_sends_nothing_twice(
    databases: Databases, tmp_path: Path
) -> None:
    """It loses the lease, stands by while the position is written, and takes the next epoch at once."""
    before, after = traffic_of(1), traffic_of(2)
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        began = await server_time(databases)
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(before.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)

            code, said, errors = await ask(settings, tmp_path, "set", "--time", began, "--yes")
            assert (code, errors) == (0, "")
            await daemon.wait_for(lambda: len(daemon.lines("started")) == 2, what="second start")
            await play(after.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)
            daemon.terminate()
            assert await daemon.exit_code() == 0

        rows = len({row["_id"] async for row in databases.source["messages"].find({}, {"_id": 1})})
        assert f"read again: {began.replace('+00:00', 'Z')} to " in said
        assert f"some {rows // 2} rows made then; what was sent before is known" in said
        assert daemon.lines("started")[1]["resumes_from"] == f"the checkpoint of {began}"
        assert [line["epoch"] for line in daemon.lines("lease_taken")] == [1, 3]
        assert [line["epoch"] for line in daemon.lines("leadership_lost")] == [1]
        assert set(fake.trace_ids()) == expected_of(before, after)
        assert fake.duplicates() == []
        assert daemon.errors == []


async def test_a_reset_skips_what_was_written_meanwhile_and_says_so(
    databases: Databases, tmp_path: Path
) -> None:
    """The next start is a first one."""
    before, missed, after = traffic_of(1), traffic_of(2), traffic_of(3)
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(before.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)
            daemon.terminate()
            assert await daemon.exit_code() == 0
        await pass_stored_second(databases)
        await play(missed.recording, databases.source, speed=None)
        code, said, errors = await ask(settings, tmp_path, "reset", "--yes")
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(after.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)

        assert (code, errors) == (0, "")
        assert said.count("could be lost: ") == 2
        assert daemon.lines("started")[0]["resumes_from"] == "now (first start)"
        assert set(fake.trace_ids()) == expected_of(before, after)


async def test_a_reset_beside_a_running_daemon_begins_now_and_not_when_its_process_began(
    databases: Databases, tmp_path: Path
) -> None:
    """Without their records the turns of before would be sent again if the stream told of them again."""
    before, after = traffic_of(1), traffic_of(2)
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(before.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)
            await databases.state["exports"].delete_many({})
            code, _, errors = await ask(settings, tmp_path, "reset", "--yes")
            assert (code, errors) == (0, "")
            await daemon.wait_for(lambda: len(daemon.lines("started")) == 2, what="second start")
            await daemon.wait_until_ready()
            await play(after.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)

        assert daemon.lines("started")[1]["resumes_from"] == "now (first start)"
        assert set(fake.trace_ids()) == expected_of(before, after)
        assert fake.duplicates() == []


async def test_a_start_after_a_reset_sends_what_the_settings_say_as_the_first_one_did(
    databases: Databases, tmp_path: Path
) -> None:
    """The backfill of the first start is done; the one after the reset is another."""
    stored, missed = traffic_of(1), traffic_of(2)
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "TAILER_START": "all",
        }
        await play(stored.recording, databases.source, speed=None)
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_for_line("backfill_done")
            daemon.terminate()
            assert await daemon.exit_code() == 0
        await play(missed.recording, databases.source, speed=None)
        await ask(settings, tmp_path, "reset", "--yes")
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_for_line("backfill_done")
            await databases.wait_until_done(daemon.must_run)

        turns = {turn.trace_id for traffic in (stored, missed) for turn in traffic.turns()}
        assert turns <= set(fake.trace_ids())
        assert fake.duplicates() == []


async def test_show_tells_where_each_stream_stands(databases: Databases, tmp_path: Path) -> None:
    """Before the first start too; the same for people and for programs."""
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        _, nothing, _ = await ask(settings, tmp_path, "show")
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            code, shown, _ = await ask(settings, tmp_path, "show")
            _, document, _ = await ask(settings, tmp_path, "show", "--json")

    assert "no checkpoint is stored" in nothing
    assert code == 0
    heading, conversations, messages, *_ = shown.splitlines()
    assert heading.split() == ["stream", "position", "age", "resumable", "epoch", "destination"]
    assert conversations.split()[0] == "conversations"
    assert messages.split()[3:] == ["yes", "1", fake.url]
    survey = json.loads(document)
    assert [(found["stream"], found["resumable"], found["epoch"]) for found in survey["streams"]] == [
        ("conversations", True, 1),
        ("messages", True, 1),
    ]
    assert survey["pending"] == {"batches": 0, "parked": 0, "dead_letters": 0, "gaps": 0, "owed": {}}
    assert survey["lease"]["released"] is False


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("set", "--time", "2999-01-01T00:00:00Z", "--yes"), REFUSED, "in the future"),
        (("set", "--time", "2026-01-01T00:00:00"), WRONG, "Add Z"),
        (("set", "--time", "yesterday"), WRONG, "2026-01-31T08:00:00Z"),
        (("reset",), WRONG, "--yes"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_the_remedy_and_changes_nothing(
    words: tuple[str, ...], code: int, says: str, databases: Databases, tmp_path: Path
) -> None:
    """Without a terminal nobody can answer a question, so consent must come with the command."""
    settings = {**databases.settings, "TAILER_FILE_PATH": "traces.jsonl"}
    found, _, errors = await ask(settings, tmp_path, *words)

    assert found == code, errors
    assert says in errors
    assert await databases.state.list_collection_names() == []
