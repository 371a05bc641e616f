"""Each check of the doctor on real parts: when all is well, and when it is not."""

import json
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pydantic import SecretStr

from tailer.cli import execute
from tailer.commands.doctor import _describe
from tailer.core.policy.policies import CopyPolicy, TemporaryPolicy
from tailer.core.stream.hints import Stream
from tailer.demo.stage.mongod import Mongod, find_mongod
from tailer.operations.doctor.examination import examine
from tailer.operations.doctor.findings import Finding, Verdict, worst
from tailer.settings import Settings
from tests import rows
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, Route, answer
from tests.integration.running import running, settings_for
from tests.rows import question

DAY = timedelta(hours=24)


async def findings_of(settings: Settings, downtime: timedelta = DAY) -> dict[str, Finding]:
    return {finding.check: finding for finding in await examine(settings, downtime=downtime)}


def message(**more: Any) -> dict[str, Any]:
    return {"_id": ObjectId(), "messageId": "m", "conversationId": "c", "user": "u", "text": "s3cret", **more}


async def test_when_all_is_well_nothing_fails_and_everything_is_told(databases: Databases) -> None:
    await databases.source["messages"].insert_one(message(isCreatedByUser=True))
    async with FakeLangfuse() as fake:
        async with running(databases, fake) as run:
            await run.until_done()
        found = await findings_of(
            # The address that the image sets: these tests may run in a container.
            settings_for(databases, fake, http_host="::", http_port=0, lease_time=timedelta(seconds=1)),
            timedelta(seconds=1),
        )

    assert worst([*found.values()]) is Verdict.PASS, found
    assert "opens at the stored position" in found["stream messages"].seen
    assert "Test project" in found["Langfuse keys"].seen
    assert "and later" in found["stored position"].seen
    assert "s3cret" not in str(found)


