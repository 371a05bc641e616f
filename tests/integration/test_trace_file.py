"""The file sink on a real file system: whole batches, or nothing, whatever interrupts the writing."""

import json
import os
import subprocess
import sys
import textwrap
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.trace.followup import Score, ScoreType
from tailer.daemon.destinations import open_destination
from tailer.errors import DestinationError
from tailer.events import BatchSettled
from tailer.flow.ports import UNCONDITIONAL
from tailer.flow.records import Batch
from tailer.flow.sending.destination_health import DestinationHealth
from tailer.flow.sending.outcomes import Delivered, Found, Retry, Unanswered
from tailer.flow.sending.transmission import Transmission
from tailer.settings import load_settings
from tailer.sinks.file import TraceFile
from tests.e2e.databases import Databases
from tests.evidence import Events, make_item, make_trace, observation_ids, probes, trace_ids
from tests.integration.leading import lead
from tests.integration.running import running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "traces.jsonl"


@pytest.fixture
async def file(path: Path) -> TraceFile:
    sink = TraceFile(path)
    await sink.prepare()
    return sink


def payload_of(file: TraceFile, *message_ids: str, text: str = "What is the time?") -> bytes:
    return file.frame([file.encode(make_trace(message_id, text=text)) for message_id in message_ids])


def content(path: Path) -> bytes:
    return path.read_bytes()


def fill(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def stored_ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in content(path).splitlines()]


async def test_a_trace_is_one_line_that_is_read_back(file: TraceFile, path: Path) -> None:
    """Ids, user, session and every observation; line breaks of a text do not end the line."""
    text = 'first\nsecond\r\n\u2028third "quoted" \ud800 😀'
    assert await file.deliver(payload_of(file, "m1", "m2", text=text)) == Delivered()

    lines = [json.loads(line) for line in content(path).split(b"\n")[:-1]]
    assert [line["id"] for line in lines] == trace_ids("m1", "m2")
    assert (lines[0]["user_id"], lines[0]["session_id"], lines[0]["tags"]) == (
        "user-1",
        "conversation-1",
        ["librechat"],
    )
    (observation,) = lines[0]["observations"]
    assert observation["input"].startswith("first\nsecond")
    assert (observation["type"], observation["output"]) == ("agent", "Noon")
    assert "model" not in observation
    assert mode(path) == 0o600


async def test_a_payload_comes_apart_into_its_lines(file: TraceFile) -> None:
    """As a batch is halved."""
    chunks = [file.encode(make_trace(f"m{number}", text="x" * number)) for number in range(5)]

    assert list(file.unframe(file.frame(chunks), [len(chunk) for chunk in chunks])) == chunks


@pytest.mark.parametrize("torn", [b'{"id": "half', b"x" * 200_000, b"\x00" * 4096, b""])
async def test_a_line_that_was_cut_short_is_removed_at_the_next_start(
    file: TraceFile, path: Path, torn: bytes
) -> None:
    """Also one longer than what is read at once; whole lines stay."""
    await file.deliver(payload_of(file, "m1", "m2"))
    whole = content(path)
    fill(path, whole + torn)

    again = TraceFile(path)
    await again.prepare()

    assert content(path) == whole
    await again.deliver(payload_of(again, "m3"))
    assert stored_ids(path) == trace_ids("m1", "m2", "m3")


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
async def test_a_file_that_is_one_torn_line_becomes_empty(path: Path, size: int) -> None:
    """Killed during the very first batch, at sizes around what is read at once."""
    fill(path, b"x" * size)
    await TraceFile(path).prepare()

    assert content(path) == b""


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537])
async def test_a_whole_line_of_any_length_stays(path: Path, size: int) -> None:
    """The line break at the very beginning or end of what is read at once."""
    whole = b"a\n" + b"x" * size + b"\n"
    fill(path, whole + b"torn")
    await TraceFile(path).prepare()

    assert content(path) == whole


