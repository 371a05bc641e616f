"""`tailer demo` as a person runs it: the real command, a real MongoDB, a real terminal where that matters."""

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from bson import ObjectId
from pymongo import MongoClient

from tailer.core.identity import title_trace_id, turn_trace_id
from tailer.demo.database import DATABASE, STATE_DATABASE
from tailer.demo.stage.recording import demo_recordings
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import langfuse_settings, make_environment
from tests.e2e.terminal import Terminal, open_terminal
from tests.fakes.langfuse import FakeLangfuse
from tests.fakes.langfuse.faults import bad_span

TURNS: Final = 34
TITLES: Final = 14
SPEED: Final = ("--speed", "40")
LINE: Final = re.compile(
    r"\d\d:\d\d:\d\d (?P<who>\S+) +(?P<model>\S+(?: \+\d)?) +(?P<input>~?\d+|\?) +(?P<output>~?\d+|\?)"
    r" +(?:~?\$(?P<cost>[\d.]+)|\?) +(?P<took>[\d.]+)s (?P<outcome>[a-z]+) +(?P<question>.+)"
)
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
NO_BUNDLED_MONGOD: Final = """
import sys
sys.modules["fiftyone"] = None
from tailer.cli import execute
sys.exit(execute(sys.argv[1:]))
"""


def environment_of(directory: Path, **settings: str) -> dict[str, str]:
    """Temporary files of the command go where the test can look for what is left of them."""
    return make_environment({"TMPDIR": str(directory), **settings})


