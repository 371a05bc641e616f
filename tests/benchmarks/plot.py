"""`python -m tests.benchmarks.plot figures.json plot.svg`: one picture of CPU, of mongod's share, latency and memory.

Runs in an environment of its own, which has matplotlib and nothing else.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tests.benchmarks.figures import BacklogFigures, Figures, LifeFigures, PhaseFigures
from tests.benchmarks.goals import IDLE_SECONDS, LATENCY_SECONDS, MONGOD_SECONDS, PEAK_BYTES
from tests.benchmarks.report import NOBODY, SUBJECTS

_COLOURS: Final = {"tailer": "#0072b2", "script": "#e69f00", "fuller": "#999999"}
"""Told apart by colour-blind people too."""
_STYLE: Final[Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    # Text stays text, and two drawings of the same figures are the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmark",
}
_GOAL: Final[Any] = {"color": "#555555", "linestyle": ":", "linewidth": 1.0}


def draw(figures: Figures, path: Path) -> None:
    """Write the picture; parts that were not measured stay empty."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12.6, 7.6), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1))
        panels = figure.subplots(2, 3).flatten()
        _draw_backlog(panels[0], figures.backlog)
        _draw_rates(panels[1], figures.lives)
        _draw_lengths(panels[2], figures.lives)
        _draw_mongod(panels[3], figures.lives)
        _draw_latencies(panels[4], figures.lives)
        _draw_memory(panels[5], figures)
        figure.supxlabel(figures.machine, fontsize=7.0, color="#555555")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_backlog(axes: Axes, backlog: Mapping[str, BacklogFigures]) -> None:
    axes.set_title("Backlog: turns per CPU second")
    names = [name for name in SUBJECTS if name in backlog]
    bars = axes.bar(
        names, [backlog[name].turns_a_cpu_second for name in names], color=[_COLOURS[name] for name in names]
    )
    axes.bar_label(bars, fmt="{:,.0f}", padding=2)


def _draw_rates(axes: Axes, lives: Mapping[str, LifeFigures]) -> None:
    axes.set_title("CPU ms a turn, by turns a second")
    for name, phases in _by_subject(lives, lambda phase: not phase.length):
        values = [1e3 * phase.cpu_a_turn for phase in phases]
        axes.plot([phase.rate for phase in phases], values, marker="o", color=_COLOURS[name], label=name)
        for phase, value in zip(phases, values, strict=True):
            axes.annotate(
                f"{value:.3g}", (phase.rate, value), textcoords="offset points", xytext=(6, 4), fontsize=8
            )
    axes.loglog()
    axes.set_xticks(*_ticks(sorted({p.rate for life in lives.values() for p in life.phases.values()})))
    axes.set_yticks(*_ticks([0.5, 1, 2, 5, 10, 20]))
    axes.minorticks_off()
    axes.set_xlabel("turns a second")
    _explain(axes)


def _draw_lengths(axes: Axes, lives: Mapping[str, LifeFigures]) -> None:
    axes.set_title("CPU ms a turn, by messages before it")
    for name, phases in _by_subject(lives, lambda phase: phase.rate == 8):
        values = [1e3 * phase.cpu_a_turn for phase in phases]
        axes.plot(_lengths(phases), values, marker="o", color=_COLOURS[name], label=name)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("messages in the conversation, 8 turns a second")
    _explain(axes)


def _draw_mongod(axes: Axes, lives: Mapping[str, LifeFigures]) -> None:
    axes.set_title("CPU ms a turn that it adds to mongod")
    if NOBODY not in lives:
        return
    subjects = [name for name in SUBJECTS if name in lives]
    width = 0.8 / max(1, len(subjects))
    for place, name in enumerate(subjects):
        phases = lives[name].phases
        more = [
            1e3 * (phase.mongod_a_turn - lives[NOBODY].phases[title].mongod_a_turn)
            for title, phase in phases.items()
        ]
        positions = [number + (place - (len(subjects) - 1) / 2) * width for number in range(len(phases))]
        bars = axes.bar(positions, more, width, color=_COLOURS[name], label=name)
        axes.bar_label(bars, fmt="{:.1f}", padding=2, fontsize=7)
    axes.axhline(1e3 * MONGOD_SECONDS, **_GOAL)
    axes.axhline(0.0, color="black", linewidth=0.8)
    _name_phases(axes, lives)
    _explain(axes)


