"""The two measurements, each of them for our daemon and for the script: working off a backlog, and following live."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient

from tailer.core.identity import turn_trace_id
from tests.benchmarks.figures import BacklogFigures, LifeFigures, PhaseFigures, percentile
from tests.benchmarks.phases import WARMING_SECONDS, Cast, Phase
from tests.benchmarks.processes import Process, cpu_seconds_of, start_script, start_tailer
from tests.benchmarks.turns import InventedTurn
from tests.benchmarks.writer import DATABASE, Writer
from tests.fakes.langfuse import ControlClient

_POLL_SECONDS: Final = 0.5
_STATE_DATABASE: Final = "librechat_tailer"
_QUIET_SECONDS: Final = 8.0
"""When nothing more has arrived for this long, nothing more will: a subject that sends late flushes at its end."""
_COMING_SECONDS: Final = 4.0
"""The script does not say when its stream is open; a daemon has stored its first position by then."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a measurement takes place."""

    uri: str
    mongod_id: int
    langfuse_url: str
    fake: ControlClient
    writer: Writer
    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of our daemon, where they are not its defaults."""
    python: str = sys.executable
    """The interpreter of the subjects, with what they need installed and best nothing else."""

    def start(self, subject: str, *, since_seconds: int) -> Process:
        """Our daemon, the script or the fuller script; the daemon goes on from its checkpoint, the script from a
        time."""
        if subject == "tailer":
            return start_tailer(
                self.uri, self.langfuse_url, self.directory, self.settings, python=self.python
            )
        return start_script(
            self.uri,
            self.langfuse_url,
            self.directory,
            since_seconds=since_seconds,
            everything=subject == "fuller",
            python=self.python,
        )

    def forget_what_was_sent(self) -> None:
        """Remove the records of sent turns. After a restart the daemon looks at those of the last hour once more, and
        idling would be measured together with that."""
        client: MongoClient[dict[str, Any]]
        with MongoClient(self.uri) as client:
            client[_STATE_DATABASE]["exports"].delete_many({})

    def mongod_seconds(self) -> float:
        """The CPU time that the server has used."""
        return cpu_seconds_of(self.mongod_id)


def measure_backlog(
    scene: Scene, subject: str, turns: Sequence[InventedTurn], *, since_seconds: int
) -> BacklogFigures:
    """How a subject works off turns that were all written before it starts."""
    scene.fake.reset()
    began, mongod_before = time.monotonic(), scene.mongod_seconds()
    with scene.start(subject, since_seconds=since_seconds) as process:
        last_arrival = _wait_for_arrivals(scene.fake, process, len(turns))
        cost = process.end()
    mongod_seconds = scene.mongod_seconds() - mongod_before
    state, arrivals = scene.fake.state(), scene.fake.arrivals()
    return BacklogFigures(
        turns=len(turns),
        arrived=len({turn_trace_id(turn.response_id) for turn in turns} & arrivals.keys()),
        spans=int(state["spans"]),
        spans_twice=len(state["duplicates"]),
        wire_bytes=int(state["wireBytes"]),
        cpu_seconds=cost.cpu_seconds,
        mongod_seconds=mongod_seconds,
        peak_bytes=cost.peak_bytes,
        elapsed_seconds=last_arrival - began,
    )


def measure_life(
    scene: Scene, subject: str, cast: Cast, phases: Sequence[Phase], *, idle_seconds: float
) -> LifeFigures:
    """How a subject idles, and then keeps up with turns while they are written, one phase after the other."""
    scene.fake.reset()
    with scene.start(subject, since_seconds=server_seconds(scene.uri) + 1) as process:
        time.sleep(_COMING_SECONDS)
        idle_before, mongod_before = process.cpu_seconds(), scene.mongod_seconds()
        time.sleep(idle_seconds)
        idle, mongod_idle = process.cpu_seconds() - idle_before, scene.mongod_seconds() - mongod_before
        idle_bytes = process.resident_bytes()
        life = _Life(scene, process, cast, phases)
        life.play()
        _wait_for_arrivals(scene.fake, process, life.count)
        cost = process.end()
    return LifeFigures(
        idle_cpu_a_second=idle / idle_seconds,
        idle_mongod_a_second=mongod_idle / idle_seconds,
        idle_bytes=idle_bytes,
        peak_bytes=cost.peak_bytes,
        spans_twice=len(scene.fake.state()["duplicates"]),
        phases=life.conclude(),
    )


def measure_nobody(scene: Scene, cast: Cast, phases: Sequence[Phase], *, idle_seconds: float) -> LifeFigures:
    """What the same writes cost the server when nobody follows them."""
    mongod_before = scene.mongod_seconds()
    time.sleep(idle_seconds)
    mongod_idle = scene.mongod_seconds() - mongod_before
    life = _Life(scene, None, cast, phases)
    life.play()
    return LifeFigures(0.0, mongod_idle / idle_seconds, 0, 0, 0, life.conclude())


class _Life:
    """The phases of one subject while they are played, and what was seen of each."""

    def __init__(self, scene: Scene, process: Process | None, cast: Cast, phases: Sequence[Phase]) -> None:
        self._scene = scene
        self._process = process
        self._phases = phases
        self._turns = [[list(tick) for tick in phase.spread(cast.turns_of(phase))] for phase in phases]
        self._seen: list[tuple[float, float, float]] = []

    @property
    def count(self) -> int:
        """The turns of all phases."""
        return sum(len(tick) for turns in self._turns for tick in turns)

    def play(self) -> None:
        """Write the turns, and look at the clocks where a measured time begins and ends."""
        marks, begin = set(), 0
        for phase in self._phases:
            marks |= {begin + phase.ticks_until(WARMING_SECONDS) - 1, begin + phase.ticks - 1}
            begin += phase.ticks
        for number in self._scene.writer.write_live(chain.from_iterable(self._turns)):
            if number in marks:
                cpu = 0.0 if self._process is None else self._process.cpu_seconds()
                self._seen.append((time.monotonic(), cpu, self._scene.mongod_seconds()))

    def conclude(self) -> dict[str, PhaseFigures]:
        """The figures of each phase by its name."""
        arrivals = self._scene.fake.arrivals()
        looks = zip(self._seen[::2], self._seen[1::2], strict=True)
        return {
            phase.name: self._conclude(phase, turns, arrivals, before, after)
            for phase, turns, (before, after) in zip(self._phases, self._turns, looks, strict=True)
        }

    def _conclude(
        self,
        phase: Phase,
        ticks: Sequence[Sequence[InventedTurn]],
        arrivals: dict[str, float],
        before: tuple[float, float, float],
        after: tuple[float, float, float],
    ) -> PhaseFigures:
        written = self._scene.writer.answered_at
        turns = list(chain.from_iterable(ticks))
        arrived = {
            turn.response_id: arrivals[trace_id]
            for turn in turns
            if (trace_id := turn_trace_id(turn.response_id)) in arrivals
        }
        latencies = sorted(moment - written[response_id] for response_id, moment in arrived.items())
        elapsed, cpu, mongod = (late - early for early, late in zip(before, after, strict=True))
        return PhaseFigures(
            rate=phase.rate,
            length=phase.length,
            turns=len(turns),
            arrived=len(arrived),
            written_a_second=phase.measured_turns / elapsed,
            cpu_a_turn=cpu / phase.measured_turns,
            mongod_a_turn=mongod / phase.measured_turns,
            seconds_a_turn=elapsed / phase.measured_turns,
            latency_p50=percentile(latencies, 50),
            latency_p95=percentile(latencies, 95),
            latency_p99=percentile(latencies, 99),
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
