"""Makes values safe to print, in the log and for people: without credentials, bounded, and on one line.

Refuses to decide what is printed. The content of a message is not recognisable here: callers must not pass it.
"""

import json
import os
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from itertools import islice
from math import isfinite
from typing import Final, TextIO, TypeAlias

_LONGEST_VALUE: Final = 2_000
# A credential that begins within the shown text may end beyond it, so redaction sees more than the line does.
_REDACTED_WINDOW: Final = 4 * _LONGEST_VALUE
_MOST_ITEMS: Final = 100
_DEEPEST_NESTING: Final = 4
_WIDEST_INTEGER_BITS: Final = 256
_WITHHELD: Final = "***"
_ASSIGNS: Final = r"[\"']?\s{0,4}[:=]\s{0,4}[\"']?"

_REDACTIONS: Final = (
    # Greedy up to the last at sign, because people do not escape every character of a password as they should.
    (re.compile(r"://[^\s\"'<>]{0,1024}@"), f"://{_WITHHELD}@"),
    (re.compile(rf"(?i)(authorization{_ASSIGNS})(?:[a-z]+\s+)?[^\s\"',;]+"), rf"\1{_WITHHELD}"),
    (re.compile(r"(?i)\b(basic|bearer)\s+[a-z0-9+/=._~-]{16,}"), rf"\1 {_WITHHELD}"),
    (re.compile(r"\b([ps]k-lf-)[A-Za-z0-9_-]+"), rf"\1{_WITHHELD}"),
    (re.compile(r"\b(sk-)(?!lf-)[A-Za-z0-9_-]{16,}"), rf"\1{_WITHHELD}"),
    (re.compile(rf"(?i)((?:password|secret|token|api_?key){_ASSIGNS})[^\s\"'&,;]+"), rf"\1{_WITHHELD}"),
)

Scalar: TypeAlias = str | int | float | bool | None
Printable: TypeAlias = "Scalar | list[Printable] | dict[str, Printable]"


def redact(text: str) -> str:
    """The text without the credentials of URLs, Langfuse and `sk-` keys, Authorization values, passwords."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def is_coloured(stream: TextIO) -> bool:
    """Whether this stream gets colours: it is a terminal, and `NO_COLOR` is unset or empty."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def escape_unprintable(text: str) -> str:
    """The text on one line: control, direction and line separator characters and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def timestamp(moment: datetime) -> str:
    """The time in ISO 8601, in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_printable(value: object) -> Printable:
    """A value as a line may hold it: redacted, at most 2,000 characters, of types that JSON knows.

    Durations become seconds, times ISO 8601 in UTC, exceptions the name of their class (their message can hold
    content), other objects their text.
    """
    if not isinstance(value, Mapping | list | tuple | AbstractSet):
        return _printable_scalar(value)
    printable = _printable_items(value, _DEEPEST_NESTING)
    text = json.dumps(printable, ensure_ascii=False)
    return _shorten(text) if len(text) > _LONGEST_VALUE else printable


def make_text_printable(text: str) -> str:
    """The text redacted, and cut to 2,000 characters with a note of how many are left out."""
    return _shorten(redact(text[:_REDACTED_WINDOW]), max(0, len(text) - _REDACTED_WINDOW))


def _shorten(text: str, left_out: int = 0) -> str:
    left_out += max(0, len(text) - _LONGEST_VALUE)
    return f"{text[:_LONGEST_VALUE]}… [cut: {left_out} characters left out]" if left_out else text


def _printable_items(value: object, depth: int) -> Printable:
    match value:
        case Mapping() | list() | tuple() | AbstractSet() if depth == 0:
            return f"[{type(value).__name__}]"
        case Mapping():
            pairs = islice(value.items(), _MOST_ITEMS)
            return {make_text_printable(str(key)): _printable_items(item, depth - 1) for key, item in pairs}
        case list() | tuple() | AbstractSet():
            return [_printable_items(item, depth - 1) for item in islice(value, _MOST_ITEMS)]
        case _:
            return _printable_scalar(value)


def _printable_scalar(value: object) -> Printable:
    printable: Printable
    match value:
        case None | bool():
            printable = value
        case int() if value.bit_length() > _WIDEST_INTEGER_BITS:
            printable = f"[an integer of {value.bit_length()} bits]"
        case float() if not isfinite(value):
            printable = str(value)
        case int() | float():
            printable = value
        case timedelta():
            printable = value.total_seconds()
        case datetime():
            printable = timestamp(value)
        case BaseException():
            printable = type(value).__name__
        case _:
            printable = make_text_printable(str(value))
    return printable