def test_a_full_disk_leaves_no_half_batch_and_the_retry_writes_all_of_it(path: Path) -> None:
    """In a process of its own whose files may not grow beyond some kilobytes, and may again later."""
    program = textwrap.dedent(
        """
        import asyncio, resource, signal, sys
        from pathlib import Path
        from tailer.flow.sending.outcomes import Delivered, Retry
        from tailer.sinks.file import TraceFile
        from tests.evidence import make_trace

        async def main():
            path = Path(sys.argv[1])
            file = TraceFile(path)
            await file.prepare()
            first = file.frame([file.encode(make_trace("m0"))])
            assert await file.deliver(first) == Delivered()
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(first) + 1000, unlimited[1]))
            batch = file.frame([file.encode(make_trace(f"m{n}", text="x" * 500)) for n in range(1, 6)])
            outcome = await file.deliver(batch)
            assert isinstance(outcome, Retry), outcome
            assert outcome.reason.startswith("file: "), outcome
            assert path.read_bytes() == first, path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            assert await file.deliver(batch) == Delivered()
            assert path.read_bytes() == first + batch

        asyncio.run(main())
        """
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, timeout=60
    )

    assert ended.returncode == 0, ended.stderr
    assert stored_ids(path) == trace_ids(*(f"m{number}" for number in range(6)))


