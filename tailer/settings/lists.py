"""Kinds of lists that settings have: texts, pieces with a form of their own, regular expressions.

Owns how a list is written in one variable. Refuses to know any setting by name, and whether an expression is usable.
"""

import json
import re
from collections.abc import Callable
from typing import Final

from tailer.logs import redact
from tailer.settings.kinds import Kind, UnfitValueError, quote

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
    """A list of texts, separated by commas; a comma alone is the empty list."""

    def convert(value: object) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_read_word(piece, longest) for piece in _split(value)))

    return Kind(f"texts of at most {longest} characters with commas between them", convert)


def pieces(accepts: str, parse: Callable[[str], object]) -> Kind:
    """A list whose pieces `parse` reads, separated by commas; a comma alone is the empty list.

    `parse` raises ValueError that says what is wrong with a piece. What code passes parsed stays as it is.
    """

    def read(piece: object) -> object:
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
    """Regular expressions: a JSON array of texts, or one expression as it stands.

    What begins like an array of texts must be one: as an expression it would be a set of characters, and mask
    something else than its author meant.
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
                # In JSON one backslash before a b is a backspace, which would silently match nothing.
                raise UnfitValueError(f"has control characters in expression {number}", remedy)
            chosen.append(expression)
        return tuple(chosen)

    return Kind("one regular expression, or a JSON array of them", convert)