def run_demo(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "tailer", "demo", *arguments],
        cwd=directory,
        env=environment_of(directory, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def turn_lines(output: str) -> list[re.Match[str]]:
    return [found for line in output.splitlines() if (found := LINE.fullmatch(line)) is not None]


def read_traces(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def trace_files(directory: Path) -> list[Path]:
    """The files that the command made in the directory for temporary files."""
    return list(directory.glob("librechat-tailer-demo-*/*.jsonl"))


def servers_of(directory: Path) -> list[str]:
    """The command lines of servers that keep their data there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text(errors="replace")
        except OSError:
            continue
        if "mongod" in command and str(directory) in command:
            found.append(command)
    return found


def count_answers() -> int:
    """How many answers the recordings hold."""
    return sum(
        event.operation == "insert" and not (event.full_document or {})["isCreatedByUser"]
        for recording in demo_recordings()
        for event in recording.events
        if event.collection == "messages"
    )


def terminal(
    directory: Path, *arguments: str, columns: int, **settings: str
) -> AbstractContextManager[Terminal]:
    """The command in a terminal."""
    return open_terminal(
        directory, environment_of(directory, **settings), "demo", *arguments, columns=columns
    )


def test_the_demo_shows_every_turn_and_leaves_one_line_for_each_trace(tmp_path: Path) -> None:
    """As many turns as the recordings have answers, none lost, none twice; the server was started, used and is gone."""
    file = tmp_path / "new" / "traces.jsonl"

    done = run_demo(tmp_path, *SPEED, "--file", str(file))

    assert (done.returncode, done.stderr) == (0, "")
    lines = turn_lines(done.stdout)
    assert Counter(line["outcome"] for line in lines) == {"complete": 29, "error": 3, "aborted": 2}
    traces = read_traces(file)
    messages = {trace["metadata"]["message_id"] for trace in traces}
    assert len(messages) == count_answers() == TURNS
    ids = {trace["id"] for trace in traces}
    assert len(ids) == len(traces) == TURNS + TITLES
    assert ids >= set(map(turn_trace_id, messages))
    assert ids <= {*map(turn_trace_id, messages), *map(title_trace_id, messages)}
    assert re.search(
        rf"^turns +{TURNS} acknowledged: 29 complete, 3 error, 2 aborted$", done.stdout, re.MULTILINE
    )
    assert f"{TITLES} generated titles" in done.stdout
    assert re.search(r"^delay +[\d.]+ s median, [\d.]+ s p95", done.stdout, re.MULTILINE)
    assert str(file) in done.stdout
    assert servers_of(tmp_path) == []
    assert list(tmp_path.glob("tailer-mongod-*")) == []


def test_a_server_that_is_given_keeps_its_data(replica_set: ReplicaSet, tmp_path: Path) -> None:
    """The demo has databases of its own there, also where the URI names LibreChat's, and takes them away."""
    document = {"_id": ObjectId(), "text": "not the demo's"}
    with MongoClient[dict[str, Any]](replica_set.uri) as client:
        client["KeptChat"]["messages"].insert_one(document)
        # What a killed demo has left is cleaned up too.
        client[DATABASE]["messages"].insert_one({"_id": 1})
        before = set(client.list_database_names()) - {DATABASE}
        written = client.admin.command("hello")["lastWrite"]["opTime"]["ts"]

        done = run_demo(
            tmp_path, *SPEED, "--file", "traces.jsonl", TAILER_MONGO_URI=replica_set.uri_of("KeptChat")
        )

        assert done.returncode == 0, done.stderr
        assert set(client.list_database_names()) == before
        assert list(client["KeptChat"]["messages"].find()) == [document]
        touched = {
            entry["ns"].partition(".")[0]
            for entry in client.local["oplog.rs"].find({"ts": {"$gt": written}, "ns": {"$ne": ""}})
        }
        assert touched & {"KeptChat", DATABASE, STATE_DATABASE} == {DATABASE, STATE_DATABASE}
        client.drop_database("KeptChat")
    assert servers_of(tmp_path) == []


async def test_with_keys_the_same_command_sends_to_langfuse(replica_set: ReplicaSet, tmp_path: Path) -> None:
    """Everything arrives once, apart from the operator's own traces, and the end says where."""
    async with FakeLangfuse() as fake:
        done = await asyncio.to_thread(
            run_demo, tmp_path, *SPEED, TAILER_MONGO_URI=replica_set.uri, **langfuse_settings(fake.url)
        )

        assert done.returncode == 0, done.stderr
        assert len(turn_lines(done.stdout)) == TURNS
        assert f"Langfuse at {fake.url}, environment demo" in done.stdout
        assert fake.violations == []
        assert len({span.trace_id for span in fake.spans}) == TURNS + TITLES
        assert {span.attributes["langfuse.environment"] for span in fake.spans} == {"demo"}
    assert trace_files(tmp_path) == []


async def test_what_langfuse_refuses_is_counted_and_holds_nothing_up(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """One turn is refused for good, and its title, which has the same question: the demo does not wait for them."""
    async with FakeLangfuse() as fake:
        fake.faults.add(bad_span("Rate me"))
        done = await asyncio.to_thread(
            run_demo, tmp_path, *SPEED, TAILER_MONGO_URI=replica_set.uri, **langfuse_settings(fake.url)
        )

        assert done.returncode == 0, done.stderr
        assert len({span.trace_id for span in fake.spans}) == TURNS + TITLES - 2
    questions = [line["question"] for line in turn_lines(done.stdout)]
    assert len(questions) == TURNS - 1
    assert "Rate me" not in questions
    assert re.search(r"^error: trace rejected", done.stdout, re.MULTILINE)
    assert re.search(r"^lost +2 ", done.stdout, re.MULTILINE)


async def test_a_daemon_that_fails_ends_the_demo_with_its_error(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """Wrong keys are told as `tailer run` tells them, with the same exit code."""
    async with FakeLangfuse(secret_key="sk-lf-other") as fake:
        done = await asyncio.to_thread(
            run_demo, tmp_path, *SPEED, TAILER_MONGO_URI=replica_set.uri, **langfuse_settings(fake.url)
        )

    assert done.returncode == 4
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
    assert turn_lines(done.stdout) == []


def test_settings_of_the_operator_do_not_make_the_demo_show_less(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """A sample rate of 0 in the environment, and a `.env` that names another server, change nothing."""
    (tmp_path / ".env").write_text("TAILER_MONGO_URI=mongodb://nowhere.invalid/LibreChat\n", encoding="utf-8")

    done = run_demo(
        tmp_path,
        *SPEED,
        TAILER_MONGO_URI=replica_set.uri,
        LANGFUSE_SAMPLE_RATE="0",
        TAILER_STATE_DATABASE="elsewhere",
    )

    assert done.returncode == 0, done.stderr
    assert len(turn_lines(done.stdout)) == TURNS
    assert [len(read_traces(file)) for file in trace_files(tmp_path)] == [TURNS + TITLES]
    with MongoClient[dict[str, Any]](replica_set.uri) as client:
        assert "elsewhere" not in client.list_database_names()


def test_without_any_mongod_the_remedies_are_named(tmp_path: Path) -> None:
    """The extra, a mongod on PATH, or a server that is there already."""
    done = subprocess.run(
        [sys.executable, "-c", NO_BUNDLED_MONGOD, "demo"],
        cwd=tmp_path,
        env={**environment_of(tmp_path), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert all(remedy in done.stderr for remedy in ("librechat-tailer[demo]", "PATH", "TAILER_MONGO_URI"))
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_ends_the_demo_without_a_traceback(
    replica_set: ReplicaSet, tmp_path: Path
) -> None:
    """`tailer demo | head`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tailer", "demo"],
        cwd=tmp_path,
        env=environment_of(tmp_path, TAILER_MONGO_URI=replica_set.uri),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(timeout=60), errors) == (141, b"")
    with MongoClient[dict[str, Any]](replica_set.uri) as client:
        assert not {DATABASE, STATE_DATABASE} & set(client.list_database_names())


def test_on_a_terminal_a_line_says_who_what_and_how(replica_set: ReplicaSet, tmp_path: Path) -> None:
    """Lines fit, colours mark outcomes, and the numbers are those of the trace and of the recording."""
    with terminal(
        tmp_path, *SPEED, "--file", "t.jsonl", columns=100, TAILER_MONGO_URI=replica_set.uri
    ) as screen:
        assert screen.read_to_the_end() == 0

    assert "\x1b[32mcomplete\x1b[0m" in screen.text
    assert "\x1b[31merror" in screen.text
    shown = COLOUR.sub("", screen.text)
    assert max(map(len, shown.splitlines())) <= 100
    lines = turn_lines(shown)
    assert len(lines) == TURNS
    found = [line for line in lines if line["question"].startswith("(calculator) please")]
    assert [line["who"] for line in found] == ["Hal6226A8"]
    assert (found[0]["model"], found[0]["input"], found[0]["output"]) == ("gpt-4o", "249", "32")
    questions = {
        str(trace["observations"][0].get("input")): trace
        for trace in read_traces(tmp_path / "t.jsonl")
        if trace["name"] == "librechat-turn"
    }
    trace = next(trace for question, trace in questions.items() if "please compute" in question)
    cost = sum(step["cost"]["total"] for step in trace["observations"] if "cost" in step)
    assert found[0]["cost"] == f"{cost:.5f}"
    assert {line["outcome"] for line in lines if line["input"].startswith("~")} == {"aborted", "error"}


def test_a_narrow_terminal_without_colours_is_enough(replica_set: ReplicaSet, tmp_path: Path) -> None:
    """80 columns, and NO_COLOR (https://no-color.org): a turn never takes two lines."""
    with terminal(
        tmp_path,
        *SPEED,
        *("--file", "t.jsonl"),
        columns=80,
        TAILER_MONGO_URI=replica_set.uri,
        NO_COLOR="1",
    ) as screen:
        assert screen.read_to_the_end() == 0

    assert "\x1b" not in screen.text
    assert [line for line in screen.text.splitlines() if len(line) > 80] == []
    assert len(turn_lines(screen.text)) == TURNS


def test_ctrl_c_during_the_demo_sends_what_is_open_and_sums_up(tmp_path: Path) -> None:
    """The key goes to every process of the terminal; the server must live until the daemon is done with it."""
    with terminal(tmp_path, "--file", "traces.jsonl", columns=100) as screen:
        screen.read_until("warm up")
        screen.press(b"\x03")
        code = screen.read_to_the_end()

    assert code == 130
    assert "Stopping" in screen.text
    assert "Traceback" not in screen.text
    assert "warning" not in COLOUR.sub("", screen.text)
    turns = turn_lines(COLOUR.sub("", screen.text))
    assert 0 < len(turns) < TURNS
    assert f"turns    {len(turns)} acknowledged" in screen.text
    assert servers_of(tmp_path) == []
    assert list(tmp_path.glob("tailer-mongod-*")) == []


def test_ctrl_c_while_the_server_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    """No server, no data, no traceback."""
    with terminal(tmp_path, columns=100) as screen:
        screen.read_until("Starting a MongoDB")
        screen.press(b"\x03")
        code = screen.read_to_the_end()

    assert code == 130
    assert "Traceback" not in screen.text
    assert servers_of(tmp_path) == []
    assert list(tmp_path.glob("tailer-mongod-*")) == []


def test_keep_plays_again_until_ctrl_c(replica_set: ReplicaSet, tmp_path: Path) -> None:
    """Every round has ids of its own; the end is a success."""
    with terminal(
        tmp_path, "--keep", *SPEED, "--file", "t.jsonl", columns=100, TAILER_MONGO_URI=replica_set.uri
    ) as screen:
        screen.read_until("Playing again")
        screen.text = ""
        screen.read_until("Playing again")
        screen.press(b"\x03")
        assert screen.read_to_the_end() == 0

    traces = read_traces(tmp_path / "t.jsonl")
    assert len({trace["id"] for trace in traces}) == len(traces) >= 2 * (TURNS + TITLES)
    assert "Traceback" not in screen.text
