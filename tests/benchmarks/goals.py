"""The goals that we set ourselves, and whether a run reached them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.figures import Figures, LifeFigures
from tests.benchmarks.report import NOBODY

BACKLOG_RATIO: Final = 4.0
"""Turns per CPU second, against the short script, which sends neither history nor tools."""
LIVE_RATIOS: Final = {"1 a second": 3.0, "8 a second": 1.4}
"""CPU a turn against the short script, which stores nothing."""
LENGTH_RATIO: Final = 1.3
"""A turn of the longest conversations against one of a new conversation."""
PEAK_BYTES: Final = 120e6
MONGOD_SECONDS: Final = 0.0005
"""A turn, more than with nobody following; at a rate that makes more of what turns cost than of what idling does."""
_BUSY_RATE: Final = 8
LATENCY_SECONDS: Final = 3.5
"""The settle time and half a second."""
IDLE_SECONDS: Final = 0.006
"""CPU a second."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal: what was measured, in words, and whether that is good enough."""

    sentence: str
    is_reached: bool

    def __str__(self) -> str:
        return f"{'reached' if self.is_reached else 'MISSED '}  {self.sentence}"


def judge(figures: Figures) -> Iterator[Verdict]:
    """A verdict for each goal that could be measured."""
    yield from _judge_backlog(figures)
    ours = figures.lives.get("tailer")
    if ours is not None:
        yield from _judge_life(ours)
        yield from _judge_shares(ours, figures)


def _judge_backlog(figures: Figures) -> Iterator[Verdict]:
    ours, script = figures.backlog.get("tailer"), figures.backlog.get("script")
    if ours is None:
        return
    if script is not None:
        ratio = ours.turns_a_cpu_second / script.turns_a_cpu_second
        yield Verdict(
            f"backlog: {ratio:.1f} times the script's turns per CPU second (goal {BACKLOG_RATIO:g})",
            ratio >= BACKLOG_RATIO,
        )
    yield Verdict(
        f"backlog: at most {ours.peak_bytes / 1e6:.0f} MB of memory (goal {PEAK_BYTES / 1e6:g})",
        ours.peak_bytes <= PEAK_BYTES,
    )
    yield Verdict(
        f"backlog: {ours.arrived} of {ours.turns} turns arrived, {ours.spans_twice} spans twice",
        ours.arrived == ours.turns and not ours.spans_twice,
    )


def _judge_life(ours: LifeFigures) -> Iterator[Verdict]:
    idle = ours.idle_cpu_a_second
    yield Verdict(
        f"idle: {1e3 * idle:.1f} ms of CPU a second (goal {1e3 * IDLE_SECONDS:g})", idle <= IDLE_SECONDS
    )
    late = [phase.latency_p99 for phase in ours.phases.values() if phase.latency_p99 is not None]
    if late:
        yield Verdict(
            f"live: p99 at most {max(late):.2f} s (goal {LATENCY_SECONDS:g})", max(late) <= LATENCY_SECONDS
        )
    arrived, turns = (
        sum(getattr(phase, field) for phase in ours.phases.values()) for field in ("arrived", "turns")
    )
    yield Verdict(
        f"live: {arrived} of {turns} turns arrived, {ours.spans_twice} spans twice",
        arrived == turns and not ours.spans_twice,
    )
    base = next((phase for phase in ours.phases.values() if (phase.rate, phase.length) == (8, 0)), None)
    longest = max(ours.phases.values(), key=lambda phase: phase.length, default=None)
    if base is not None and longest is not None and longest.length:
        ratio = longest.cpu_a_turn / base.cpu_a_turn
        yield Verdict(
            f"live: a turn after {longest.length:,} messages costs {ratio:.2f} times a first one "
            f"(goal {LENGTH_RATIO:g})",
            ratio <= LENGTH_RATIO,
        )


def _judge_shares(ours: LifeFigures, figures: Figures) -> Iterator[Verdict]:
    script, nobody = figures.lives.get("script"), figures.lives.get(NOBODY)
    for name, goal in LIVE_RATIOS.items():
        if script is not None and name in ours.phases:
            ratio = ours.phases[name].cpu_a_turn / script.phases[name].cpu_a_turn
            yield Verdict(f"live, {name}: {ratio:.2f} times the script's CPU (goal {goal:g})", ratio <= goal)
    if nobody is not None:
        for name, phase in ours.phases.items():
            if phase.rate < _BUSY_RATE:
                continue
            more = phase.mongod_a_turn - nobody.phases[name].mongod_a_turn
            yield Verdict(
                f"live, {name}: mongod {1e3 * more:+.2f} ms a turn (goal {1e3 * MONGOD_SECONDS:g})",
                more <= MONGOD_SECONDS,
            )
