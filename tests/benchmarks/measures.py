"""The two measurements, each of them for our daemon and for the script: working off a backlog, and following live."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient

from tailer.core.identity import turn_trace_id
from tests.benchmarks.processes import Process, start_script, start_tailer
from tests.benchmarks.turns import InventedTurn
from tests.benchmarks.writer import DATABASE, Writer
from tests.fakes.langfuse import ControlClient

_POLL_SECONDS: Final = 0.5
_QUIET_SECONDS: Final = 8.0
"""When nothing more has arrived for this long, nothing more will: a subject that sends late flushes at its end."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a measurement takes place."""

    uri: str
    langfuse_url: str
    fake: ControlClient
    writer: Writer
    directory: Path

    def start(self, subject: str, *, since_seconds: int) -> Process:
        """Our daemon, the script or the fuller script; the daemon goes on from its checkpoint, the script from a
        time."""
        if subject == "tailer":
            return start_tailer(self.uri, self.langfuse_url, self.directory)
        return start_script(
            self.uri,
            self.langfuse_url,
            self.directory,
            since_seconds=since_seconds,
            everything=subject == "fuller",
        )


@dataclass(frozen=True, slots=True)
class Measures:
    """What one subject did with some turns. Sizes in bytes, latencies in seconds from the write of the answer."""

    turns: int
    arrived: int
    duplicates: int
    spans: int
    wire_bytes: int
    cpu_seconds: float
    peak_bytes: int
    elapsed_seconds: float
    latencies: Sequence[float] = ()


def measure_backlog(
    scene: Scene, subject: str, turns: Sequence[InventedTurn], *, since_seconds: int
) -> Measures:
    """How a subject works off turns that were all written before it starts."""
    scene.fake.reset()
    began = time.monotonic()
    with scene.start(subject, since_seconds=since_seconds) as process:
        last_arrival = _wait_for_arrivals(scene.fake, process, len(turns))
        return _conclude(scene.fake, process, turns, elapsed_seconds=last_arrival - began, written={})


def measure_live(scene: Scene, subject: str, turns: Sequence[InventedTurn], *, rate: int) -> Measures:
    """How a subject keeps up with turns while they are written."""
    scene.fake.reset()
    with scene.start(subject, since_seconds=server_seconds(scene.uri) + 1) as process:
        # The script says nothing when its stream is open; a daemon that is not under load yet costs nothing.
        time.sleep(3.0)
        elapsed = scene.writer.write_live(turns, rate=rate)
        _wait_for_arrivals(scene.fake, process, len(turns))
        return _conclude(
            scene.fake, process, turns, elapsed_seconds=elapsed, written=scene.writer.answered_at
        )


def server_seconds(uri: str) -> int:
    """The server's cluster time."""
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        return int(client[DATABASE].command("hello")["$clusterTime"]["clusterTime"].time)


def _wait_for_arrivals(fake: ControlClient, process: Process, turns: int) -> float:
    """Wait until all turns arrived, or none does any more; when the last one did, by the monotonic clock."""
    seen, seen_at = 0, time.monotonic()
    while True:
        time.sleep(_POLL_SECONDS)
        process.check()
        arrived = int(fake.state()["traces"])
        now = time.monotonic()
        if arrived > seen:
            seen, seen_at = arrived, now
        # Titles make more traces than turns: what is complete is known only when it is quiet.
        patience = _QUIET_SECONDS if seen < turns else 2.0
        if now - seen_at > patience and (seen or now - seen_at > 6 * _QUIET_SECONDS):
            return seen_at


def _conclude(
    fake: ControlClient,
    process: Process,
    turns: Sequence[InventedTurn],
    *,
    elapsed_seconds: float,
    written: Mapping[str, float],
) -> Measures:
    cost = process.end()
    state, arrivals = fake.state(), fake.arrivals()
    expected = {turn_trace_id(turn.response_id): turn.response_id for turn in turns}
    found = expected.keys() & arrivals.keys()
    return Measures(
        turns=len(turns),
        arrived=len(found),
        duplicates=len(state["duplicates"]),
        spans=int(state["spans"]),
        wire_bytes=int(state["wireBytes"]),
        cpu_seconds=cost.cpu_seconds,
        peak_bytes=cost.peak_bytes,
        elapsed_seconds=elapsed_seconds,
        latencies=sorted(
            arrivals[trace_id] - written[expected[trace_id]]
            for trace_id in found
            if expected[trace_id] in written
        ),
    )
