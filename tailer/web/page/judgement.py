"""What the figures mean for the reader: one word, one sentence, and what needs attention."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tailer.health import Condition
from tailer.web.page.figures import Figures

_LATE_SECONDS: Final = 60.0
"""A lag above this is worth a word. MongoDB's elections and the settle time stay well below it."""
_STALE_SECONDS: Final = 120.0
"""An idle stream's position is stored every ten seconds."""
_SEVERAL: Final = 2
_LEAST_SHARE: Final = 0.25
"""Headroom below this share of the oplog's window is worth a word. An absolute limit would also alarm on an oplog that
is merely young."""


class Tone(StrEnum):
    """How good the news is."""

    GOOD = "good"
    WAITING = "waiting"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The headline, and what needs attention, most urgent first."""

    tone: Tone
    sentence: str
    attention: tuple[str, ...]


_SENTENCES: Final = {
    "starting": "It is starting: it proves its connections, or waits for its turn.",
    "standby": "It stands by: another instance is active, and this one takes over when the active one falls silent.",
    "streaming": "It follows LibreChat's changes.",
    "halted": "It has halted and waits for a person.",
    "stopping": "It is stopping and still sends what is open.",
}
_WAITING: Final = frozenset({"starting", "stopping"})


def judge(condition: Condition, figures: Figures, *, now_seconds: float) -> Judgement:
    """The judgement of a moment; `now_seconds` since 1970."""
    # While one of several destinations takes its turns, what is wrong with another one is no reason not to be ready.
    troubles = (text for text in condition.troubles if text not in condition.problems)
    worries = (*troubles, *_worries(figures, now_seconds))
    # While the daemon starts or stops, it is not news that it is not ready.
    problems = () if condition.state in _WAITING else condition.problems
    sentence = _SENTENCES.get(condition.state, f"It is {condition.state}.")
    if problems:
        tone = Tone.BAD
    elif condition.state in _WAITING:
        tone = Tone.WAITING
    elif worries:
        tone = Tone.WARNING
    else:
        tone = Tone.GOOD
    if condition.state == "streaming":
        sentence = _describe_streaming(figures, sentence, is_well=not problems)
    return Judgement(tone, sentence, tuple(_capitalise(text) for text in (*problems, *worries)))


def _describe_streaming(figures: Figures, sentence: str, *, is_well: bool) -> str:
    if not is_well or figures.export_lag_seconds is None:
        return sentence
    if figures.export_lag_seconds == 0:
        return "It follows LibreChat's changes, and every finished turn is acknowledged."
    return "It follows LibreChat's changes, and turns are on their way."


def _worries(figures: Figures, now_seconds: float) -> Iterator[str]:
    lost = figures.dead_letters_kept
    if lost is None:
        lost = sum(figures.dead_letters.values())
    if lost:
        what = "One turn is a dead letter" if lost == 1 else f"{lost:.0f} turns are dead letters"
        yield f"{what}: `tailer dead-letters list` says which and why"
    if figures.gaps_unfilled:
        what = (
            "A stretch of lost history is"
            if figures.gaps_unfilled == 1
            else f"{figures.gaps_unfilled:.0f} stretches of lost history are"
        )
        yield f"{what} not filled yet: a backfill does so by itself"
    if figures.read_lag_seconds is not None and figures.read_lag_seconds > _LATE_SECONDS:
        yield "Reading is more than a minute behind MongoDB"
    yield from _late_destinations(figures)
    for name, stream in figures.streams.items():
        if stream.stored_at_seconds is not None and now_seconds - stream.stored_at_seconds > _STALE_SECONDS:
            yield f"The position of {name} has not been stored for more than two minutes"
    headroom, window = figures.oplog_headroom_seconds, figures.oplog_window_seconds
    if headroom is not None and window and headroom < _LEAST_SHARE * window:
        yield "Less than a quarter of MongoDB's oplog is left before history is lost; find out why turns are not acknowledged"


def _late_destinations(figures: Figures) -> Iterator[str]:
    """Of several destinations one that is away is a problem of its own, which says how much it misses."""
    if len(figures.destinations) < _SEVERAL:
        if figures.export_lag_seconds is not None and figures.export_lag_seconds > _LATE_SECONDS:
            yield "A finished turn has waited for more than a minute to be acknowledged"
        return
    for name, destination in figures.destinations.items():
        lag = destination.lag_seconds
        if lag is not None and lag > _LATE_SECONDS and not destination.is_away:
            yield f"A finished turn has waited for more than a minute to be acknowledged by {name}"


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]
