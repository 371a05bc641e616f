"""The script that stands before mongod in LibreChat's container: run by a shell, before a real mongod."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tailer.demo.stage.mongod import Mongod, find_mongod
from tailer.errors import TailerError

SCRIPT = Path(__file__).parents[2] / "deploy" / "compose" / "mongod-in-a-set.sh"
SHELL = Path(__file__).with_name("mongo_shell.py")
PATIENCE = timedelta(seconds=60)
MEMBER = "127.0.0.1"

Client: TypeAlias = MongoClient[dict[str, Any]]
Start: TypeAlias = Callable[..., Mongod]


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of commands before mongod's own on the PATH, as in the container; MongoDB is called 127.0.0.1 there."""
    commands = tmp_path / "commands"
    commands.mkdir()
    shutil.copy(SCRIPT, commands / "mongod")
    add_shell(commands, "mongosh")
    path = os.pathsep.join([str(commands), str(find_mongod().parent), "/usr/bin", "/bin"])
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("TAILER_MEMBER_HOST", MEMBER)
    return commands


def add_shell(commands: Path, name: str) -> None:
    shell = commands / name
    shell.write_text(f'#!/bin/sh\nexec {sys.executable} {SHELL} "$@"\n', encoding="utf-8")
    shell.chmod(0o755)


