"""How a start ends when something is wrong, what it says when nothing is, and what the settings of content do."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from tailer.core.identity import turn_trace_id
from tailer.demo.stage.player import play
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import Daemon, langfuse_settings, run_to_end, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import Traffic, place
from tests.fakes.langfuse import FakeLangfuse, Route, html_page
from tests.rows import answer, question

SETTINGS = {"TAILER_SETTLE_SECONDS": "0.2", "TAILER_CHECKPOINT_SECONDS": "0.2", "TAILER_PARK_SECONDS": "1"}
SECRET = "sk-lf-this-must-never-be-shown"
PASSWORD = "hunter2-never-shown"


@contextmanager
def free_port() -> Iterator[int]:
    """A port that nobody listens on while the block lasts: it is bound and not opened."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def expect_refusal(settings: Mapping[str, str], directory: Path, *, code: int, says: list[str]) -> None:
    """The start fails with one error on stderr: what, on what, the remedy; and shows neither secret nor traceback."""
    exit_code, daemon = await run_to_end(settings, directory=directory)

    errors = "".join(daemon.errors)
    assert exit_code == code, daemon.output
    assert errors.count("tailer: ") == 1
    assert errors.count("  remedy: ") == 1
    for part in says:
        assert part in errors
    assert "Traceback" not in daemon.output
    assert SECRET not in daemon.output
    assert PASSWORD not in daemon.output
    assert daemon.lines("started") == []
    assert daemon.lines("task_failed") == []
    (failed,) = daemon.lines("daemon_failed")
    assert (failed["level"], failed["exit_code"]) == ("error", code)
    assert failed["hint"].splitlines()[0] in errors


async def test_wrong_keys_are_told_at_once(databases: Databases, tmp_path: Path) -> None:
    """Exit 4, with the names of the settings and the advice about regions."""
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **langfuse_settings(fake.url), "LANGFUSE_SECRET_KEY": SECRET}
        says = [fake.url, "the keys are not accepted", "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"]
        await expect_refusal(settings, tmp_path, code=4, says=says)

        assert fake.requests == {(Route.PROJECTS, "401"): 1}


async def test_a_host_where_nobody_listens_is_told_at_once(databases: Databases, tmp_path: Path) -> None:
    """Exit 4 on a first start: an address that never answered is a wrong one."""
    with free_port() as port:
        url = f"http://127.0.0.1:{port}"
        settings = {**databases.settings, **langfuse_settings(url), "LANGFUSE_SECRET_KEY": SECRET}
        await expect_refusal(settings, tmp_path, code=4, says=[url, "check LANGFUSE_HOST"])


async def test_a_host_that_is_not_langfuse_is_told_at_once(databases: Databases, tmp_path: Path) -> None:
    """Exit 4 when a web page answers instead."""
    async with FakeLangfuse() as fake:
        fake.faults.add(html_page(404, route=Route.PROJECTS, times=None))
        settings = {**databases.settings, **langfuse_settings(fake.url)}
        says = [fake.url, "HTTP 404", "not like a Langfuse server", "set LANGFUSE_HOST"]
        await expect_refusal(settings, tmp_path, code=4, says=says)


async def test_a_standalone_mongodb_is_told_with_the_commands_that_mend_it(tmp_path: Path) -> None:
    """Exit 3: LibreChat's own compose file starts MongoDB without a replica set."""
    async with ReplicaSet(standalone=True) as server:
        settings = {"TAILER_MONGO_URI": server.uri_of("LibreChat"), "TAILER_FILE_PATH": "turns.jsonl"}
        says = ["127.0.0.1:", "replica set", "--replSet rs0", "rs.initiate("]
        await expect_refusal(settings, tmp_path, code=3, says=says)