async def test_a_standalone_server_gets_the_steps_for_compose_and_kubernetes(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> None:
    server = Mongod(
        find_mongod(),
        directory=tmp_path_factory.mktemp("standalone"),
        arguments=[],
        patience=timedelta(seconds=30),
    )
    server.launch_on_a_free_port()
    try:
        server.wait_until(lambda: server.hello() is not None, waiting_for="an answer")
        async with FakeLangfuse() as fake:
            uri = SecretStr(f"mongodb://{server.address}/LibreChat")
            settings = settings_for(
                databases,
                fake,
                mongo_uri=uri,
                mongo_database="LibreChat",
                http_port=0,
                lease_time=timedelta(seconds=1),
            )
            found = await findings_of(settings)
    finally:
        server.end(signal.SIGKILL)

    assert found["replica set"].verdict is Verdict.FAIL
    assert "docker-compose.tailer.yml" in (found["replica set"].remedy or "")
    assert "architecture: replicaset" in (found["replica set"].remedy or "")
    assert found["everything else in MongoDB"].verdict is Verdict.SKIP
    assert found["Langfuse keys"].verdict is Verdict.PASS


async def test_a_server_that_is_not_there_is_said_to_be_so_without_the_password(databases: Databases) -> None:
    async with FakeLangfuse() as fake:
        uri = SecretStr("mongodb://u:s3cret@127.0.0.1:1/LibreChat")
        found = await findings_of(
            settings_for(databases, fake, mongo_uri=uri, http_port=0, lease_time=timedelta(seconds=1))
        )

    assert found["MongoDB reachable"].verdict is Verdict.FAIL
    assert "TAILER_MONGO_URI" in (found["MongoDB reachable"].remedy or "")
    assert "s3cret" not in str(found)


async def test_rows_that_are_no_messages_and_turns_that_librechat_traced_are_counted(
    databases: Databases,
) -> None:
    await databases.source["messages"].insert_many(
        [message(), message(messageId=7), message(langfuseDestinationIds=["d"])]
    )
    async with FakeLangfuse() as fake:
        found = await findings_of(settings_for(databases, fake, http_port=0, lease_time=timedelta(seconds=1)))

    assert found["messages"].verdict is Verdict.WARN
    assert "messageId: 1" in found["messages"].seen
    assert found["traced once"].verdict is Verdict.WARN
    assert "1 of the last 3" in found["traced once"].seen
    assert "LANGFUSE_PUBLIC_KEY" in (found["traced once"].remedy or "")


async def test_an_empty_collection_asks_whether_it_is_the_right_database(databases: Databases) -> None:
    async with FakeLangfuse() as fake:
        found = await findings_of(settings_for(databases, fake, http_port=0, lease_time=timedelta(seconds=1)))

    assert found["messages"].verdict is Verdict.WARN
    assert "is empty" in found["messages"].seen


async def test_a_token_that_the_oplog_no_longer_has_is_found_before_the_start(databases: Databases) -> None:
    """Any token that the server takes for none: the daemon would declare a gap."""
    await databases.state["checkpoints"].insert_one(
        {"_id": Stream.MESSAGES.value, "token": "8263", "cluster_seconds": 1_600_000_000, "epoch": 1}
    )
    async with FakeLangfuse() as fake:
        found = await findings_of(settings_for(databases, fake, http_port=0, lease_time=timedelta(seconds=1)))

    assert found["stream messages"].verdict is Verdict.FAIL
    assert "declares the gap" in (found["stream messages"].remedy or "")
    assert found["stream conversations"].verdict is Verdict.PASS


async def test_the_clocks_of_all_three_are_shown(databases: Databases) -> None:
    await databases.source["messages"].insert_one(
        message(createdAt=datetime.now(UTC) - timedelta(minutes=5), isCreatedByUser=True)
    )
    async with FakeLangfuse() as fake:
        found = await findings_of(settings_for(databases, fake, http_port=0, lease_time=timedelta(seconds=1)))

    assert found["clocks"].verdict is Verdict.PASS
    assert found["LibreChat's clock"].verdict is Verdict.WARN
    assert re.match(r"-(299|300|301) s against MongoDB, -\d+ s against this", found["LibreChat's clock"].seen)
    assert "NTP" in (found["LibreChat's clock"].remedy or "")


async def test_a_state_of_another_librechat_is_found(databases: Databases) -> None:
    """Otherwise the second one would stand by for ever."""
    await databases.state["owner"].insert_one(
        {"_id": "librechat", "database": "Production", "set_id": None, "hosts": ["mongodb:27017"]}
    )
    async with FakeLangfuse() as fake:
        found = await findings_of(settings_for(databases, fake, http_port=0, lease_time=timedelta(seconds=1)))

    assert found["state's owner"].verdict is Verdict.FAIL
    assert "Production" in (found["state's owner"].remedy or "")
    assert "TAILER_STATE_DATABASE" in (found["state's owner"].remedy or "")


async def test_an_oplog_that_is_shorter_than_the_wanted_absence_is_a_warning(databases: Databases) -> None:
    async with FakeLangfuse() as fake:
        found = await findings_of(
            settings_for(databases, fake, http_port=0, lease_time=timedelta(seconds=1)), timedelta(days=300)
        )

    assert found["oplog window"].verdict is Verdict.WARN
    assert "minRetentionHours: 7200" in (found["oplog window"].remedy or "")


@pytest.mark.parametrize(
    ("status", "route", "check", "words"),
    [
        (401, Route.PROJECTS, "Langfuse keys", "LANGFUSE_PUBLIC_KEY"),
        (503, Route.PROJECTS, "Langfuse keys", "try again"),
        (502, Route.HEALTH, "Langfuse reachable", "LANGFUSE_HOST"),
    ],
)
async def test_what_is_wrong_with_langfuse_is_named(
    databases: Databases, status: int, route: Route, check: str, words: str
) -> None:
    async with FakeLangfuse() as fake:
        fake.faults.add(answer(status, route=route, times=None))
        found = await findings_of(settings_for(databases, fake, http_port=0, lease_time=timedelta(seconds=1)))

    assert found[check].verdict is Verdict.FAIL
    assert words in (found[check].remedy or "")
    assert fake.secret_key not in str(found)


async def test_a_port_that_somebody_else_has_is_named(databases: Databases) -> None:
    async with FakeLangfuse() as fake:
        port = int(fake.url.rpartition(":")[2])
        found = await findings_of(
            settings_for(
                databases, fake, http_host="127.0.0.1", http_port=port, lease_time=timedelta(seconds=1)
            )
        )

    assert found["HTTP port"].verdict is Verdict.FAIL
    assert "TAILER_HTTP_PORT" in (found["HTTP port"].remedy or "")


async def test_nothing_of_what_was_tried_stays_behind(databases: Databases) -> None:
    async with FakeLangfuse() as fake:
        await findings_of(settings_for(databases, fake, http_port=0, lease_time=timedelta(seconds=1)))

    assert await databases.state["lease"].count_documents({}) == 0
    assert await databases.source.list_collection_names() == []
    assert fake.trace_ids() == []


def test_people_see_a_line_a_check_with_the_remedy_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = _describe(
        [
            Finding("MongoDB reachable", Verdict.PASS, "mongodb:27017"),
            Finding("replica set", Verdict.FAIL, "standalone", "make it one"),
        ]
    )

    assert lines == [
        "PASS  MongoDB reachable  mongodb:27017",
        "FAIL  replica set        standalone",
        "      -> make it one",
        "",
        "1 PASS, 1 FAIL",
    ]


def test_settings_that_cannot_be_used_are_a_finding_like_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILER_MONGO_URI", "no-uri")
    assert execute(["doctor", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert execute(["doctor"]) == 1
    people = capsys.readouterr().out

    assert [finding["verdict"] for finding in findings] == ["FAIL", "SKIP"]
    assert "TAILER_MONGO_URI" in findings[0]["seen"]
    assert "-> TAILER_MONGO_URI" in people


@pytest.mark.parametrize(
    ("directory", "problem"), [("nowhere", "is no directory"), ("circle", "cannot be looked at (")]
)
async def test_a_trace_file_that_cannot_be_written_is_found(
    databases: Databases, tmp_path: Path, directory: str, problem: str
) -> None:
    """As in a container with a read-only root; the user of these tests may write anything that is not a directory's."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    missing = settings_for(
        databases,
        None,
        file_path=tmp_path / directory / "t.jsonl",
        http_port=0,
        lease_time=timedelta(seconds=1),
    )
    found = await findings_of(missing)

    assert found["trace file"].verdict is Verdict.FAIL
    assert problem in found["trace file"].seen
    assert "TAILER_FILE_PATH" in (found["trace file"].remedy or "")


@pytest.mark.parametrize(
    ("fields", "word", "setting"),
    [
        ({"isTemporary": True}, "temporary", {"temporary": TemporaryPolicy.METADATA}),
        ({"metadata": {"contextUsage": {"runId": "another"}}}, "copies", {"copies": CopyPolicy.EXPORT}),
    ],
)
async def test_a_librechat_whose_answers_are_nearly_all_left_out_is_a_warning(
    databases: Databases, fields: dict[str, Any], word: str, setting: dict[str, Any]
) -> None:
    """Nothing is wrong with the tailer then, and nothing arrives: somebody has to decide."""
    turns = [
        item
        for number in range(12)
        for item in (question(f"q{number}", None), rows.answer(f"a{number}", f"q{number}", **fields))
    ]
    await databases.source["messages"].insert_many(turns)
    async with FakeLangfuse() as fake:
        found = await findings_of(settings_for(databases, fake, http_port=0))
        decided = await findings_of(settings_for(databases, fake, http_port=0, **setting))

    assert found["left out"].verdict is Verdict.WARN
    assert f"12 of the last 12 answers are {word}" in found["left out"].seen
    assert decided["left out"].verdict is Verdict.PASS
