"""How a finished turn looks on a terminal: one aligned line that fits, with colour if colour is wanted.

Owns columns, widths and the marks for numbers that are estimates or unknown. Refuses to print, and to compute the
content of a line.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from tailer.core.trace.totals import Totals
from tailer.core.turn.turns import Outcome
from tailer.demo.finished_turn import FinishedTurn
from tailer.printable import escape_unprintable

Paint: TypeAlias = Callable[[str, str], str]
"""Puts a colour, as the number of an escape sequence, around a text."""

WIDTH: Final = 100
"""The columns of a line if no terminal says otherwise."""
_WIDEST: Final = 132
_NARROWEST: Final = 80
_MODEL_WIDTH: Final = 11
_MORE_MODEL_WIDTH: Final = 8
_TEN_SECONDS: Final = 10
_HUNDRED_SECONDS: Final = 100
_LABEL_WIDTH: Final = 9
_ONE_DOLLAR: Final = 1
_THOUSAND: Final = 1_000
_MILLION: Final = 1_000_000

LEGEND: Final = (
    "in, out: tokens · cost: USD as LibreChat billed it · took: question to answer",
    "~ LibreChat's own estimate · ? unknown · (…) tools that were used",
)
"""What the headings cannot say."""

_COLOURS: Final = {
    Outcome.COMPLETE.value: "32",
    Outcome.ERROR.value: "31",
    Outcome.UNANSWERED.value: "31",
    Outcome.ABORTED.value: "33",
    Outcome.PARTIAL.value: "33",
}


@dataclass(frozen=True, slots=True)
class Column:
    """Heading and width; numbers are right-aligned."""

    heading: str
    width: int
    is_number: bool = False


def plain(colour: str, text: str) -> str:
    """The text as it is, for a stream that is not a terminal."""
    del colour
    return text


def colourful(colour: str, text: str) -> str:
    """The text in a colour."""
    return f"\x1b[{colour}m{text}\x1b[0m"


class Display:
    """The lines of a terminal of `columns`; they are made for 100 and fit from 80 on."""

    def __init__(self, columns: int = WIDTH, paint: Paint = plain) -> None:
        self.columns = min(max(columns, _NARROWEST), _WIDEST)
        self.paint = paint
        spare = self.columns - _NARROWEST
        fixed = (
            Column("time", 8),
            Column("who", 9),
            Column("model", _MODEL_WIDTH + min(spare, _MORE_MODEL_WIDTH)),
            Column("in", 5, is_number=True),
            Column("out", 5, is_number=True),
            Column("cost", 9, is_number=True),
            Column("took", 5, is_number=True),
            Column("outcome", 8),
        )
        used = sum(column.width + 1 for column in fixed)
        self._table = (*fixed, Column("question", self.columns - used))

    def heading(self) -> str:
        """The names of the columns."""
        return self.paint("1", self._row([column.heading for column in self._table]))

    def turn(self, turn: FinishedTurn, at: datetime) -> str:
        """The line of a turn that was acknowledged at a local time."""
        spending = turn.spending
        tools = f"({', '.join(turn.tools)}) " if turn.tools else ""
        cells = [
            f"{at:%H:%M:%S}",
            turn.who or "?",
            shorten_models(turn.models),
            format_tokens(spending.input_tokens, is_estimate=spending.tokens_estimated),
            format_tokens(spending.output_tokens, is_estimate=spending.tokens_estimated),
            format_cost(spending),
            format_seconds(turn.took_seconds),
            turn.outcome,
            tools + (turn.question or "(not shown)"),
        ]
        return self._row(cells, colour=_COLOURS.get(turn.outcome))

    def _row(self, cells: Sequence[str], *, colour: str | None = None) -> str:
        pieces = []
        for column, cell in zip(self._table, cells, strict=True):
            text = fit(cell, column.width, on_the_right=column.is_number)
            is_outcome = column.heading == "outcome" and colour is not None
            pieces.append(self.paint(colour or "", text) if is_outcome else text)
        return " ".join(pieces).rstrip()


def shorten_models(models: Sequence[str]) -> str:
    """The first model, and the number of further ones."""
    if not models:
        return "?"
    return models[0] if len(models) == 1 else f"{models[0]} +{len(models) - 1}"


def format_tokens(count: int | None, *, is_estimate: bool) -> str:
    """A count in at most five columns: `?` for an unknown one, `~` before an estimate."""
    if count is None:
        return "?"
    mark = "~" if is_estimate else ""
    if count < _THOUSAND * 10:
        return f"{mark}{count}"
    return f"{mark}{count // _THOUSAND}k" if count < _MILLION else f"{mark}{count // _MILLION}M"


def format_cost(spending: Totals) -> str:
    """USD: five decimals below a dollar, two above."""
    if spending.cost is None:
        return "?"
    mark = "~" if spending.cost_estimated else ""
    return f"{mark}{format_dollars(spending.cost)}"


def format_dollars(cost: float) -> str:
    """An amount of USD; a turn often costs less than a hundredth of a cent."""
    return f"${cost:.2f}" if cost >= _ONE_DOLLAR else f"${cost:.5f}" if cost else "$0"


def format_seconds(seconds: float) -> str:
    """A duration in at most five columns."""
    if seconds >= _HUNDRED_SECONDS:
        return f"{seconds:.0f}s"
    return f"{seconds:.1f}s" if seconds >= _TEN_SECONDS else f"{seconds:.2f}s"


def label(name: str, text: str) -> str:
    """A text after its name. The names of one block are aligned; further lines of the same name have an empty name."""
    return f"{name:<{_LABEL_WIDTH}}{text}"


def fit(text: str, width: int, *, on_the_right: bool = False) -> str:
    """The text on one line in exactly `width` columns of a terminal, cut with `…` if it is longer."""
    line = escape_unprintable(" ".join(text.split()))
    if count_columns(line) > width:
        kept = ""
        for character in line:
            if count_columns(kept + character) > width - 1:
                break
            kept += character
        line = f"{kept}…"
    padding = " " * (width - count_columns(line))
    return padding + line if on_the_right else line + padding


def count_columns(text: str) -> int:
    """The columns that a text takes on a terminal: two for a wide character, none for a combining one."""
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in {"W", "F"}
        else 1
        for character in text
    )
