"""Reads single values from stored documents, whatever type a field really has.

People, plug-ins and unknown releases write documents. Every reader here returns `None` (or the empty value) if the type
is not the one in the contract, and never raises.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

Document: TypeAlias = Mapping[str, object]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - BSON's times are UTC and come without a zone
_LATEST_MILLISECONDS = 7_258_118_400_000
"""The year 2200. A later time is a broken value, and nanoseconds since 1970 would exceed 64 bits."""
_LONGEST_MILLISECONDS = 366 * 24 * 3_600_000
_LARGEST_COUNT = 10**12
"""More than any model reads or writes in a turn. A larger number is a broken value."""
_OBJECT_ID_DIGITS = 24
_NUMBERS = (int, float)
_OTHER_THAN_IDS = (str, bool, int, float, bytes, dict, list)
_OTHER_THAN_TIMES = (str, bytes, bool)
_EARLIEST_NUMBER = 10**12
"""In 2001. A smaller number is of seconds or no time at all."""
_LONGEST_TIME_CHARACTERS = 40


def string(value: object) -> str | None:
    """The value if it is text. BSON's code type, which the driver makes a kind of text, is not text and has no hash."""
    return value if type(value) is str else None


def filled_string(value: object) -> str | None:
    """The value if it is text and not empty."""
    return value if type(value) is str and value else None


def identifier(value: object) -> str | None:
    """An id as text: LibreChat stores the same id as String in one collection and as ObjectId in another."""
    if type(value) is str:
        return value or None
    if value is None or isinstance(value, _OTHER_THAN_IDS):
        return None
    text = str(value)
    return text if len(text) == _OBJECT_ID_DIGITS else None


def count(value: object) -> int | None:
    """A number of tokens or bytes as an integer. A negative or infinite number, or another type, gives None."""
    if type(value) is int:
        return value if 0 <= value <= _LARGEST_COUNT else None
    if value is None or isinstance(value, bool):
        return None
    if not isinstance(value, _NUMBERS):
        value = _decimal(value)
        if value is None:
            return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= _LARGEST_COUNT else None


def amount(value: object) -> float | None:
    """A finite number of either sign, as transactions store it."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool):
        return None
    if not isinstance(value, _NUMBERS):
        value = _decimal(value)
        if value is None:
            return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _decimal(value: object) -> float | None:
    """BSON's decimal as a number: calculations within MongoDB store it. It is known by its method, as the core knows no
    driver."""
    to_decimal = getattr(value, "to_decimal", None)
    try:
        return float(to_decimal()) if callable(to_decimal) else None
    except ValueError:
        # A signalling NaN.
        return None


def milliseconds(value: object) -> int | None:
    """A stored time as milliseconds since 1970 (UTC). Times before 1970 or after 2200 are broken values.

    A database that was moved as JSON has times as text (ISO 8601) or as numbers; LibreChat reads these too.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        since = value - (_NAIVE_EPOCH if value.tzinfo is None else _EPOCH)
        # Divided by a millisecond as a `timedelta`, it would take twice as long.
        found = since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000
    elif type(value) is str:
        return _read_time(value)
    elif isinstance(value, _NUMBERS):
        number = amount(value)
        found = int(number) if number is not None and number >= _EARLIEST_NUMBER else 0
    elif isinstance(value, _OTHER_THAN_TIMES) or not hasattr(value, "__int__"):
        return None
    else:
        # The driver's type for times that `datetime` cannot hold. It is compared by name, because a check against the
        # protocol costs more than everything else that is done with the field.
        found = int(value)
    return found if 0 < found < _LATEST_MILLISECONDS else None


def _read_time(text: str) -> int | None:
    if len(text) > _LONGEST_TIME_CHARACTERS:
        return None
    try:
        return milliseconds(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def duration_milliseconds(value: object) -> int | None:
    """A stored duration. One that is longer than a year is a broken value."""
    found = count(value)
    return found if found is not None and found <= _LONGEST_MILLISECONDS else None


def mapping(value: object) -> Document:
    """The value if it is an embedded document, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> Sequence[object]:
    """The value if it is an array, else an empty one."""
    return value if type(value) is list or isinstance(value, tuple | list) else ()


def strings(value: object) -> tuple[str, ...]:
    """The texts of an array; other elements are left out."""
    return tuple([item for item in sequence(value) if type(item) is str]) if value else ()
