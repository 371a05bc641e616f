"""The phases of a live run: how many turns a second, in conversations of which length, for how long."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from tests.benchmarks.prose import read_prose
from tests.benchmarks.turns import TURNS_A_CONVERSATION, Chat, InventedTurn, go_on, invent_chats
from tests.benchmarks.writer import TICK_SECONDS, Writer

WARMING_SECONDS: Final = 6.0
"""From the first question of a phase to its measured time: until then a turn waits for its answer and settles, and what
the phase before left is sent."""
LENGTHS: Final = (0, 100, 1_000, 4_000)
_LONG_MESSAGES: Final = 1_600
"""Conversations of each length have about so many messages together, so that short ones do not grow by what they are
measured with."""
_FEWEST_CHATS: Final = 4


@dataclass(frozen=True, slots=True)
class Phase:
    """A time in which turns are written at a steady rate; `length` is how many messages each conversation had before.

    CPU is measured over the last `seconds`; latencies are those of all turns.
    """

    name: str
    rate: int
    length: int
    seconds: float

    @property
    def measured_turns(self) -> float:
        """The turns that are written in the measured time."""
        return self.rate * self.seconds

    def ticks_until(self, seconds: float) -> int:
        """The ticks of the first seconds."""
        return round(seconds / TICK_SECONDS)

    def spread(self, turns: Iterator[InventedTurn]) -> list[Sequence[InventedTurn]]:
        """The turns of each tick of this phase."""
        due = [int(tick * self.rate * TICK_SECONDS) for tick in range(self.ticks + 1)]
        return [[next(turns) for _ in range(after - before)] for before, after in pairwise(due)]

    @property
    def ticks(self) -> int:
        """The ticks of the whole phase."""
        return self.ticks_until(WARMING_SECONDS + self.seconds)


def live_phases(rates: Sequence[int], lengths: Sequence[int], seconds: float) -> list[Phase]:
    """A phase for each rate, and for each length at the rate of 8."""
    slow = [
        Phase(f"{rate} a second", rate, 0, 2 * seconds if rate == 1 else seconds) for rate in sorted(rates)
    ]
    long = [
        Phase(f"8 a second, {length:,} messages", 8, length, seconds) for length in sorted(lengths) if length
    ]
    # The fastest comes last: what it leaves to do does not weigh on the others.
    return [
        *(phase for phase in slow if phase.rate <= 8),
        *long,
        *(phase for phase in slow if phase.rate > 8),
    ]


@dataclass(frozen=True, slots=True)
class Cast:
    """The conversations that one subject is measured with, by their length."""

    chats: dict[int, list[Chat]]
    random: Random

    def turns_of(self, phase: Phase) -> Iterator[InventedTurn]:
        """The turns of a phase: new conversations of a few turns, or the next ones of long conversations."""
        count = int(phase.rate * (WARMING_SECONDS + phase.seconds)) + 1
        chats = self.chats.get(phase.length) or invent_chats(-(-count // TURNS_A_CONVERSATION), self.random)
        return go_on(chats, count, self.random, read_prose(phase.rate + phase.length))


def engage_cast(writer: Writer, phases: Sequence[Phase], *, seed: int) -> Cast:
    """Store the long conversations of these phases; those of another seed have other ids and the same lengths."""
    random = Random(seed)
    chats = {}
    for length in sorted({phase.length for phase in phases if phase.length}):
        chats[length] = invent_chats(max(_FEWEST_CHATS, _LONG_MESSAGES // length), random)
        count = len(chats[length]) * length // 2
        writer.store_past(chats[length], go_on(chats[length], count, random, read_prose(length)))
    return Cast(chats, random)
