"""The times of the steps of a turn.

LibreChat stores when a turn began and ended, and how long most tools ran; nothing else. The time that the tools leave
is shared among the model calls, in proportion to the tokens that they wrote. So the steps keep their order and add up
to the turn. Only the one call of a turn without tools has a true duration.
"""

from collections.abc import Sequence

from tailer.core.librechat.content import HandOffPart, Part, SteerPart, SummaryPart, TextPart, ToolCall
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.assignment import Step

Rows = Sequence[Sequence[Step]]
"""Steps that follow each other; several such rows ran side by side."""
_CHARACTERS_OF_A_TOKEN = 4
_TIMED = frozenset({ToolCall, HandOffPart, SteerPart, SummaryPart})
"""The parts that have a time of their own."""


@light_dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, in milliseconds since 1970."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Milliseconds."""
        return self.end - self.start


@light_dataclass(frozen=True, slots=True)
class PlacedStep:
    """A step, the time of its model call, and those of its tools and events by their place among the step's parts."""

    step: Step
    call: Span
    parts: dict[int, Span]


def place_steps(stages: Sequence[Rows], whole: Span) -> list[list[list[PlacedStep]]]:
    """The steps in time: stages, their rows, and the steps of a row."""
    length = whole.end - whole.start
    measured = [[_measure(row, length) for row in stage] for stage in stages]
    fixed = [max([row.fixed for row in stage], default=0) for stage in measured]
    weights = [max([sum(row.weights) for row in stage], default=0) for stage in measured]
    shares = share_out(length - sum(fixed), weights)
    placed: list[list[list[PlacedStep]]] = []
    at = whole.start
    for stage, needed, share in zip(measured, fixed, shares, strict=True):
        own = Span(at, at + needed + share)
        placed.append([_place_row(row, own, whole) for row in stage])
        at = own.end
    return placed


@light_dataclass(frozen=True, slots=True)
class _Row:
    """Steps that follow each other: the milliseconds of their tools and events, and the weights of their calls."""

    steps: Sequence[Step]
    fixed: int
    weights: Sequence[int]


def _measure(row: Sequence[Step], longest: int) -> _Row:
    fixed = 0
    for step in row:
        if not _TIMED.isdisjoint(map(type, step.parts)):
            fixed += _place_parts(step.parts, 0, Span(0, longest))[1]
    return _Row(row, fixed, [weigh(step) for step in row])


def weigh(step: Step) -> int:
    """The weight of a call's time: the tokens that it wrote, or an estimate of them from its text."""
    if step.nameless:
        return 0
    tokens = step.call.tokens if step.call is not None else None
    if tokens is not None and tokens.output:
        return tokens.output
    characters = sum([len(part.text) for part in step.parts if isinstance(part, TextPart)])
    return max(1, characters // _CHARACTERS_OF_A_TOKEN)


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """The total in parts by weight; nothing where the total is spent, and at least one for each while there is one."""
    whole = sum(weights)
    if total <= 0 or not whole:
        return [0] * len(weights)
    if len(weights) == 1:
        return [total]
    heavy = sum(1 for weight in weights if weight)
    floor = 1 if total >= heavy else 0
    free = total - floor * heavy
    shares: list[int] = []
    seen, given = 0, 0
    for weight in weights:
        seen += weight
        upto = free * seen // whole
        shares.append((floor if weight else 0) + upto - given)
        given = upto
    return shares


def _place_row(row: _Row, own: Span, whole: Span) -> list[PlacedStep]:
    placed: list[PlacedStep] = []
    at = own.start
    for step, share in zip(row.steps, share_out(own.length - row.fixed, row.weights), strict=True):
        call = Span(at, at + share)
        parts, at = _place_parts(step.parts, call.end, whole)
        placed.append(PlacedStep(step, call, parts))
    return placed


def _place_parts(parts: Sequence[Part], at: int, whole: Span) -> tuple[dict[int, Span], int]:
    """Tools and events one after the other, and when they are done.

    Consecutive tools ran together. A step without a duration takes a millisecond, which only keeps the order on a
    timeline. A tool that outlasted the turn ran in the background and did not delay it.
    """
    placed: dict[int, Span] = {}
    if _TIMED.isdisjoint(map(type, parts)):
        return placed, at
    done = at
    for place, part in enumerate(parts):
        if type(part) not in _TIMED:
            at = done
            continue
        lasts = part.duration_milliseconds or 0 if isinstance(part, ToolCall) else 0
        if not isinstance(part, ToolCall):
            at = done
        start = min(at, whole.end)
        placed[place] = Span(start, start + lasts)
        if lasts == 0:
            at += 1
        done = max(done, at, at + lasts if lasts <= whole.length else at)
    return placed, done
