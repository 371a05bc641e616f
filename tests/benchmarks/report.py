"""Puts the measures of both side by side, with their ratio and the goals."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.benchmarks.measures import Measures

SUBJECTS: Final = ("tailer", "script", "fuller")
"""Our daemon; the short script; the script that sends history and tools too, as the daemon does."""
_GOAL_RATIO: Final = 5.0
_GOAL_BYTES: Final = 120 * 1_000_000
_GOAL_LATENCY_SECONDS: Final = 3.5


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: a number for each subject, shown with some decimals."""

    name: str
    values: Mapping[str, float]
    decimals: int = 1
    compared: bool = False


def describe_machine(mongodb_version: str) -> str:
    """What the numbers were measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("motor", "pymongo", "langfuse", "httpx"))
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, Python {platform.python_version()}, "
        f"MongoDB {mongodb_version}, {packages}"
    )


def tabulate_backlog(measured: Mapping[str, Measures]) -> str:
    """The table of the backlog."""
    return _tabulate(
        [
            *_shared_lines(measured),
            Line("seconds until all arrived", {name: m.elapsed_seconds for name, m in measured.items()}),
        ]
    )


def tabulate_live(measured: Mapping[str, Measures]) -> str:
    """The table of the live run."""
    shares = {name: 100 * m.cpu_seconds / m.elapsed_seconds for name, m in measured.items()}
    return _tabulate(
        [
            *_shared_lines(measured),
            # Below the rate asked for, this machine was too busy for its latencies to mean anything.
            Line(
                "turns written a second", {name: m.turns / m.elapsed_seconds for name, m in measured.items()}
            ),
            Line("CPU, % of one core", shares),
            *(
                Line(
                    f"latency p{percent}, seconds",
                    {name: percentile(m.latencies, percent) for name, m in measured.items()},
                    decimals=2,
                )
                for percent in (50, 95, 99)
            ),
        ]
    )


def judge(backlog: Mapping[str, Measures], live: Mapping[str, Measures]) -> list[str]:
    """A sentence for each goal that could be measured."""
    found = []
    if "tailer" in backlog:
        ours = backlog["tailer"]
        for name in SUBJECTS[1:]:
            if name in backlog:
                ratio = _turns_a_cpu_second(ours) / _turns_a_cpu_second(backlog[name])
                found.append(
                    _verdict(f"turns per CPU second: {ratio:.1f} times those of {name}", ratio, _GOAL_RATIO)
                )
        peak = ours.peak_bytes / 1e6
        found.append(_verdict(f"peak memory: {peak:.0f} MB of 120", -ours.peak_bytes, -_GOAL_BYTES))
        once = ours.arrived == ours.turns and not ours.duplicates
        found.append(_verdict("every turn arrived exactly once", float(once), 1.0))
    if "tailer" in live:
        late = percentile(live["tailer"].latencies, 99)
        found.append(_verdict(f"latency p99: {late:.2f} s of 3.5", -late, -_GOAL_LATENCY_SECONDS))
    return found


def percentile(sorted_values: Sequence[float], percent: int) -> float:
    """A percentile by nearest rank; not a number where there are no values."""
    if not sorted_values:
        return float("nan")
    return sorted_values[min(len(sorted_values) - 1, len(sorted_values) * percent // 100)]


def _shared_lines(measured: Mapping[str, Measures]) -> list[Line]:
    items = measured.items()
    return [
        Line("turns written", {name: m.turns for name, m in items}, decimals=0),
        Line("turns arrived", {name: m.arrived for name, m in items}, decimals=0),
        Line("spans sent twice", {name: m.duplicates for name, m in items}, decimals=0),
        Line("spans a turn", {name: m.spans / max(1, m.arrived) for name, m in items}, decimals=2),
        Line("CPU seconds", {name: m.cpu_seconds for name, m in items}, decimals=2, compared=True),
        Line(
            "turns per CPU second",
            {name: _turns_a_cpu_second(m) for name, m in items},
            decimals=0,
            compared=True,
        ),
        Line(
            "wire bytes a turn",
            {name: m.wire_bytes / max(1, m.arrived) for name, m in items},
            decimals=0,
            compared=True,
        ),
        Line("peak memory, MB", {name: m.peak_bytes / 1e6 for name, m in items}, compared=True),
    ]


def _turns_a_cpu_second(measures: Measures) -> float:
    return measures.arrived / measures.cpu_seconds


def _tabulate(lines: Sequence[Line]) -> str:
    rows = [["", *SUBJECTS, *(f"tailer / {name}" for name in SUBJECTS[1:])]]
    for line in lines:
        cells = [
            f"{line.values[name]:,.{line.decimals}f}" if name in line.values else "-" for name in SUBJECTS
        ]
        rows.append([line.name, *cells, *(_ratio(line, name) for name in SUBJECTS[1:])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _ratio(line: Line, name: str) -> str:
    ours, theirs = line.values.get("tailer"), line.values.get(name)
    return f"{ours / theirs:.2f}" if line.compared and ours and theirs else ""


def _verdict(sentence: str, value: float, goal: float) -> str:
    return f"{'reached' if value >= goal else 'MISSED '}  {sentence}"
