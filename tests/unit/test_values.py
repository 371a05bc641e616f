"""Reading single values: the right type gives the value, every other type the empty answer."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from bson import Code, Decimal128, ObjectId
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat import bson_values as values
from tests.unit.documents import VALUES

READERS = (
    values.string,
    values.filled_string,
    values.identifier,
    values.count,
    values.amount,
    values.milliseconds,
    values.duration_milliseconds,
    values.mapping,
    values.sequence,
    values.strings,
)


@given(VALUES)
def test_no_stored_value_stops_a_reader(value: object) -> None:
    """Whatever the type, there is an answer."""
    for reader in READERS:
        reader(value)


@given(st.one_of(st.text(), VALUES))
def test_text_is_text_and_nothing_else_is(value: object) -> None:
    assert values.string(value) == (value if isinstance(value, str) else None)
    assert values.filled_string(value) == (value if isinstance(value, str) and value else None)


def test_an_id_is_the_same_text_in_both_of_its_types() -> None:
    """`messages.user` is a String and `transactions.user` an ObjectId."""
    digits = "6b041b93f1e16ab6e33e9f26"

    assert values.identifier(digits) == values.identifier(ObjectId(digits)) == digits


@pytest.mark.parametrize(
    "value", ["", None, 7, 7.5, True, b"6b041b93f1e16ab6e33e9f26", {}, [], datetime(2026, 1, 2, tzinfo=UTC)]
)
def test_what_is_no_id_is_none(value: object) -> None:
    assert values.identifier(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (12, 12), (12.9, 12), (-1, None), (-0.0, 0), (True, None), ("12", None), (float("nan"), None),
     (float("inf"), None), (None, None), (10**12, 10**12), (10**12 + 1, None), (1e12, 10**12), (1e300, None),
     (10**400, None)],
)  # fmt: skip
def test_a_count_is_a_whole_number_that_is_not_negative_and_can_be_true(
    value: object, expected: int | None
) -> None:
    """No model reads a million million tokens in a turn; such a number is a broken one."""
    assert values.count(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12", 12.0), ("-1.5", -1.5), ("1E+6000", None), ("NaN", None), ("sNaN", None), ("-Infinity", None)],
)
def test_a_decimal_is_a_number_too(text: str, expected: float | None) -> None:
    """MongoDB computes decimals where somebody multiplies prices with one."""
    found = Decimal128(text)

    assert values.amount(found) == expected
    assert values.count(found) == (None if expected is None or expected < 0 else int(expected))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-12, -12.0),
        (1.5, 1.5),
        (True, None),
        ("1", None),
        (float("nan"), None),
        (float("-inf"), None),
        (10**400, None),
    ],
)
def test_an_amount_is_a_finite_number_of_either_sign(value: object, expected: float | None) -> None:
    """Transactions store what was spent as negative numbers."""
    assert values.amount(value) == expected


@given(st.datetimes(datetime(1971, 1, 1), datetime(2199, 12, 31)))  # noqa: DTZ001 - what the driver hands over
def test_a_time_without_zone_is_utc(naive: datetime) -> None:
    """Drivers hand times over without a zone unless told otherwise."""
    aware = naive.replace(tzinfo=UTC)
    elsewhere = aware.astimezone(timezone(timedelta(hours=9)))

    assert values.milliseconds(naive) == values.milliseconds(aware) == values.milliseconds(elsewhere)
    assert values.milliseconds(aware) == int(DatetimeMS(aware))


def test_the_drivers_own_type_of_time_is_read() -> None:
    """It also holds years that a `datetime` cannot; those are broken values here."""
    assert values.milliseconds(DatetimeMS(1_700_000_000_123)) == 1_700_000_000_123
    assert values.milliseconds(DatetimeMS(2**60)) is None


@pytest.mark.parametrize(
    "value",
    [
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(2200, 1, 2, tzinfo=UTC),
        "1969-12-31T00:00:00Z",
        "2200-01-02T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "yesterday",
        "2026-01-01" + " " * 1_000_000,
        1_700_000_000,
        7,
        -1,
        float("nan"),
        1e300,
        True,
        None,
    ],
)
def test_times_before_1970_or_after_2200_and_what_is_none_are_broken(value: object) -> None:
    assert values.milliseconds(value) is None


@pytest.mark.parametrize(
    "value",
    ["2023-11-14T22:13:20.123Z", "2023-11-14T22:13:20.123", "2023-11-15T07:13:20.123+09:00", 1_700_000_000_123,
     1_700_000_000_123.0],
)  # fmt: skip
def test_a_time_as_iso_text_or_as_a_number_is_read_as_librechat_reads_it(value: object) -> None:
    """A database that was moved as JSON, without its types, has such times."""
    assert values.milliseconds(value) == 1_700_000_000_123


def test_a_duration_of_more_than_a_year_is_broken() -> None:
    """Else the end of a tool call would not fit into the nanoseconds of a span."""
    assert values.duration_milliseconds(1_500) == 1_500
    assert values.duration_milliseconds(2**63 - 1) is None
    assert values.duration_milliseconds(-1) is None


@given(VALUES)
def test_containers_are_empty_where_there_are_none(value: object) -> None:
    assert values.mapping(value) == (value if isinstance(value, dict) else {})
    assert values.sequence(value) == (value if isinstance(value, list) else ())
    assert all(isinstance(item, str) for item in values.strings(value))


def test_an_array_keeps_its_texts() -> None:
    assert values.strings(["a", 1, None, "b", ["c"]]) == ("a", "b")


@pytest.mark.parametrize("read", [values.string, values.filled_string, values.identifier])
def test_code_is_no_text(read: Callable[[object], str | None]) -> None:
    """The driver makes BSON's code a kind of `str` that has no hash: as an id it would break every table it came
    into."""
    assert read(Code("while (true) {}")) is None
    assert values.strings([Code("x"), "y"]) == ("y",)
