"""The roles of deploy/mongodb on a MongoDB that asks for a log-in: enough for everything, and each of them needed."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient

from tailer.demo.stage.player import play
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import langfuse_settings, run_to_end, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import place
from tests.fakes.langfuse import FakeLangfuse

ROLES = Path(__file__).parents[2] / "deploy" / "mongodb" / "roles.js"
SETTINGS = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_LEASE_SECONDS": "1",
    "TAILER_USER_ID": "email",
}


def commands() -> list[dict[str, Any]]:
    """The commands that the script runs: strict JSON, so that mongosh and this test read the same."""
    found = re.findall(r"admin\.runCommand\((\{.*?\n\})\);", ROLES.read_text(encoding="utf-8"), re.DOTALL)
    return [json.loads(text) for text in found]


def role_names() -> list[str]:
    return [command["createRole"] for command in commands()]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """A server with access control, the roles, and a user with all of them."""
    key = tmp_path_factory.mktemp("guarded") / "key"
    key.write_text("bm90IGEgc2VjcmV0")
    key.chmod(0o600)
    with ReplicaSet(mongod_arguments=["--auth", "--keyFile", str(key)]) as started:
        with MongoClient[dict[str, Any]](started.uri) as client:
            client.admin.command("createUser", "admin", pwd="admin", roles=["root"])
        with MongoClient[dict[str, Any]](uri_for(started, "admin", "admin")) as client:
            for command in commands():
                client.admin.command(command)
            client.admin.command("createUser", "tailer", pwd="tailer", roles=role_names())
        yield started


def uri_for(replica_set: ReplicaSet, user: str, database: str) -> str:
    uri = replica_set.uri_of(database).replace("mongodb://", f"mongodb://{user}:{user}@")
    return f"{uri}&authSource=admin"


@pytest.fixture
def administered(guarded: ReplicaSet) -> Iterator[Databases]:
    """LibreChat's database and the tailer's under their own names, as the administrator; dropped afterwards."""
    uri = uri_for(guarded, "admin", "LibreChat")
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(uri)
    yield Databases(uri, client["LibreChat"], client["librechat_tailer"])
    client.close()
    with MongoClient[dict[str, Any]](uri) as cleaner:
        cleaner.drop_database("LibreChat")
        cleaner.drop_database("librechat_tailer")


def settings_for(guarded: ReplicaSet, fake: FakeLangfuse) -> dict[str, str]:
    return {
        **SETTINGS,
        **langfuse_settings(fake.url),
        "TAILER_MONGO_URI": uri_for(guarded, "tailer", "LibreChat"),
    }


async def test_with_exactly_these_roles_everything_works(
    guarded: ReplicaSet, administered: Databases, tmp_path: Path
) -> None:
    """Streams, costs, users, oplog, a takeover from a killed instance, a backfill and a reconciliation."""
    first, second = (place(name, datetime.now(UTC)) for name in ("09-agent-tools", "01-single-turn"))
    async with FakeLangfuse() as fake:
        settings = settings_for(guarded, fake)
        async with start(settings, directory=tmp_path) as killed:
            await killed.wait_until_ready()
            await play(first.recording, administered.source, speed=None)
            await administered.wait_until_done(killed.must_run)
            metrics = await killed.wait_for_metrics(
                lambda found: "tailer_oplog_headroom_seconds" in found.names()
            )
            assert min(metrics.of("tailer_oplog_headroom_seconds")) >= 0
            await killed.kill()
            assert killed.lines("collection_denied") == []
            assert killed.lines("oplog_hidden") == []
        async with start(settings, directory=tmp_path) as heir:
            await heir.wait_until_ready()
            await play(second.recording, administered.source, speed=None)
            await administered.wait_until_done(heir.must_run)
            backfilled, _ = await run_to_end(settings, directory=tmp_path, arguments=("backfill", "--json"))
            assert heir.lines("state_failed") == []
        reconciled, told = await run_to_end(
            settings, directory=tmp_path, arguments=("reconcile", "--since", "2020-01-01T00:00:00Z", "--json")
        )
        examined, found = await run_to_end(settings, directory=tmp_path, arguments=("doctor", "--json"))

    expected = {turn.trace_id for traffic in (first, second) for turn in traffic.turns()}
    assert expected <= set(fake.trace_ids())
    assert fake.duplicates() == []
    assert (backfilled, reconciled) == (0, 0), told.output
    assert examined == 0, found.output
    verdicts = {finding["check"]: finding["verdict"] for finding in json.loads(found.output)["findings"]}
    assert verdicts["no more than needed"] == "PASS"
    assert set(verdicts.values()) <= {"PASS", "WARN"}


@pytest.mark.parametrize(
    ("role", "check", "words", "exit_code"),
    [
        ("librechatTailerTurns", "privileges on LibreChat", "find on LibreChat.messages", 1),
        ("librechatTailerCosts", "privilege on transactions", "no billed cost", 0),
        ("librechatTailerUsers", "privilege on users", "no e-mail", 0),
        ("librechatTailerOplog", "oplog window", "not known: code_13", 0),
        ("librechatTailerState", "state database", "librechat_tailer: code_13", 1),
    ],
)
async def test_a_role_that_is_missing_is_named_by_the_doctor(
    guarded: ReplicaSet,
    administered: Databases,
    tmp_path: Path,
    role: str,
    check: str,
    words: str,
    exit_code: int,
) -> None:
    admin = administered.source.client.admin
    await admin.command("revokeRolesFromUser", "tailer", roles=[role])
    try:
        async with FakeLangfuse() as fake:
            code, told = await run_to_end(
                settings_for(guarded, fake), directory=tmp_path, arguments=("doctor", "--json")
            )
    finally:
        await admin.command("grantRolesToUser", "tailer", roles=[role])
    findings = {finding["check"]: finding for finding in json.loads(told.output)["findings"]}

    assert code == exit_code
    assert findings[check]["verdict"] == ("FAIL" if exit_code else "WARN")
    assert words in findings[check]["seen"]
    assert "deploy/mongodb" in findings[check]["remedy"]
    assert "tailer:tailer" not in told.output


async def test_find_that_is_revoked_is_named_and_waited_for_until_it_is_granted_again(
    guarded: ReplicaSet, administered: Databases, tmp_path: Path
) -> None:
    """The reads of rows stop as the streams do; what was written meanwhile arrives once."""
    before, meanwhile = (place("01-single-turn", datetime.now(UTC), salt=salt) for salt in "ab")
    admin = administered.source.client.admin
    whole = [
        command["privileges"] for command in commands() if command["createRole"] == "librechatTailerTurns"
    ]
    less = [
        {**privilege, "actions": ["changeStream"]}
        if privilege["resource"]["collection"] == "messages"
        else privilege
        for privilege in whole[0]
    ]
    async with FakeLangfuse() as fake:
        settings = {**settings_for(guarded, fake), "TAILER_SETTLE_SECONDS": "1"}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(before.recording, administered.source, speed=None)
            await administered.wait_until_done(daemon.must_run)
            await play(meanwhile.recording, administered.source, speed=None)
            await admin.command("updateRole", "librechatTailerTurns", privileges=less)
            try:
                told = await daemon.wait_until_ready(status=503)
                named = await daemon.wait_for_line("stream_failed")
            finally:
                await admin.command("updateRole", "librechatTailerTurns", privileges=whole[0])
            await administered.wait_until_done(daemon.must_run)
            await daemon.wait_until_ready()

    assert "grant find and changeStream" in told
    assert "grant find and changeStream" in named["hint"]
    expected = {turn.trace_id for traffic in (before, meanwhile) for turn in traffic.turns()}
    assert expected <= set(fake.trace_ids())
    assert fake.duplicates() == []


def test_every_role_of_the_script_is_given_to_the_user_and_explained() -> None:
    script, readme = (
        ROLES.read_text(encoding="utf-8"),
        (ROLES.parent / "README.md").read_text(encoding="utf-8"),
    )

    assert len(role_names()) == 5
    for name in role_names():
        assert script.count(f'"{name}"') == 2
        assert f"`{name}`" in readme
