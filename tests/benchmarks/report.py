"""Puts the figures of all subjects side by side as plain tables, and those of two runs."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from tests.benchmarks.figures import BacklogFigures, Figures, LifeFigures, PhaseFigures

SUBJECTS: Final = ("tailer", "script", "fuller")
"""Our daemon; the short script; the script that sends history and tools too, as the daemon does."""
NOBODY: Final = "nobody"
"""The subject that is not there: what LibreChat's own writes cost the server."""
_UNKNOWN: Final = "-"


def describe_machine(mongodb_version: str) -> str:
    """What the numbers were measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("motor", "pymongo", "langfuse", "httpx"))
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python "
        f"{platform.python_version()}, MongoDB {mongodb_version}, {packages}"
    )


def tabulate(figures: Figures) -> str:
    """All tables of a run."""
    parts = [figures.machine]
    if figures.backlog:
        parts.append(
            f"Backlog: the turns were in the oplog before the start\n{_tabulate_backlog(figures.backlog)}"
        )
    if figures.lives:
        parts.append(
            f"Live, CPU in milliseconds a turn, what idling takes included\n{_tabulate_cpu(figures.lives)}"
        )
        parts.append(f"Live, mongod's CPU in milliseconds a turn\n{_tabulate_mongod(figures.lives)}")
        parts.append(
            f"Live, seconds from the write of the answer until Langfuse has it\n{_tabulate_latency(figures.lives)}"
        )
        parts.append(f"While nothing happens, and in all phases\n{_tabulate_lives(figures.lives)}")
    return "\n\n".join(parts)


def compare(now: Figures, before: Figures) -> str:
    """The figures of both runs that can be compared, and their ratio."""
    old = dict(_headlines(before))
    rows = [
        [name, f"{old[name]:.2f}", f"{value:.2f}", f"{value / old[name]:.2f}"]
        for name, value in _headlines(now)
        if old.get(name)
    ]
    return _lay_out([["", "before", "now", "now / before"], *rows])


def _headlines(figures: Figures) -> Iterator[tuple[str, float]]:
    for subject, backlog in figures.backlog.items():
        yield f"{subject}: backlog, CPU ms a turn", 1e3 * backlog.cpu_seconds / max(1, backlog.arrived)
        yield f"{subject}: backlog, peak MB", backlog.peak_bytes / 1e6
    for subject, life in figures.lives.items():
        yield f"{subject}: idle, CPU ms a second", 1e3 * life.idle_cpu_a_second
        yield f"{subject}: idle, MB", life.idle_bytes / 1e6
        for name, phase in life.phases.items():
            yield f"{subject}: {name}, CPU ms a turn", 1e3 * phase.cpu_a_turn
            yield f"{subject}: {name}, mongod ms a turn", 1e3 * phase.mongod_a_turn
            if phase.latency_p99 is not None:
                yield f"{subject}: {name}, p99 seconds", phase.latency_p99


def _tabulate_backlog(measured: Mapping[str, BacklogFigures]) -> str:
    subjects = [name for name in SUBJECTS if name in measured]
    lines: list[tuple[str, Callable[[BacklogFigures], float], int, bool]] = [
        ("turns written", lambda m: m.turns, 0, False),
        ("turns arrived", lambda m: m.arrived, 0, False),
        ("spans sent twice", lambda m: m.spans_twice, 0, False),
        ("spans a turn", lambda m: m.spans / max(1, m.arrived), 2, False),
        ("CPU seconds", lambda m: m.cpu_seconds, 2, True),
        ("turns per CPU second", lambda m: m.turns_a_cpu_second, 0, True),
        ("mongod's CPU, ms a turn", lambda m: 1e3 * m.mongod_seconds / max(1, m.arrived), 2, True),
        ("wire bytes a turn", lambda m: m.wire_bytes / max(1, m.arrived), 0, True),
        ("peak memory, MB", lambda m: m.peak_bytes / 1e6, 1, True),
        ("seconds until all arrived", lambda m: m.elapsed_seconds, 1, False),
    ]
    others = [name for name in subjects if name != "tailer" and "tailer" in subjects]
    rows = [["", *subjects, *(f"tailer / {name}" for name in others)]]
    for title, read, decimals, is_compared in lines:
        values = {name: read(measured[name]) for name in subjects}
        ratios = [f"{values['tailer'] / values[name]:.2f}" if is_compared else "" for name in others]
        rows.append([title, *(f"{values[name]:,.{decimals}f}" for name in subjects), *ratios])
    return _lay_out(rows)


def _tabulate_cpu(lives: Mapping[str, LifeFigures]) -> str:
    subjects = _present(lives)
    others = [name for name in subjects if name != "tailer" and "tailer" in subjects]
    heads = [f"tailer / {name}{suffix}" for name in others for suffix in ("", ", idle taken off")]
    rows = [["", *subjects, *heads, "turns written a second"]]
    for name in _phase_names(lives):
        cells = [_milliseconds(_phase(lives, subject, name), "cpu_a_turn") for subject in subjects]
        for other in others:
            ours, theirs = (
                (lives[subject], phase)
                for subject in ("tailer", other)
                if (phase := _phase(lives, subject, name)) is not None
            )
            cells.append(f"{ours[1].cpu_a_turn / theirs[1].cpu_a_turn:.2f}")
            cells.append(f"{busy_a_turn(*ours) / busy_a_turn(*theirs):.2f}")
        # Below the rate asked for, this machine was too busy for its figures to mean much.
        slowest = min(life.phases[name].written_a_second for life in lives.values())
        rows.append([name, *cells, f"{slowest:.1f}"])
    return _lay_out(rows)


def busy_a_turn(life: LifeFigures, phase: PhaseFigures) -> float:
    """The CPU seconds of a turn without what the subject uses when idle."""
    return phase.cpu_a_turn - life.idle_cpu_a_second * phase.seconds_a_turn


def _tabulate_mongod(lives: Mapping[str, LifeFigures]) -> str:
    subjects = _present(lives)
    rows = [["", NOBODY, *(f"with {name}" for name in subjects), *(f"{name}'s share" for name in subjects)]]
    for name in _phase_names(lives):
        base = _phase(lives, NOBODY, name)
        phases = [_phase(lives, subject, name) for subject in subjects]
        shares = [
            _UNKNOWN
            if base is None or phase is None
            else f"{1e3 * (phase.mongod_a_turn - base.mongod_a_turn):+.2f}"
            for phase in phases
        ]
        rows.append(
            [
                name,
                _milliseconds(base, "mongod_a_turn"),
                *(_milliseconds(phase, "mongod_a_turn") for phase in phases),
                *shares,
            ]
        )
    return _lay_out(rows)


def _tabulate_latency(lives: Mapping[str, LifeFigures]) -> str:
    subjects = _present(lives)
    rows = [["", *(f"{subject} {name}" for subject in subjects for name in ("p50", "p95", "p99", "arrived"))]]
    for name in _phase_names(lives):
        cells = []
        for subject in subjects:
            phase = _phase(lives, subject, name)
            if phase is None:
                cells += [_UNKNOWN] * 4
                continue
            latencies = (phase.latency_p50, phase.latency_p95, phase.latency_p99)
            cells += [_UNKNOWN if seconds is None else f"{seconds:.2f}" for seconds in latencies]
            cells.append(f"{phase.arrived} of {phase.turns}")
        rows.append([name, *cells])
    return _lay_out(rows)


def _tabulate_lives(lives: Mapping[str, LifeFigures]) -> str:
    subjects = [*_present(lives), *([NOBODY] if NOBODY in lives else [])]
    lines: list[tuple[str, Callable[[LifeFigures], float], int]] = [
        ("idle, CPU ms a second", lambda life: 1e3 * life.idle_cpu_a_second, 1),
        ("idle, mongod's CPU ms a second", lambda life: 1e3 * life.idle_mongod_a_second, 1),
        ("idle, memory MB", lambda life: life.idle_bytes / 1e6, 1),
        ("peak memory MB", lambda life: life.peak_bytes / 1e6, 1),
        ("spans sent twice", lambda life: life.spans_twice, 0),
    ]
    rows = [["", *subjects]]
    rows += [
        [title, *(f"{read(lives[name]):,.{places}f}" for name in subjects)] for title, read, places in lines
    ]
    return _lay_out(rows)


def _present(lives: Mapping[str, LifeFigures]) -> list[str]:
    return [name for name in SUBJECTS if name in lives]


def _phase_names(lives: Mapping[str, LifeFigures]) -> list[str]:
    return list(dict.fromkeys(name for life in lives.values() for name in life.phases))


def _phase(lives: Mapping[str, LifeFigures], subject: str, name: str) -> PhaseFigures | None:
    return lives[subject].phases.get(name) if subject in lives else None


def _milliseconds(phase: PhaseFigures | None, field: str) -> str:
    return _UNKNOWN if phase is None else f"{1e3 * getattr(phase, field):.2f}"


def _lay_out(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