async def test_a_wrong_password_of_mongodb_is_told_and_not_shown(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """Exit 3, with the setting to correct."""
    uri = replica_set.uri_of("LibreChat").replace("mongodb://", f"mongodb://tailer:{PASSWORD}@")
    settings = {"TAILER_MONGO_URI": uri, "TAILER_FILE_PATH": "turns.jsonl"}
    await expect_refusal(settings, tmp_path, code=3, says=["user or password", "TAILER_MONGO_URI"])


async def test_a_second_librechat_on_the_state_of_the_first_is_refused(
    databases: Databases, tmp_path: Path
) -> None:
    """Exit 5, while the first one runs and when it does not; it would stand by for ever otherwise."""
    settings = {**databases.settings, "TAILER_FILE_PATH": "turns.jsonl"}
    other = {**settings, "TAILER_MONGO_URI": databases.uri.replace("/LibreChat-", "/Staging-")}
    says = [databases.source.name, "Staging-", "TAILER_STATE_DATABASE of its own"]
    async with start(settings, directory=tmp_path) as daemon:
        await daemon.wait_until_ready()
        await expect_refusal(other, tmp_path, code=5, says=says)
    await expect_refusal(other, tmp_path, code=5, says=says)


async def test_a_view_in_the_place_of_a_collection_ends_the_start_and_fails_the_doctor(
    databases: Databases, tmp_path: Path
) -> None:
    """Exit 3, with what to name instead."""
    await databases.source.command({"create": "messages", "viewOn": "others", "pipeline": []})
    settings = {**databases.settings, "TAILER_FILE_PATH": "turns.jsonl"}
    exit_code, daemon = await run_to_end(settings, directory=tmp_path)
    assert exit_code == 3, daemon.output
    assert "is a view" in "".join(daemon.errors)
    assert "Traceback" not in daemon.output
    code, told = await run_to_end(settings, directory=tmp_path, arguments=("doctor", "--json"))
    found = {finding["check"]: finding for finding in json.loads("".join(told.text))["findings"]}

    assert code == 1
    assert found["stream messages"]["verdict"] == "FAIL"
    assert "is a view" in found["stream messages"]["remedy"]


async def test_an_instance_that_ends_with_an_error_gives_the_lease_up(
    databases: Databases, tmp_path: Path
) -> None:
    """Another one, which may fare better, does not wait until it has run out."""
    await databases.source.command({"create": "messages", "viewOn": "others", "pipeline": []})
    settings = {**databases.settings, "TAILER_FILE_PATH": "turns.jsonl"}
    exit_code, _ = await run_to_end(settings, directory=tmp_path)

    assert exit_code == 3
    lease = await databases.state["lease"].find_one({"_id": "writer"})
    assert lease is not None
    assert lease["released"] is True


async def test_a_server_that_lacks_what_is_needed_ends_the_first_start_with_a_remedy(tmp_path: Path) -> None:
    """Exit 3, as on services that only speak MongoDB's protocol; doctor and start say the same."""
    faults = [
        ("aggregate", 40324, "change streams as the tailer needs them"),
        ("aggregate", 8000, "dedicated cluster"),
        ("find", 168, "code_168"),
        ("find", 13, "grant find and changeStream"),
        ("find", 123_456, "code_123456"),
    ]
    async with ReplicaSet(mongod_arguments=["--setParameter", "enableTestCommands=1"]) as server:
        settings = {"TAILER_MONGO_URI": server.uri_of("LibreChat"), "TAILER_FILE_PATH": "turns.jsonl"}
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.uri)
        for command, code, says in faults:
            data = {
                "failCommands": [command],
                "errorCode": code,
                "appName": "librechat-tailer",
                "namespace": "LibreChat.messages",
            }
            await client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
            exit_code, daemon = await run_to_end(settings, directory=tmp_path)
            assert exit_code == 3, daemon.output
            assert says in "".join(daemon.errors)
            assert "Traceback" not in daemon.output
        client.close()


async def test_missing_settings_are_told_all_at_once(tmp_path: Path) -> None:
    """Exit 2, before anything is connected."""
    settings = {"LANGFUSE_SECRET_KEY": SECRET, "TAILER_SETTLE_SECONDS": "soon"}
    says = ["TAILER_MONGO_URI is not set", "LANGFUSE_PUBLIC_KEY", "TAILER_SETTLE_SECONDS"]
    await expect_refusal(settings, tmp_path, code=2, says=says)


