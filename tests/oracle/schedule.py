"""Which fault happens when: a seeded list of rounds, each of which ends in a world that is whole again. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Blow(StrEnum):
    """What can happen to whom."""

    KILL_TAILER = "kill tailer"
    END_TAILER = "end tailer"
    STOP_TAILER = "stop tailer"
    KILL_PRIMARY = "kill primary"
    END_PRIMARY = "end primary"
    STOP_PRIMARY = "stop primary"
    KILL_SECONDARY = "kill secondary"
    STOP_SECONDARY = "stop secondary"
    RENEW_CERTIFICATES = "renew certificates"
    KILL_LANGFUSE = "kill langfuse"
    STOP_LANGFUSE = "stop langfuse"
    LANGFUSE_LOSES_ANSWERS = "langfuse takes and does not answer"
    LANGFUSE_HANGS = "langfuse hangs"
    LANGFUSE_FAILS = "langfuse fails"
    LANGFUSE_REFUSES = "langfuse refuses"
    LANGFUSE_IS_SLOW = "langfuse is slow"
    LANGFUSE_REFUSES_SCORES = "langfuse refuses scores"
    LANGFUSE_LIMITS_READS = "langfuse loses an answer and limits reads"


TAILER = (Blow.KILL_TAILER, Blow.END_TAILER, Blow.STOP_TAILER)
MONGODB = (
    Blow.KILL_PRIMARY,
    Blow.END_PRIMARY,
    Blow.STOP_PRIMARY,
    Blow.KILL_SECONDARY,
    Blow.STOP_SECONDARY,
    Blow.RENEW_CERTIFICATES,
)
LANGFUSE = (
    Blow.KILL_LANGFUSE,
    Blow.STOP_LANGFUSE,
    Blow.LANGFUSE_LOSES_ANSWERS,
    Blow.LANGFUSE_HANGS,
    Blow.LANGFUSE_FAILS,
    Blow.LANGFUSE_REFUSES,
    Blow.LANGFUSE_IS_SLOW,
    Blow.LANGFUSE_REFUSES_SCORES,
    Blow.LANGFUSE_LIMITS_READS,
)
_KINDS = (TAILER, TAILER, MONGODB, LANGFUSE)
"""The tailer is what is tested: it is hit twice as often."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One blow: `replica` is which of the two tailers it hits, where it hits one; it lasts `hold_seconds`."""

    blow: Blow
    replica: int
    hold_seconds: float


@dataclass(frozen=True, slots=True)
class Round:
    """One or two faults at the same time, of different kinds, and the time that the world then has to itself."""

    number: int
    faults: tuple[Fault, ...]
    calm_seconds: float


def make_schedule(seed: str, rounds: int) -> Iterator[Round]:
    """The same seed gives the same rounds."""
    dice = Random(seed)
    for number in range(rounds):
        kinds = dice.sample(_KINDS, k=dice.choice((1, 1, 2)))
        if len(set(kinds)) < len(kinds):
            kinds = kinds[:1]
        faults = tuple(
            Fault(dice.choice(kind), dice.randrange(2), round(dice.uniform(0.3, 3.0), 2)) for kind in kinds
        )
        yield Round(number, faults, round(dice.uniform(0.1, 1.5), 2))
