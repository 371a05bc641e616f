"""The benchmark's own arithmetic: what it writes when, what it stores, and what it says of the goals."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.benchmarks.figures import BacklogFigures, Figures, LifeFigures, PhaseFigures, percentile
from tests.benchmarks.goals import judge
from tests.benchmarks.phases import Phase, live_phases
from tests.benchmarks.prose import read_prose
from tests.benchmarks.report import NOBODY, compare, tabulate
from tests.benchmarks.turns import go_on, invent_chats

_BACKLOG: Final = BacklogFigures(
    turns=1_000,
    arrived=1_000,
    spans=2_000,
    spans_twice=0,
    wire_bytes=1_000_000,
    cpu_seconds=0.4,
    mongod_seconds=0.3,
    peak_bytes=110_000_000,
    elapsed_seconds=4.0,
)
_PHASE: Final = PhaseFigures(
    rate=8,
    length=0,
    turns=144,
    arrived=144,
    written_a_second=8.0,
    cpu_a_turn=0.005,
    mongod_a_turn=0.0064,
    seconds_a_turn=0.125,
    latency_p50=3.1,
    latency_p95=3.3,
    latency_p99=3.4,
)
_LIFE: Final = LifeFigures(
    idle_cpu_a_second=0.005,
    idle_mongod_a_second=0.006,
    idle_bytes=90_000_000,
    peak_bytes=100_000_000,
    spans_twice=0,
    phases={
        "8 a second": _PHASE,
        "8 a second, 4,000 messages": replace(_PHASE, length=4_000, cpu_a_turn=0.006),
    },
)


def _life_of(cpu_a_turn: float, mongod_a_turn: float) -> LifeFigures:
    phases = {
        name: replace(phase, cpu_a_turn=cpu_a_turn, mongod_a_turn=mongod_a_turn)
        for name, phase in _LIFE.phases.items()
    }
    return replace(_LIFE, phases=phases)


_FIGURES: Final = Figures(
    "a machine",
    {"tailer": _BACKLOG, "script": replace(_BACKLOG, cpu_seconds=1.7)},
    {"tailer": _LIFE, "script": _life_of(0.004, 0.0061), NOBODY: _life_of(0.0, 0.006)},
)


def test_figures_read_back_are_the_figures_that_were_stored(tmp_path: Path) -> None:
    _FIGURES.write(tmp_path / "figures.json")

    assert Figures.read(tmp_path / "figures.json") == _FIGURES


def test_a_run_within_every_goal_misses_none() -> None:
    assert [str(verdict) for verdict in judge(_FIGURES) if not verdict.is_reached] == []


@pytest.mark.parametrize(
    ("worse", "missed"),
    [
        (
            replace(_FIGURES, backlog={**_FIGURES.backlog, "tailer": replace(_BACKLOG, arrived=999)}),
            "arrived",
        ),
        (
            replace(_FIGURES, backlog={**_FIGURES.backlog, "tailer": replace(_BACKLOG, spans_twice=1)}),
            "twice",
        ),
        (
            replace(_FIGURES, backlog={**_FIGURES.backlog, "tailer": replace(_BACKLOG, cpu_seconds=0.5)}),
            "CPU",
        ),
        (
            replace(_FIGURES, backlog={**_FIGURES.backlog, "tailer": replace(_BACKLOG, peak_bytes=10**9)}),
            "MB",
        ),
        (
            replace(_FIGURES, lives={**_FIGURES.lives, "tailer": replace(_LIFE, idle_cpu_a_second=0.01)}),
            "idle",
        ),
        (replace(_FIGURES, lives={**_FIGURES.lives, "script": _life_of(0.003, 0.006)}), "script's CPU"),
        (replace(_FIGURES, lives={**_FIGURES.lives, NOBODY: _life_of(0.0, 0.004)}), "mongod"),
    ],
    ids=[
        "a turn lost",
        "a span twice",
        "slow",
        "large",
        "restless",
        "dear beside the script",
        "dear to mongod",
    ],
)
def test_what_a_run_misses_is_said(worse: Figures, missed: str) -> None:
    verdicts = [str(verdict) for verdict in judge(worse) if not verdict.is_reached]

    assert verdicts
    assert all(verdict.startswith("MISSED") and missed in verdict for verdict in verdicts)


def test_two_runs_are_compared_figure_by_figure() -> None:
    before = replace(_FIGURES, backlog={"tailer": replace(_BACKLOG, cpu_seconds=0.8)})

    assert "tailer: backlog, CPU ms a turn" in compare(_FIGURES, before)
    line = next(line for line in compare(_FIGURES, before).splitlines() if "backlog, CPU" in line)
    assert line.split()[-3:] == ["0.80", "0.40", "0.50"]


def test_the_server_s_share_is_what_it_takes_more_than_with_nobody() -> None:
    line = next(
        line for line in tabulate(_FIGURES).splitlines() if line.startswith("8 a second  ") and "+" in line
    )

    assert line.split()[3:] == ["6.00", "6.40", "6.10", "+0.40", "+0.10"]


@pytest.mark.parametrize("rate", [1, 8, 200])
def test_each_second_of_a_phase_has_as_many_turns_as_its_rate(rate: int) -> None:
    random = Random(1)
    phase = Phase("steady", rate, 0, 4.0)

    ticks = phase.spread(go_on(invent_chats(50, random), 10_000, random, read_prose(1)))

    assert len(ticks) == 200
    assert {sum(map(len, ticks[begin : begin + 20])) for begin in range(0, 200, 20)} == {rate}


def test_the_fastest_phase_comes_last_and_one_turn_a_second_is_measured_for_twice_as_long() -> None:
    phases = live_phases([200, 1, 8], [0, 100], 10.0)

    assert [(phase.rate, phase.length, phase.seconds) for phase in phases] == [
        (1, 0, 20.0),
        (8, 0, 10.0),
        (8, 100, 10.0),
        (200, 0, 10.0),
    ]


def test_a_long_conversation_goes_on_where_it_stands() -> None:
    random = Random(1)
    [chat] = invent_chats(1, random)

    turns = list(go_on([chat], 3, random, read_prose(1)))

    assert [turn.is_first for turn in turns] == [True, False, False]
    assert [turn.parent_id for turn in turns[1:]] == [turn.response_id for turn in turns[:-1]]


def test_percentiles_are_values_that_were_seen() -> None:
    assert [percentile(list(range(100)), percent) for percent in (50, 95, 99)] == [50, 95, 99]
    assert percentile([2.5], 99) == 2.5
    assert percentile([], 50) is None