async def test_a_batch_is_on_disk_before_it_counts_as_delivered(
    file: TraceFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synced with every line of it written; when the sync fails nothing of it stays."""
    synced: list[int] = []
    sync = os.fsync

    def observe(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", observe)
    payload = payload_of(file, "m1", "m2")
    await file.deliver(payload)
    assert synced == [len(payload)]

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    assert await file.deliver(payload_of(file, "m3")) == Retry("file: Input/output error")
    assert content(path) == payload


async def test_a_write_that_takes_only_a_part_is_continued(
    file: TraceFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system may write less than it was given."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    payload = payload_of(file, "m1", "m2")
    await file.deliver(payload)

    assert content(path) == payload


async def test_a_mount_that_is_lost_is_waited_for(file: TraceFile, path: Path) -> None:
    """The folder is away, and back."""
    away = path.parent.with_name("away")
    path.parent.rename(away)
    assert await file.deliver(payload_of(file, "m1")) == Retry("file: No such file or directory")
    assert await file.find(probes("m1")) == Unanswered("file: No such file or directory")

    away.rename(path.parent)
    assert await file.deliver(payload_of(file, "m1")) == Delivered()


async def test_what_is_in_the_file_is_found_and_nothing_else(file: TraceFile, path: Path) -> None:
    """Lines that somebody else wrote are passed over."""
    with path.open("ab") as lines:
        lines.write(b"hello\n[1]\n7\n{}\n\xff\xfe\n" + payload_of(file, "m1", "m2"))

    assert await file.find(probes("m1", "m2")) == Found(frozenset(observation_ids("m1", "m2")))
    assert await file.find(probes("m2")) == Found(frozenset(observation_ids("m2")))
    assert await file.find(probes("m3")) == Found(frozenset())


@pytest.mark.parametrize("whole_lines", range(6))
async def test_a_batch_that_a_crash_cut_short_is_completed_and_not_repeated(
    path: Path, whole_lines: int
) -> None:
    """SIGKILL in the middle of the write, with a batch of another sender written before this one is settled."""
    file = TraceFile(path)
    await file.prepare()
    message_ids = [f"m{number}" for number in range(5)]
    traces = [make_trace(message_id) for message_id in message_ids]
    chunks = [file.encode(trace) for trace in traces]
    torn = b"" if whole_lines == 5 else chunks[whole_lines][:20]
    fill(path, b"".join(chunks[:whole_lines]) + torn)
    items = [make_item(trace, chunk) for trace, chunk in zip(traces, chunks, strict=True)]
    batch = Batch(uuid.uuid4().hex, tuple(items), file.frame(chunks))

    again, events = TraceFile(path), Events()
    await again.prepare()
    await again.deliver(payload_of(again, "other"))
    health = DestinationHealth(events, monotonic=time.monotonic)
    transmission = Transmission(again, health, events, lookup=timedelta(), monotonic=time.monotonic)
    assert await transmission.send(batch, maybe_sent=True) == Delivered()

    assert sorted(stored_ids(path)) == sorted(trace_ids(*message_ids, "other"))
    verdict = "found" if whole_lines == 5 else "sent_again"
    assert [event.verdict for event in events.of(BatchSettled)] == [verdict]


async def test_a_batch_that_is_not_in_the_file_is_written_without_waiting(
    databases: Databases, path: Path
) -> None:
    """A file's answer is definite: the time in which Langfuse may still show something is not for it."""
    file = TraceFile(path)
    chunk = file.encode(make_trace("m1"))
    batch = Batch(uuid.uuid4().hex, (make_item(make_trace("m1"), chunk),), file.frame([chunk]))
    left = await lead(databases.state.client, databases.state.name, Events())
    await left.begin_batch(batch)

    began = time.monotonic()
    async with running(databases, None, file_path=path, lookup_time=timedelta(minutes=1)) as run:
        await run.events.until(lambda: bool(run.events.of(BatchSettled)))
        took = time.monotonic() - began
        await run.until_done()

    assert took < 30
    assert [event.verdict for event in run.events.of(BatchSettled)] == ["sent_again"]
    assert stored_ids(path) == trace_ids("m1")


async def test_scores_and_deletions_are_lines_of_their_own(file: TraceFile, path: Path) -> None:
    """Behind the traces, which stay as they were written and are found as before."""
    score = Score("s1", turn_trace_id("m1"), "user-feedback", ScoreType.BOOLEAN, 1, None, {"tag": "x"}, 7)
    await file.deliver(payload_of(file, "m1"))
    assert await file.put_score(score) == Delivered()
    assert await file.delete_score("s1") == Delivered()
    assert await file.delete_traces(trace_ids("m1")) == Delivered()

    lines = [json.loads(line) for line in content(path).splitlines()]
    assert lines[0]["id"] == turn_trace_id("m1")
    assert lines[1]["score"] == {
        "id": "s1", "trace_id": turn_trace_id("m1"), "name": "user-feedback", "type": "BOOLEAN", "value": 1,
        "comment": None, "metadata": {"tag": "x"}, "timestamp_milliseconds": 7,
    }  # fmt: skip
    assert lines[2:] == [{"score_deleted": "s1"}, {"traces_deleted": trace_ids("m1")}]
    assert await file.find(probes("m1")) == Found(frozenset(observation_ids("m1")))


@pytest.mark.parametrize("kind", ["directory", "below a file"])
async def test_a_path_that_cannot_be_a_file_is_an_error_that_names_the_setting(
    tmp_path: Path, kind: str
) -> None:
    """Said at the start, not at the first turn."""
    taken = tmp_path / "taken"
    target: Any = taken
    if kind == "directory":
        taken.mkdir()
    else:
        taken.write_text("")
        target = taken / "traces.jsonl"

    with pytest.raises(DestinationError, match="TAILER_FILE_PATH"):
        await TraceFile(target).prepare()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "; set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"),
        ({"TAILER_SINK": "file"}, "; set TAILER_FILE_PATH"),
        ({"TAILER_FILE_PATH": "traces.jsonl"}, "; set TAILER_FILE_PATH"),
    ],
)
async def test_who_gave_no_keys_is_told_of_them_where_the_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str
) -> None:
    """The example of settings has empty keys, and then a file is written to, which nobody asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILER_MONGO_URI", "mongodb://mongodb/LibreChat")
    monkeypatch.setenv("LANGFUSE_HOST", "https://langfuse.example.org")
    (tmp_path / "traces.jsonl").mkdir()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    (described,) = settings.destinations

    async with open_destination(settings, described, lambda _: None, permit=UNCONDITIONAL) as opened:
        with pytest.raises(DestinationError) as refused:
            await opened.prove()

    assert expected in refused.value.hint
