"""Kinds of values that settings have: what an operator may write, and the value that it becomes.

Owns the limits, the units and the words of a refusal. Refuses to know any setting by name.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import isfinite
from typing import Final

from pydantic import SecretStr

from tailer.core.backfill import Start, StartMode
from tailer.printable import escape_unprintable, redact

_SWITCHES: Final = {"true": True, "1": True, "yes": True, "on": True}
_SWITCHES.update({"false": False, "0": False, "no": False, "off": False})
_LONGEST_QUOTE: Final = 60
_UNITS: Final = {
    timedelta(milliseconds=1): "milliseconds",
    timedelta(seconds=1): "seconds",
    timedelta(days=1): "days",
}


class UnfitValueError(ValueError):
    """A value that cannot be used: the problem, and the remedy if the kind does not imply it."""

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting accepts, in words for the operator, its unit, and the conversion of a given value.

    `convert` gets the text of an environment variable, or the typed value that code passed, and raises
    `UnfitValueError`. `scale` is the length of one unit, None for everything but durations.
    """

    accepts: str
    convert: Callable[[object], object]
    unit: str = ""
    scale: timedelta | None = None
    is_secret: bool = False


def quote(value: object) -> str:
    """A refused value as a message may show it: one short line, without anything that looks like a credential."""
    text = escape_unprintable(redact(str(value)))
    return f"'{text[:_LONGEST_QUOTE]}…'" if len(text) > _LONGEST_QUOTE else f"'{text}'"


