"""The fake Langfuse server as a process of its own: started, questioned, killed and started again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.langfuse import ControlClient, FakeLangfuse, answer, hang
from tests.fakes.langfuse.journal import Journal
from tests.fakes.langfuse.samples import (
    GENERATION_ID,
    ROOT_ID,
    TRACE_ID,
    compressed,
    encode_protobuf,
    generation_span,
    request_headers,
    root_span,
)

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Running:
    """A fake that runs in another process."""

    process: subprocess.Popen[str]
    url: str
    control: ControlClient

    def send(self, body: bytes) -> int:
        """Post a compressed batch and give the status."""
        headers = {**request_headers(), "Content-Encoding": "gzip"}
        return self.request("POST", "/api/public/otel/v1/traces", compressed(body), headers)

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
        """Send a request and give the status."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        with closing(connection):
            connection.request(method, path, body=body, headers=headers)
            return connection.getresponse().status


@contextmanager
def running(*arguments: str) -> Iterator[Running]:
    """A fake process, killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.fakes.langfuse", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline())
            yield Running(process, started["url"], ControlClient(started["url"]))
        finally:
            process.kill()


def test_a_process_says_its_port_and_ends_on_sigterm(tmp_path: Path) -> None:
    """One JSON line on stdout, the port in a file when asked, exit status 0 after SIGTERM."""
    port_file = tmp_path / "port"
    with running("--port-file", str(port_file)) as fake:
        fake.process.send_signal(signal.SIGTERM)

        assert fake.process.wait(timeout=10) == 0
        assert f"http://127.0.0.1:{port_file.read_text().strip()}" == fake.url


def test_a_killed_fake_keeps_what_it_accepted(tmp_path: Path) -> None:
    """After SIGKILL a new process with the same journal has spans, scores and deletions."""
    journal = str(tmp_path / "journal")
    headers = {**request_headers(), "Content-Type": "application/json"}
    scores = [
        {"id": "kept", "traceId": TRACE_ID, "name": "user-feedback", "value": 1},
        {"id": "gone", "traceId": TRACE_ID, "name": "user-feedback", "value": 1},
    ]
    with running("--journal", journal) as fake:
        assert fake.send(encode_protobuf([root_span(), generation_span()])) == 200
        assert fake.send(encode_protobuf([root_span(trace_id="f" * 32)])) == 200
        assert fake.request("POST", "/api/public/scores", json.dumps(scores).encode(), headers) == 202
        assert fake.request("DELETE", "/api/public/scores/gone", b"", headers) == 202
        deletion = json.dumps({"traceIds": ["f" * 32]}).encode()
        assert fake.request("DELETE", "/api/public/traces", deletion, headers) == 200
        before = fake.control.state()
        fake.process.kill()
    with running("--journal", journal) as fake:
        after = fake.control.state()
        trace = fake.control.trace(TRACE_ID)

        assert {**before, "requests": {}} == {**after, "requests": {}}
        assert (after["uniqueSpans"], [row["id"] for row in after["scores"]]) == (2, ["kept"])
        assert trace is not None
        assert [row["spanId"] for row in trace] == [ROOT_ID, GENERATION_ID]


def test_what_was_accepted_without_an_answer_is_in_the_journal(tmp_path: Path) -> None:
    """Kill the fake while it holds an accepted request: the spans are there afterwards."""
    journal = str(tmp_path / "journal")
    with running("--journal", journal) as fake, ThreadPoolExecutor() as threads:
        fake.control.add_faults(hang(stored=True))
        sending = threads.submit(fake.send, encode_protobuf([root_span()]))
        fake.control.wait_until(
            lambda state: "hang after" in state["requests"].get("spans", {}), timeout_seconds=10
        )
        fake.process.kill()
        with pytest.raises(ConnectionError):
            sending.result(timeout=10)
    with running("--journal", journal) as fake:
        assert fake.control.state()["uniqueSpans"] == 1


def test_a_refused_batch_is_not_in_the_journal(tmp_path: Path) -> None:
    """Only what was accepted comes back."""
    journal = str(tmp_path / "journal")
    with running("--journal", journal) as fake:
        assert fake.send(encode_protobuf([root_span().having({"user.id": None})])) == 400
        assert len(fake.control.state()["violations"]) == 1
    with running("--journal", journal) as fake:
        assert fake.control.state()["spans"] == 0


def test_a_record_cut_short_is_dropped(tmp_path: Path) -> None:
    """A half-written record was never acknowledged; what came before it stays, what follows is readable."""
    path = tmp_path / "journal"
    with running("--journal", str(path)) as fake:
        fake.send(encode_protobuf([root_span()]))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    with Journal(path) as journal:
        (record,) = journal.records()
        journal.append(record)

        assert [found == record for found in journal.records()] == [True, True]


def test_a_light_fake_counts_and_keeps_nothing() -> None:
    """Ids, duplicates and bytes are counted; reads are refused."""
    batch = encode_protobuf([root_span(), generation_span()])
    with running("--light") as fake:
        statuses = [fake.send(batch), fake.send(encode_protobuf([root_span()]))]
        state = fake.control.state()

        assert (statuses, state["spans"], state["uniqueSpans"], state["traces"]) == ([200, 200], 3, 2, 1)
        assert (state["duplicates"], state["batches"]) == ([[TRACE_ID, ROOT_ID]], 2)
        assert state["bodyBytes"] == len(batch) + len(encode_protobuf([root_span()]))
        assert list(fake.control.arrivals()) == [TRACE_ID]
        assert fake.request("GET", "/api/public/v2/observations", b"", request_headers()) == 501


def test_the_control_client_programs_and_looks_inside() -> None:
    """Faults, visibility, traces and reset work from another process."""
    batch = encode_protobuf([root_span()])
    with running("--visible-after", "60") as fake:
        fake.control.add_faults(answer(503, times=1), answer(500, times=None))
        assert [fake.send(batch), fake.send(batch)] == [503, 500]
        fake.control.clear_faults()
        assert fake.send(batch) == 200
        assert (fake.control.traces()[0]["traceId"], fake.control.trace("e" * 32)) == (TRACE_ID, None)
        fake.control.set_visible_after(0.5)
        state = fake.control.state()
        assert (state["visibleAfterSeconds"], state["requests"]) == (
            0.5,
            {"spans": {"503": 1, "500": 1, "200": 1}},
        )
        fake.control.reset()
        assert (fake.control.state()["spans"], fake.control.traces()) == (0, [])


def test_a_misspelt_fault_is_refused() -> None:
    """A fault that would never fire is an error at once."""
    with running() as fake:
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"effect": "hang", "rout": "spans"}).encode()

        assert fake.request("POST", "/_control/faults", body, headers) == 400
        with pytest.raises(ValueError, match="400"):
            fake.control.set_visible_after("soon")  # type: ignore[arg-type]


def test_the_control_client_waits_for_a_state() -> None:
    """It returns the first state that fits and names the last one when none does."""
    with running() as fake:
        with ThreadPoolExecutor() as threads:
            threads.submit(fake.send, encode_protobuf([root_span()]))
            state = fake.control.wait_until(lambda found: bool(found["spans"]), timeout_seconds=10)

        assert state["spans"] == 1
        with pytest.raises(TimeoutError, match="spans"):
            fake.control.wait_until(lambda found: found["spans"] == 2, timeout_seconds=0)


async def test_a_fake_in_the_same_process_can_have_a_journal(tmp_path: Path) -> None:
    """A second fake on the same journal starts with what the first accepted, and a reset empties it."""
    path = tmp_path / "journal"
    async with FakeLangfuse(journal_path=path) as first:
        first.state.accept_spans(
            encode_protobuf([root_span()]),
            content_type="application/x-protobuf",
            encoding=None,
            ingestion_version="4",
        )
    async with FakeLangfuse(journal_path=path) as second:
        kept = [stored.span_id for stored in second.spans]
        second.reset()

    assert (kept, path.read_bytes()) == ([ROOT_ID], b"")


async def test_waiting_for_what_never_comes_ends() -> None:
    """The wait has a limit."""
    async with FakeLangfuse() as fake:
        with pytest.raises(TimeoutError):
            await fake.wait_until(lambda: bool(fake.spans), timeout_seconds=0.05)
        waiting = asyncio.create_task(fake.wait_until(lambda: not fake.violations, timeout_seconds=5))
        await waiting
