"""How commands show things to people: colour on a terminal only, errors with their remedy."""

import sys
from collections.abc import Sequence

from tailer.errors import TailerError
from tailer.printable import is_coloured


def paint(colour: str, text: str) -> str:
    """The text in an ANSI colour ("1" is bold, "33" yellow) if standard output is a terminal that wants colour."""
    return f"\x1b[{colour}m{text}\x1b[0m" if is_coloured(sys.stdout) else text


def align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines with aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [paint("1", lines[0]), *lines[1:]]


def describe_error(error: TailerError) -> str:
    """What failed and the remedy, for a person: no traceback, further lines of the remedy below the first."""
    first, *others = error.hint.splitlines() or [""]
    lines = [f"tailer: {error.operation} failed: {error.subject}", f"  remedy: {first}"]
    return "\n".join([*lines, *(f"          {line}" for line in others)])