def secret_text(value: object) -> str:
    """The text of a value that may already have been wrapped."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _check_limits(number: float, low: float, high: float) -> None:
    if not low <= number <= high:
        raise UnfitValueError(problem=f"is {number:.15g}, which is not between {low:.15g} and {high:.15g}")


def switch() -> Kind:
    """True or false."""

    def convert(value: object) -> bool:
        if isinstance(value, bool):
            return value
        known = _SWITCHES.get(str(value).lower())
        if known is None:
            raise UnfitValueError(problem=f"is {quote(value)}, which is neither true nor false")
        return known

    return Kind("true or false", convert)


def whole_number(low: int, high: int, *, unit: str = "") -> Kind:
    """A whole number between two limits; 1_000 is read as 1000."""

    def convert(value: object) -> int:
        try:
            number = int(value if isinstance(value, int) else str(value))
        except ValueError:
            raise UnfitValueError(problem=f"is {quote(value)}, which is not a whole number") from None
        _check_limits(number, low, high)
        return number

    return Kind(f"a whole number from {low} to {high}", convert, unit)


def share() -> Kind:
    """A number between 0 and 1."""

    def convert(value: object) -> float:
        number = _read_number(value)
        _check_limits(number, 0, 1)
        return number

    return Kind("a number from 0 to 1", convert)


def number(low: float, high: float, *, unit: str) -> Kind:
    """A number between two limits."""

    def convert(value: object) -> float:
        given = _read_number(value)
        _check_limits(given, low, high)
        return given

    return Kind(f"a number from {low:.15g} to {high:.15g}", convert, unit)


def start_point() -> Kind:
    """Now, all, or a time in the past with its zone."""

    def convert(value: object) -> Start:
        if isinstance(value, Start):
            return value
        given = str(value)
        if given.lower() in (StartMode.NOW, StartMode.ALL):
            return Start(StartMode(given.lower()))
        try:
            since = datetime.fromisoformat(given)
        except ValueError:
            raise UnfitValueError(f"is {quote(value)}, which is neither now, all nor a time") from None
        if since.tzinfo is None:
            raise UnfitValueError(
                f"is {quote(value)}, and it is not clear whose time that is",
                "add Z for UTC, or an offset such as +02:00",
            )
        if since > datetime.now(UTC):
            raise UnfitValueError(f"is {quote(value)}, which lies in the future")
        return Start(StartMode.SINCE, since)

    return Kind("now, all, or a time such as 2026-01-31T08:00:00Z", convert)


def duration(low: float, high: float, scale: timedelta = timedelta(seconds=1)) -> Kind:
    """A duration between two limits, given as a number of units of the length `scale`."""
    unit = _UNITS[scale]

    def convert(value: object) -> timedelta:
        number = value / scale if isinstance(value, timedelta) else _read_number(value)
        _check_limits(number, low, high)
        return number * scale

    return Kind(f"a number of {unit} from {low:.15g} to {high:.15g}", convert, unit, scale)


def _read_number(value: object) -> float:
    try:
        number = float(value if isinstance(value, int | float) else str(value))
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise UnfitValueError(problem=f"is {quote(value)}, which is not a number")
    return number


def choice(options: type[StrEnum]) -> Kind:
    """One of the members of an enumeration, by value, in any case."""
    names = ", ".join(option.value for option in options)

    def convert(value: object) -> StrEnum:
        try:
            return options(str(value).lower())
        except ValueError:
            raise UnfitValueError(problem=f"is {quote(value)}, which is none of {names}") from None

    return Kind(f"one of {names}", convert)


def text(accepts: str, check: Callable[[str], str] | None = None) -> Kind:
    """Printable text; `check` returns the text to use or raises `UnfitValueError`."""

    def convert(value: object) -> str:
        given = str(value)
        if not given.isprintable():
            raise UnfitValueError("has control characters")
        return check(given) if check is not None else given

    return Kind(accepts, convert)


def secret(accepts: str, check: Callable[[str], object]) -> Kind:
    """Text that is never shown; `check` raises `UnfitValueError` with a message that quotes nothing of it."""

    def convert(value: object) -> SecretStr:
        given = secret_text(value)
        check(given)
        return SecretStr(given)

    return Kind(accepts, convert, is_secret=True)


_LONGEST_PIECE: Final = 200


_ARRAY_START: Final = re.compile(r"\[\s*[\"'\]]")


def _split(value: object) -> list[object]:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        raise UnfitValueError("is not a list")
    return [piece for piece in given if str(piece).strip()]


def _read_word(piece: object, longest: int) -> str:
    word = str(piece).strip()
    if len(word) > longest:
        raise UnfitValueError(problem=f"has {quote(word)}, which is longer than {longest} characters")
    if not word.isprintable():
        raise UnfitValueError(problem=f"has {quote(word)} with control characters")
    return word


def words(longest: int) -> Kind:
    """A list of texts, separated by commas; a single comma is the empty list."""

    def convert(value: object) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_read_word(piece, longest) for piece in _split(value)))

    return Kind(f"texts of at most {longest} characters with commas between them", convert)


def pieces(accepts: str, parse: Callable[[str], object]) -> Kind:
    """A list whose pieces `parse` reads, separated by commas; a single comma is the empty list.

    `parse` raises ValueError that names the problem with a piece. A parsed value from code stays as it is.
    """

    def read(piece: object) -> object:
        if isinstance(piece, list | dict):
            # From a file; whatever else is no text and no parsed value is refused by its type.
            raise UnfitValueError("has something else than a text in it")
        if not isinstance(piece, str):
            return piece
        word = _read_word(piece, _LONGEST_PIECE)
        try:
            return parse(word)
        except ValueError as error:
            raise UnfitValueError(problem=f"has {quote(word)}, where {redact(str(error))}") from None

    def convert(value: object) -> tuple[object, ...]:
        return tuple(dict.fromkeys(read(piece) for piece in _split(value)))

    return Kind(accepts, convert)


def expressions() -> Kind:
    """Regular expressions: a JSON array of texts, or one expression as it is.

    A value that begins like an array of texts must be one. As an expression it would be a set of characters, and would
    mask something else than its author meant.
    """
    remedy = r'give one expression, or a JSON array such as ["EMP-\\d{6}","Project \\w+"] with every backslash doubled'

    def read(value: str) -> object:
        if _ARRAY_START.match(value) is None:
            return [value]
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise UnfitValueError("begins like a JSON array and is none", remedy) from None

    def convert(value: object) -> tuple[str, ...]:
        given = read(value) if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            raise UnfitValueError("is not a list", remedy)
        chosen: list[str] = []
        for number, expression in enumerate(given, start=1):
            if not isinstance(expression, str):
                raise UnfitValueError(f"has something else than a text as expression {number}", remedy)
            if not expression.isprintable():
                # In JSON a single backslash before a b is a backspace, which would silently match nothing.
                raise UnfitValueError(f"has control characters in expression {number}", remedy)
            chosen.append(expression)
        return tuple(chosen)

    return Kind("one regular expression, or a JSON array of them", convert)