@pytest.fixture
def start(image: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts what the container starts, on the same data and port as the one before; ends all at the end."""
    started: list[Mongod] = []

    def start_one(*arguments: str, plain: bool = False) -> Mongod:
        binary = find_mongod() if plain else image / "mongod"
        server = Mongod(binary, directory=tmp_path / "data", arguments=arguments, patience=PATIENCE)
        if started:
            started[-1].end(signal.SIGTERM)
            server.port = started[-1].port
            server.log_path.unlink()
            server.launch()
        else:
            server.launch_on_a_free_port()
        started.append(server)
        return server

    yield start_one
    for server in started:
        server.end(signal.SIGTERM)


def says(server: Mongod, words: str) -> None:
    """Wait until the log of the container has a line of the script with these words."""

    def is_said() -> bool:
        lines = server.log_path.read_text(errors="replace").splitlines()
        return any(words in line for line in lines if line.startswith("tailer: "))

    server.wait_until(is_said, waiting_for=f"line with {words!r}")


@contextmanager
def connect(server: Mongod, **login: Any) -> Iterator[Client]:
    with Client(server.uri, serverSelectionTimeoutMS=10_000, **login) as client:
        yield client


def wait_for_server(server: Mongod) -> None:
    server.wait_until(lambda: server.hello() is not None, waiting_for="answer")


def make_foreign_set(start: Start, name: str, host: str) -> Mongod:
    """A data folder that was a set before, with a row in it."""
    server = start("--replSet", name, plain=True)
    with connect(server) as client:
        member = {"_id": 0, "host": f"{host}:{server.port}"}
        client.admin.command("replSetInitiate", {"_id": name, "members": [member]})
        server.wait_until(
            lambda: bool((server.hello() or {}).get("isWritablePrimary")), waiting_for="primary"
        )
        client.chat.messages.insert_one({"text": "kept"})
    return server


def assert_usable(server: Mongod) -> None:
    """As LibreChat uses it: reads what was there, and writes."""
    wait_for_server(server)
    with connect(server) as client:
        assert client.chat.messages.count_documents({"text": "kept"}) == 1
        client.chat.messages.insert_one({"text": "new"})
        assert "setName" not in client.admin.command("hello")


@pytest.mark.parametrize("shell", ["mongosh", "mongo"])
def test_a_standalone_mongodb_becomes_a_set_and_keeps_its_data(image: Path, start: Start, shell: str) -> None:
    """Also in an image as old as 4.4, which has no mongosh."""
    (image / "mongosh").rename(image / shell)
    before = start("--noauth", plain=True)
    with connect(before) as client:
        client.chat.messages.insert_one({"text": "kept"})

    server = start("--noauth")

    says(server, f"made MongoDB the one node of the replica set rs0, as {MEMBER}:{server.port}")
    says(server, "MongoDB is the primary of the replica set rs0")
    with connect(server) as client, client.chat.messages.watch() as changes:
        assert client.chat.messages.count_documents({}) == 1
        client.chat.messages.insert_one({"text": "new"})
        assert next(changes)["operationType"] == "insert"
        assert client.admin.command("getCmdLineOpts")["parsed"]["storage"]["oplogMinRetentionHours"] == 48
    again = start("--noauth")
    says(again, "MongoDB is the primary of the replica set rs0")


def test_a_password_that_was_asked_for_is_asked_for_still(start: Start) -> None:
    """Nobody gives the script a password, and the members' key is its owner's alone."""
    before = start("--noauth", plain=True)
    with connect(before) as client:
        client.admin.command("createUser", "root", pwd="pass", roles=["root"])
        client.chat.messages.insert_one({"text": "kept"})

    server = start("--auth")

    says(server, "MongoDB is the primary of the replica set rs0")
    with connect(server) as stranger, pytest.raises(OperationFailure, match="requires authentication"):
        stranger.chat.messages.insert_one({})
    with connect(server, username="root", password="pass") as client:
        assert client.chat.messages.count_documents({}) == 1
        parsed = client.admin.command("getCmdLineOpts")["parsed"]["security"]
    assert parsed["authorization"] == "enabled"
    assert Path(parsed["keyFile"]).stat().st_mode & 0o077 == 0


def test_authentication_from_a_configuration_file_stays_too(start: Start, tmp_path: Path) -> None:
    before = start("--noauth", plain=True)
    with connect(before) as client:
        client.admin.command("createUser", "root", pwd="pass", roles=["root"])
    configuration = tmp_path / "mongod.conf"
    configuration.write_text("security:\n  authorization: enabled\n", encoding="utf-8")

    server = start("--config", str(configuration))

    says(server, "MongoDB is the primary of the replica set rs0")
    with connect(server) as stranger, pytest.raises(OperationFailure, match="requires authentication"):
        stranger.chat.messages.insert_one({})


def test_a_set_of_another_name_goes_on_without_one_and_the_reason_is_said(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LibreChat can write all the same; once the set's own name is given, it is a set again."""
    make_foreign_set(start, "other", MEMBER)

    server = start("--noauth")
    says(server, "its data folder belongs to a set that is not called rs0")
    says(server, "Remedy: deploy/compose/README.md")
    assert_usable(server)

    monkeypatch.setenv("TAILER_REPLICA_SET", "other")
    says(start("--noauth"), "MongoDB is the primary of the replica set other")


def test_a_set_whose_member_nobody_else_finds_goes_on_without_one(start: Start) -> None:
    """A driver goes to the name that the set gives it, and `localhost` is another machine in each container."""
    make_foreign_set(start, "rs0", "localhost")

    server = start("--noauth")

    says(server, f"calls it localhost:{server.port}, where LibreChat would look for it instead of {MEMBER}")
    assert_usable(server)


def test_the_remedies_of_the_readme_mend_a_foreign_set(start: Start) -> None:
    """Both are commands for a MongoDB that runs without a set."""
    readme = SCRIPT.with_name("README.md").read_text(encoding="utf-8")
    assert 'db.getSiblingDB("local").dropDatabase()' in readme
    make_foreign_set(start, "other", "localhost")
    server = start("--noauth")
    says(server, "MongoDB runs with its own options alone")
    wait_for_server(server)

    with connect(server) as client:
        client.drop_database("local")

    server = start("--noauth")
    says(server, "MongoDB is the primary of the replica set rs0")
    with connect(server) as client:
        assert client.chat.messages.count_documents({"text": "kept"}) == 1


def test_a_set_of_the_operators_own_is_left_to_the_operator(start: Start) -> None:
    server = start("--replSet", "mine")

    says(server, "they name a replica set already")
    assert "setName" not in (server.hello() or {})
    with connect(server) as client:
        assert client.admin.command("getCmdLineOpts")["parsed"]["replication"] == {"replSet": "mine"}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("TAILER_REPLICA_SET", "", "TAILER_REPLICA_SET is empty"),
        (
            "TAILER_OPLOG_HOURS",
            "two-days",
            "it does not take --replSet rs0 --oplogMinRetentionHours two-days",
        ),
        (
            "TAILER_MEMBER_HOST",
            "no-such-name.invalid",
            "it cannot be made a set with the member no-such-name",
        ),
    ],
)
def test_what_cannot_be_or_is_not_wanted_leaves_mongodb_as_it_was(
    start: Start, monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    before = start("--noauth", plain=True)
    with connect(before) as client:
        client.chat.messages.insert_one({"text": "kept"})
    monkeypatch.setenv(name, value)

    server = start("--noauth")

    says(server, reason)
    assert_usable(server)


def test_an_image_without_any_shell_runs_mongodb_as_it_was(image: Path, start: Start) -> None:
    (image / "mongosh").unlink()

    server = start("--noauth")

    says(server, "the image has neither mongosh nor mongo")
    assert (server.hello() or {})["isWritablePrimary"]


@pytest.mark.parametrize(
    ("shell", "reason"),
    [
        ("exit 127", "does not run"),
        ('[ "$1" = --version ] || exit 1', "gets no answer from it on 127.0.0.1"),
    ],
)
def test_an_image_whose_shell_does_not_work_runs_mongodb_as_it_was(
    image: Path, start: Start, monkeypatch: pytest.MonkeyPatch, shell: str, reason: str
) -> None:
    """A processor without what mongosh needs, or a server that listens elsewhere: nobody could initiate the set."""
    (image / "mongosh").write_text(f"#!/bin/sh\n{shell}\n", encoding="utf-8")
    monkeypatch.setenv("TAILER_PATIENCE_SECONDS", "2")

    server = start("--noauth")

    says(server, reason)
    server.wait_until(
        lambda: bool((server.hello() or {}).get("isWritablePrimary")),
        waiting_for="a MongoDB that can be used",
    )


def test_a_set_that_was_killed_has_everything_again(start: Start) -> None:
    """What came after the last checkpoint is in its oplog only."""
    server = start("--noauth")
    says(server, "MongoDB is the primary")
    with connect(server) as client:
        client.chat.messages.insert_one({"text": "kept"})
        process_id = client.admin.command("serverStatus")["pid"]
    os.kill(process_id, signal.SIGKILL)

    again = start("--noauth")

    says(again, "MongoDB is the primary")
    with connect(again) as client:
        assert client.chat.messages.count_documents({"text": "kept"}) == 1


@pytest.mark.parametrize("crashed", [False, True])
def test_a_start_that_fails_as_a_set_is_tried_without_one_unless_that_could_hide_writes(
    start: Start, tmp_path: Path, *, crashed: bool
) -> None:
    """MongoDB 6 refuses a set without its journal, and runs alone without one."""
    start("--noauth", plain=True).end(signal.SIGTERM)
    (tmp_path / "data" / "mongod.lock").write_text("1\n" if crashed else "", encoding="utf-8")

    if crashed:
        with pytest.raises(TailerError, match="it is not started without its set"):
            start("--noauth", "--nojournal")
        return
    server = start("--noauth", "--nojournal")
    says(server, "with --replSet rs0 --oplogMinRetentionHours 48 it ended with code")
    assert "setName" not in (server.hello() or {})


@pytest.mark.parametrize("words", ["MongoDB is the primary", None], ids=["a set", "on its way to one"])
def test_a_stop_reaches_mongodb_at_any_moment(start: Start, words: str | None) -> None:
    """Docker sends SIGTERM to the script and kills it ten seconds later: an orderly end must be quicker."""
    server = start("--noauth")
    if words is not None:
        says(server, words)

    server.end(signal.SIGTERM)

    log = server.log_path.read_text(errors="replace")
    assert '"exitCode":0' in log
    assert "runs with its own options alone" not in log


def test_what_starts_no_server_is_passed_on(image: Path) -> None:
    """The image asks mongod for its options before it starts it."""
    for option in ("--version", "--help", "--outputConfig"):
        done = subprocess.run([image / "mongod", option], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout


def test_no_trace_of_the_key_is_left_in_scripts(start: Start, tmp_path: Path) -> None:
    before = start("--noauth", plain=True)
    with connect(before) as client:
        client.admin.command("createUser", "root", pwd="pass", roles=["root"])
    server = start("--auth")
    says(server, "MongoDB is the primary of the replica set rs0")

    assert sorted(path.name for path in tmp_path.glob("tailer-replica-set*")) == ["tailer-replica-set.key"]
