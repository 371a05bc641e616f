"""TLS with a real MongoDB: certificates that are renewed on disk while the daemon runs, and files that are not
there."""

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient

from tailer.core.identity import turn_trace_id
from tailer.demo.stage.replica_set import ReplicaSet
from tests.certificates import Authority, make_authority
from tests.e2e.daemon import langfuse_settings, run_to_end, start
from tests.e2e.databases import Databases, open_databases
from tests.fakes.langfuse import FakeLangfuse
from tests.rows import answer, question

SETTINGS = {"TAILER_SETTLE_SECONDS": "0.2", "TAILER_CHECKPOINT_SECONDS": "0.2", "TAILER_LOOKUP_SECONDS": "1"}


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server with TLS: `authority` is the file that the daemon trusts, `server` the one that the server shows."""

    running: ReplicaSet
    databases: Databases
    authority: Path
    server: Path
    others: Authority

    @property
    def uri(self) -> str:
        """With TLS; the test itself goes without."""
        return f"{self.databases.uri}&tls=true&tlsCAFile={self.authority}"

    def renew(self) -> None:
        """Replace both files, as cert-manager does it."""
        shutil.copy(self.others.authority, self.authority)
        shutil.copy(self.others.server, self.server)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    first, second = (make_authority(tmp_path, name) for name in ("first", "second"))
    authority, server = tmp_path / "current-ca.pem", tmp_path / "current-server.pem"
    shutil.copy(first.authority, authority)
    shutil.copy(first.server, server)
    arguments = [
        *("--tlsMode", "allowTLS", "--tlsCertificateKeyFile", str(server), "--tlsCAFile", str(authority)),
        "--tlsAllowConnectionsWithoutCertificates",
    ]
    async with ReplicaSet(mongod_arguments=arguments) as running, open_databases(running) as databases:
        yield Guarded(running, databases, authority, server, second)


async def test_an_authority_that_is_renewed_on_disk_is_taken_up_without_a_restart(
    guarded: Guarded, tmp_path: Path
) -> None:
    """The line names the file; what was written before and after arrives once."""
    databases = guarded.databases
    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "TAILER_MONGO_URI": guarded.uri,
        }
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])
            await databases.wait_until_done(daemon.must_run)

            guarded.renew()
            await (await guarded.running.primary()).restart()
            renewed = await daemon.wait_for_line("credentials_renewed", timeout_seconds=40)
            await databases.source["messages"].insert_many([question("q2", "a1"), answer("a2", "q2")])
            await daemon.wait_until_ready(timeout_seconds=40)
            await databases.wait_until_done(daemon.must_run)
            daemon.terminate()
            assert await daemon.exit_code() == 0

    assert renewed["files"] == [str(guarded.authority)]
    assert set(fake.trace_ids()) == {turn_trace_id("a1"), turn_trace_id("a2")}
    assert fake.duplicates() == []


async def test_a_password_that_is_renewed_in_the_file_of_settings_is_taken_up_without_a_restart(
    tmp_path: Path,
) -> None:
    """New connections are refused with code 18, by the state as by the streams."""
    key = tmp_path / "key"
    key.write_text("bm90IGEgc2VjcmV0")
    key.chmod(0o600)
    async with (
        ReplicaSet(mongod_arguments=["--auth", "--keyFile", str(key)]) as running,
        FakeLangfuse() as fake,
    ):
        with MongoClient[dict[str, Any]](running.uri) as client:
            client.admin.command("createUser", "admin", pwd="admin", roles=["root"])
        uri = running.uri_of("LibreChat").replace("mongodb://", "mongodb://{}:{}@") + "&authSource=admin"
        client_of_admin: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(uri.format("admin", "admin"))
        admin = client_of_admin.admin
        await admin.command("createUser", "tailer", pwd="before", roles=["root"])
        databases = Databases(uri.format("admin", "admin"), client_of_admin["LibreChat"], client_of_admin["librechat_tailer"])  # fmt: skip
        dotenv = tmp_path / ".env"
        dotenv.write_text(f"TAILER_MONGO_URI={uri.format('tailer', 'before')}\n")
        settings = {**SETTINGS, "TAILER_LEASE_SECONDS": "1", **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await admin.command("updateUser", "tailer", pwd="after")
            dotenv.write_text(f"TAILER_MONGO_URI={uri.format('tailer', 'after')}\n")
            await (await running.primary()).restart()
            renewed = await daemon.wait_for_line("credentials_renewed", timeout_seconds=40)
            await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])
            await daemon.wait_until_ready(timeout_seconds=40)
            await databases.wait_until_done(daemon.must_run)
        client_of_admin.close()

    assert renewed["files"] == [str(dotenv)]
    assert fake.trace_ids() == [turn_trace_id("a1")]
    assert "before" not in daemon.output
    assert "after@" not in daemon.output


async def test_an_authority_that_is_not_the_servers_is_named_at_the_start_and_by_the_doctor(
    guarded: Guarded, tmp_path: Path
) -> None:
    settings = {
        "TAILER_MONGO_URI": f"{guarded.databases.uri}&tls=true&tlsCAFile={guarded.others.authority}",
        "TAILER_FILE_PATH": "turns.jsonl",
    }
    code, told = await run_to_end(settings, directory=tmp_path, arguments=("doctor", "--json"))
    (found,) = [
        finding
        for finding in json.loads("".join(told.text))["findings"]
        if finding["check"] == "MongoDB reachable"
    ]

    assert code == 1
    assert found["verdict"] == "FAIL"
    assert "tlsCAFile" in found["remedy"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("tls=true&tlsCAFile={0}/nowhere.pem", "nowhere.pem (FileNotFoundError)"),
        ("tls=true&tlsCertificateKeyFile={0}/nowhere.pem", "tlscertificatekeyfile="),
        ("tls=true&tlsCAFile={0}/none.pem", "none.pem"),
        ("authMechanism=MONGODB-AWS&authSource=$external", "librechat-tailer[aws]"),
        ("authMechanism=GSSAPI&authSource=$external", "kerberos"),
        ("loadBalanced=true&replicaSet=rs0", "Cannot specify replicaSet"),
        ("authMechanism=MONGODB-OIDC", "MONGODB-OIDC"),
    ],
)
async def test_what_the_driver_refuses_at_once_is_one_line_with_a_remedy(
    tmp_path: Path, options: str, says: str
) -> None:
    """Exit 3 and no traceback, by the daemon; FAIL, by the doctor."""
    (tmp_path / "none.pem").write_text("no certificate")
    settings = {
        "TAILER_MONGO_URI": f"mongodb://127.0.0.1:9/LibreChat?{options.format(tmp_path)}",
        "TAILER_FILE_PATH": "turns.jsonl",
    }
    code, daemon = await run_to_end(settings, directory=tmp_path)
    unwell, told = await run_to_end(settings, directory=tmp_path, arguments=("doctor", "--json"))

    assert (code, unwell) == (3, 1), daemon.output
    assert "Traceback" not in daemon.output
    assert len(daemon.errors) == 2
    assert says in "".join(daemon.errors)
    assert says in told.output
