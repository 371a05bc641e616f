"""The figures of a run, as they are printed, drawn and stored as JSON. CPU and times in seconds, sizes in bytes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class BacklogFigures:
    """What one subject did with turns that were written before it started; its CPU includes start and end."""

    turns: int
    arrived: int
    spans: int
    spans_twice: int
    wire_bytes: int
    cpu_seconds: float
    mongod_seconds: float
    peak_bytes: int
    elapsed_seconds: float

    @property
    def turns_a_cpu_second(self) -> float:
        """The turns that arrived for each second of CPU."""
        return self.arrived / self.cpu_seconds


@dataclass(frozen=True, slots=True)
class PhaseFigures:
    """What one subject did with the turns of a live phase; what it uses while idle is in its CPU."""

    rate: int
    length: int
    turns: int
    arrived: int
    written_a_second: float
    cpu_a_turn: float
    mongod_a_turn: float
    seconds_a_turn: float
    latency_p50: float | None
    latency_p95: float | None
    latency_p99: float | None


@dataclass(frozen=True, slots=True)
class LifeFigures:
    """What one subject did from its start on: idling, and then the phases by their names."""

    idle_cpu_a_second: float
    idle_mongod_a_second: float
    idle_bytes: int
    peak_bytes: int
    spans_twice: int
    phases: Mapping[str, PhaseFigures]


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that one run measured, by subject."""

    machine: str
    backlog: Mapping[str, BacklogFigures]
    lives: Mapping[str, LifeFigures]

    def write(self, path: Path) -> None:
        """Store them as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Those of an earlier run."""
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            stored["machine"],
            {subject: BacklogFigures(**figures) for subject, figures in stored["backlog"].items()},
            {subject: _read_life(figures) for subject, figures in stored["lives"].items()},
        )


def percentile(sorted_values: Sequence[float], percent: int) -> float | None:
    """A percentile by nearest rank."""
    if not sorted_values:
        return None
    return sorted_values[min(len(sorted_values) - 1, len(sorted_values) * percent // 100)]


def _read_life(stored: dict[str, Any]) -> LifeFigures:
    phases = {name: PhaseFigures(**figures) for name, figures in stored.pop("phases").items()}
    return LifeFigures(**stored, phases=phases)