async def test_a_port_in_use_is_told_with_the_setting(databases: Databases, tmp_path: Path) -> None:
    """Exit 2, and nothing is written to the state database."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {
            **databases.settings,
            "TAILER_HTTP_PORT": str(port),
            "TAILER_FILE_PATH": "turns.jsonl",
        }
        says = [f"127.0.0.1:{port}", "choose another TAILER_HTTP_PORT"]
        await expect_refusal(settings, tmp_path, code=2, says=says)

    assert await databases.state.list_collection_names() == []


async def test_a_file_that_cannot_be_written_is_told_with_the_setting(
    databases: Databases, tmp_path: Path
) -> None:
    """Exit 4, because the file is the destination."""
    settings = {**databases.settings, "TAILER_FILE_PATH": str(tmp_path)}
    await expect_refusal(settings, tmp_path, code=4, says=[str(tmp_path), "set TAILER_FILE_PATH"])


async def test_a_start_says_what_it_watches_where_it_writes_and_from_where_it_goes_on(
    databases: Databases, tmp_path: Path
) -> None:
    """First from now, then from the checkpoint; the keys are proven before anything is read."""
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        first = await run_until_ready(settings, tmp_path)
        second = await run_until_ready(settings, tmp_path)

    started = first.lines("started")[0]
    assert started["watches"].startswith(f"{databases.source.name} on 127.0.0.1:")
    assert "replica set rs0" in started["watches"]
    assert started["writes_to"] == fake.url
    assert started["state_database"] == databases.state.name
    assert started["resumes_from"] == "now (first start)"
    assert second.lines("started")[0]["resumes_from"].startswith("the checkpoint of 20")
    for run in (first, second):
        events = [line["event"] for line in run.log]
        assert events.count("Langfuse initialized successfully") == 1
        assert events.index("Langfuse initialized successfully") < events.index("started")
        assert events.index("started") < events.index("stream_opened")
        assert run.errors == []
    assert [line["resumed_from_seconds"] for line in first.lines("stream_opened")] == [None, None]
    assert None not in [line["resumed_from_seconds"] for line in second.lines("stream_opened")]


async def run_until_ready(settings: Mapping[str, str], directory: Path) -> Daemon:
    """A run that is ended as soon as it is ready."""
    async with start(settings, directory=directory) as daemon:
        await daemon.wait_until_ready()
        daemon.terminate()
        assert await daemon.exit_code() == 0
    return daemon


async def test_the_log_tells_that_it_works(databases: Databases, tmp_path: Path) -> None:
    """One line for the first turn that arrived, and the totals at the end at the latest."""
    # Played at once, turns of this moment would end after they have arrived.
    traffic = place("02-multi-turn", datetime.now(UTC) - timedelta(minutes=1))
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            first = await daemon.wait_for_line("first_turn_sent")
            await databases.wait_until_done(daemon.must_run)
            daemon.terminate()
            assert await daemon.exit_code() == 0

        assert first["writes_to"] == fake.url
        assert first["latency_seconds"] > 0
        assert len(daemon.lines("first_turn_sent")) == 1
        (total,) = daemon.lines("turns_sent")
        assert total["traces"] == total["traces_since_start"] == len(fake.trace_ids())
        assert (total["left_out"], total["dead_letters"]) == (0, 0)


async def test_with_sending_disabled_it_runs_and_sends_nothing(databases: Databases, tmp_path: Path) -> None:
    """Not even a request; the position moves on, so that nothing old is sent when it is enabled again."""
    traffic = place("02-multi-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start({**settings, "LANGFUSE_ENABLED": "false"}, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            assert len(daemon.lines("sending_disabled")) == 1
            await play(traffic.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)
            metrics = await daemon.metrics()
            daemon.terminate()
            assert await daemon.exit_code() == 0
        assert fake.requests == {}
        assert metrics.value("tailer_pairs_total", outcome="sending_disabled") >= 3

        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await databases.wait_until_done(daemon.must_run)
        assert fake.trace_ids() == []


async def test_a_sample_holds_whole_conversations_and_the_same_ones_after_a_restart(
    databases: Databases, tmp_path: Path
) -> None:
    """Half of the conversations; a turn after the restart follows the ones before it, or none of them came."""
    now = datetime.now(UTC)
    traffic = [place("02-multi-turn", now, salt=f"{number}") for number in range(8)]
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "LANGFUSE_SAMPLE_RATE": "0.5",
        }
        chosen: list[set[str]] = []
        for half in (0, 1):
            async with start(settings, directory=tmp_path) as daemon:
                await daemon.wait_until_ready()
                for each in traffic:
                    await play_half(each, databases, half)
                await databases.wait_until_done(daemon.must_run)
                daemon.terminate()
                assert await daemon.exit_code() == 0
            chosen.append({span.session_id for span in fake.spans})

        assert 0 < len(chosen[0]) < len(traffic)
        assert chosen[0] == chosen[1]
        sampled = [each for each in traffic if each.conversations <= chosen[0]]
        expected = {turn.trace_id for each in sampled for turn in each.turns()}
        expected |= {title for each in sampled for title in each.titles()}
        assert set(fake.trace_ids()) == expected
        assert fake.duplicates() == []


async def play_half(traffic: Traffic, databases: Databases, half: int) -> None:
    """The first or the second half of a recording's events."""
    recording = traffic.recording
    middle = len(recording.events) // 2
    events = recording.events[middle:] if half else recording.events[:middle]
    await play(replace(recording, events=events), databases.source, speed=None)


