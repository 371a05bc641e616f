"""What is wrong with a file of destinations: where, what, and the remedy; all of it at once."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from tailer.errors import SettingsError

OPERATION = "reading the destinations"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that cannot be used: the table and the key, the problem and the remedy; it quotes no secret."""

    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.where} {self.problem}: {self.remedy}"


def refuse(path: str, problems: Iterable[Problem]) -> SettingsError:
    """The one error for a file."""
    return SettingsError(operation=OPERATION, subject=path, hint="\n".join(map(str, problems)))


def table_of(name: str) -> str:
    """The heading of a destination in the file."""
    return f"[destinations.{name}]"


def route_of(position: int) -> str:
    """A route as an operator finds it: the first one of the file is number 1."""
    return f"[[routes]] number {position + 1}"


def guess(name: str, known: Iterable[str]) -> str:
    """The closest of the known names, as the end of a problem."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; the closest one is {close[0]}" if close else ""