def _draw_latencies(axes: Axes, lives: Mapping[str, LifeFigures]) -> None:
    axes.set_title("Seconds until Langfuse has it: p50, p95, p99")
    subjects = [name for name in SUBJECTS if name in lives]
    for place, name in enumerate(subjects):
        for number, phase in enumerate(lives[name].phases.values()):
            if phase.latency_p50 is None or phase.latency_p95 is None or phase.latency_p99 is None:
                continue
            x = number + 0.22 * (place - (len(subjects) - 1) / 2)
            points = [phase.latency_p50, phase.latency_p95, phase.latency_p99]
            label = name if not number else None
            axes.plot([x] * 3, points, marker="_", markersize=9, color=_COLOURS[name], label=label)
    axes.axhline(LATENCY_SECONDS, **_GOAL)
    axes.set_ylim(bottom=0.0)
    _name_phases(axes, lives)
    _explain(axes)


def _draw_memory(axes: Axes, figures: Figures) -> None:
    axes.set_title("Memory, MB")
    subjects = [name for name in SUBJECTS if name in figures.backlog or name in figures.lives]
    width = 0.8 / max(1, len(subjects))
    for place, name in enumerate(subjects):
        life, backlog = figures.lives.get(name), figures.backlog.get(name)
        sizes = [
            0 if life is None else life.idle_bytes,
            0 if life is None else life.peak_bytes,
            0 if backlog is None else backlog.peak_bytes,
        ]
        positions = [number + (place - (len(subjects) - 1) / 2) * width for number in range(3)]
        idle = "" if life is None else f": idle, {1e3 * life.idle_cpu_a_second:.1f} ms of CPU a second"
        bars = axes.bar(
            positions, [size / 1e6 for size in sizes], width, color=_COLOURS[name], label=f"{name}{idle}"
        )
        axes.bar_label(
            bars, labels=[f"{size / 1e6:.0f}" if size else "" for size in sizes], padding=2, fontsize=8
        )
    axes.axhline(PEAK_BYTES / 1e6, **_GOAL)
    axes.set_xticks(range(3), ["idle", "live, peak", "backlog, peak"])
    # Room for the legend above the bars.
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    axes.set_xlabel(f"dotted: goals; when idle, {1e3 * IDLE_SECONDS:g} ms of CPU a second")
    _explain(axes)


def _by_subject(
    lives: Mapping[str, LifeFigures], wanted: Callable[[PhaseFigures], bool]
) -> list[tuple[str, list[PhaseFigures]]]:
    return [
        (
            name,
            sorted(filter(wanted, lives[name].phases.values()), key=lambda phase: (phase.rate, phase.length)),
        )
        for name in SUBJECTS
        if name in lives
    ]


def _lengths(phases: list[PhaseFigures]) -> list[str]:
    return [f"{phase.length:,}" for phase in phases]


def _ticks(values: list[float]) -> tuple[list[float], list[str]]:
    return values, [f"{value:g}" for value in values]


def _name_phases(axes: Axes, lives: Mapping[str, LifeFigures]) -> None:
    phases = next((list(life.phases.values()) for life in lives.values()), [])
    names = [f"{phase.rate}/s" + (f"\nafter\n{phase.length:,}" if phase.length else "") for phase in phases]
    axes.set_xticks(range(len(phases)), names)


def _explain(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


if __name__ == "__main__":
    draw(Figures.read(Path(sys.argv[1])), Path(sys.argv[2]))
