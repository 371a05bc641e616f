"""The embedded replica set: it starts, fails over, and always cleans up."""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tailer.demo.stage.mongod import find_mongod
from tailer.demo.stage.recording import Document
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import TailerError

CHANGE_STREAM_NEEDS_A_REPLICA_SET = 40573
UNAUTHORIZED = 13


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def child_processes() -> set[int]:
    """The ids of this process's children, whichever thread started them."""
    children = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold spaces; state and parent follow it.
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid():
            children.add(int(status.parent.name))
    return children


def is_running(process_id: int) -> bool:
    """Whether the process exists and is not just waiting to be reaped."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def is_empty(directory: Path) -> bool:
    return list(directory.iterdir()) == []


@pytest.fixture
def empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the replica set makes its directory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_one_node_takes_change_streams_and_leaves_nothing_behind() -> None:
    """Usable without an event loop, as session fixtures need it."""
    with ReplicaSet() as replica_set:
        (member,) = replica_set.members
        data = member.log_path.parent
        with MongoClient[Document](replica_set.uri_of("LibreChat")) as client:
            database = client.get_default_database()
            with database.watch() as stream:
                database["messages"].insert_one({"n": 1})
                assert stream.next()["fullDocument"]["n"] == 1
        assert data.exists()

    assert not accepts_connections(member.port)
    assert not data.parent.exists()


def test_a_standalone_server_refuses_change_streams() -> None:
    """As LibreChat's own compose file starts it."""
    with (
        ReplicaSet(standalone=True) as server,
        MongoClient[Document](server.uri) as client,
        pytest.raises(OperationFailure) as raised,
    ):
        client["LibreChat"].watch()

    assert raised.value.code == CHANGE_STREAM_NEEDS_A_REPLICA_SET


async def test_three_nodes_survive_the_loss_of_each_primary() -> None:
    """Killed, frozen and shut down in turn, each time another node takes over and the old one comes back."""
    async with ReplicaSet(size=3) as replica_set:
        client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(replica_set.uri, w="majority")
        notes = client["LibreChat"]["messages"]
        await notes.insert_one({"n": 1})
        assert len(await replica_set.secondaries()) == 2

        killed = await replica_set.primary()
        await killed.kill()
        assert killed.process_id is None
        assert (await replica_set.primary()).address != killed.address
        await notes.insert_one({"n": 2})
        await killed.restart()

        frozen = await replica_set.primary()
        await frozen.stop()
        assert (await replica_set.primary()).address != frozen.address
        await frozen.resume()
        await notes.insert_one({"n": 3})

        terminated = await replica_set.primary()
        await terminated.terminate()
        assert (await replica_set.primary()).address != terminated.address
        await notes.insert_one({"n": 4})

        assert [document["n"] async for document in notes.find().sort("n")] == [1, 2, 3, 4]
        client.close()


async def test_every_node_of_a_new_set_can_roll_back() -> None:
    """A node that has to roll back before its first stable checkpoint aborts, and with it the test."""
    async with ReplicaSet(size=3) as replica_set:
        for member in replica_set.members:
            client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(member.uri)
            status = await client.admin.command("replSetGetStatus")
            client.close()
            assert status["lastStableRecoveryTimestamp"] > Timestamp(0, 0)


async def test_a_frozen_node_is_cleaned_up_too() -> None:
    """A stopped process handles no SIGTERM; SIGKILL reaches it."""
    async with ReplicaSet() as replica_set:
        (member,) = replica_set.members
        await member.stop()
        data = member.log_path.parent

    assert member.process_id is None
    assert not data.parent.exists()


def test_extra_arguments_reach_the_server() -> None:
    """For example the test commands that a fault test needs."""
    with (
        ReplicaSet(mongod_arguments=["--setParameter", "enableTestCommands=1"]) as replica_set,
        MongoClient[Document](replica_set.uri) as client,
    ):
        answer = client.admin.command("configureFailPoint", "failCommand", mode="off")

    assert answer["ok"] == 1


@pytest.mark.parametrize("size", [1, 3])
def test_a_set_with_access_control_starts_without_a_user(size: int, tmp_path: Path) -> None:
    """The first user is made through MongoDB's localhost exception, by the test."""
    key = tmp_path / "key"
    key.write_text("bm90IGEgc2VjcmV0")
    key.chmod(0o600)

    with (
        ReplicaSet(size=size, mongod_arguments=["--auth", "--keyFile", str(key)]) as replica_set,
        MongoClient[Document](replica_set.uri) as client,
        pytest.raises(OperationFailure) as raised,
    ):
        client["LibreChat"]["messages"].find_one()

    assert raised.value.code == UNAUTHORIZED


def test_a_failing_start_ends_with_the_log_and_leaves_nothing_behind(empty_directory: Path) -> None:
    """The server's own words are the hint."""
    replica_set = ReplicaSet(mongod_arguments=["--nonsense"])

    with pytest.raises(TailerError, match="unrecognised option '--nonsense'"), replica_set:
        pass

    assert is_empty(empty_directory)


def test_a_replica_set_is_started_once() -> None:
    """Its ports and directories are gone after the block; a second start would be another set."""
    with ReplicaSet(standalone=True) as server:
        pass

    with pytest.raises(RuntimeError), server:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_start_that_is_cancelled_leaves_nothing_behind(empty_directory: Path) -> None:
    """The start is interrupted as soon as the first server exists."""

    async def start() -> None:
        async with ReplicaSet(size=3):
            pass

    before = child_processes()

    def wait_for_a_child() -> None:
        deadline = time.monotonic() + 30
        while child_processes() == before:
            assert time.monotonic() < deadline, "no server was started"
            time.sleep(0.01)

    starting = asyncio.create_task(start())
    await asyncio.to_thread(wait_for_a_child)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert child_processes() == before
    assert is_empty(empty_directory)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_the_server_dies_with_the_process_that_started_it() -> None:
    """Also when that process is killed and can clean up nothing."""
    program = textwrap.dedent(
        """
        import time
        from tailer.demo.stage.replica_set import ReplicaSet
        with ReplicaSet() as replica_set:
            (member,) = replica_set.members
            print(member.process_id, member.log_path.parent.parent, flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child, directory = parent.stdout.readline().split()
        assert is_running(int(child))
        parent.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + 10
    while is_running(int(child)):
        assert time.monotonic() < deadline, "mongod outlived its parent"
        time.sleep(0.05)
    # Its files stay: nothing was left that could have deleted them.
    shutil.rmtree(directory)


def test_a_machine_without_mongod_gets_the_three_remedies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The extra, PATH, or a replica set of one's own."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(TailerError) as raised:
        find_mongod()

    assert all(
        remedy in raised.value.hint for remedy in ("librechat-tailer[demo]", "PATH", "TAILER_MONGO_URI")
    )


def test_mongod_is_taken_from_path_when_the_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that other machines than Linux x86-64 can run the demo."""
    binary = tmp_path / "mongod"
    binary.write_text("")
    binary.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_mongod() == binary
    assert find_mongod(binary) == binary
    with pytest.raises(TailerError):
        find_mongod(tmp_path / "missing")