@pytest.mark.parametrize("policy", ["none", "masked"])
async def test_a_content_policy_lets_nothing_through(
    policy: str, databases: Databases, tmp_path: Path
) -> None:
    """With `none` no text of anybody leaves; with `masked` the address and the key in it do not."""
    address, key = "ada.lovelace@example.org", "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "TAILER_CONTENT": policy,
            "TAILER_SETTLE_SECONDS": "1",
        }
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            for number in range(3):
                chat = {"conversationId": f"c{number}"}
                asked = question(f"q{number}", None, **chat, text=f"Write to {address} with {key}")
                told = [{"type": "text", "text": f"Wrote to {address} with {key}"}]
                answered = answer(f"a{number}", f"q{number}", **chat, content=told)
                titled = {**chat, "user": asked["user"], "title": f"About {address}"}
                await databases.source["messages"].insert_one(asked)
                await databases.source["conversations"].insert_one(titled)
                await databases.source["messages"].insert_one(answered)
            await databases.wait_until_done(daemon.must_run)
            daemon.terminate()
            assert await daemon.exit_code() == 0

        assert {turn_trace_id(f"a{number}") for number in range(3)} <= set(fake.trace_ids())
        assert fake.violations == []
        sent = json.dumps([[span.name, dict(span.attributes)] for span in fake.spans], default=list)
        for secret in (address, "ada.lovelace", "example.org", key):
            assert secret not in sent
            assert secret not in daemon.output
        roots = [span for span in fake.spans if span.type == "agent"]
        if policy == "none":
            assert "Write to" not in sent
            assert "Wrote to" not in sent
            assert all(root.input is None and root.output is None for root in roots)
        else:
            assert all(root.input.startswith("Write to ") for root in roots)
            assert all(root.output.startswith("Wrote to ") for root in roots)


async def test_a_langfuse_that_is_away_for_a_while_is_waited_for_when_it_is_known(
    databases: Databases, tmp_path: Path
) -> None:
    """Once it was proven, its absence at a start is an outage and no mistake of the operator."""
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        await run_until_ready(settings, tmp_path)
        port = fake.port
    async with start(settings, directory=tmp_path) as daemon:
        away = await daemon.wait_for_line("destination_away")
        assert away["host"] == f"http://127.0.0.1:{port}"
        async with FakeLangfuse(port=port):
            await daemon.wait_until_ready()
            daemon.terminate()
            assert await daemon.exit_code() == 0
