"""JSON text of stored values: valid, the same every time, and never an exception."""

import json
import math

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.json_text import decode_json, encode_json
from tests.unit.documents import ANY_TEXT, NOON, USER, VALUES, nested

JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), ANY_TEXT
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(ANY_TEXT, inner, max_size=4)),
    max_leaves=12,
)


@given(JSON)
def test_what_json_can_hold_is_written_exactly(value: object) -> None:
    assert json.loads(encode_json(value)) == value


@given(VALUES)
def test_every_stored_value_becomes_valid_json(value: object) -> None:
    """Strictly valid: a NaN would be refused by every parser but Python's."""

    def refuse(name: str) -> object:
        raise AssertionError(name)

    json.loads(encode_json(value), parse_constant=refuse)


@given(VALUES)
def test_the_same_value_gives_the_same_text(value: object) -> None:
    assert encode_json(value) == encode_json(value)


def test_values_of_the_database_become_text_and_broken_numbers_null() -> None:
    value = {"id": ObjectId(USER), "at": NOON, "rate": math.nan, "most": math.inf, 7: [b"x"]}

    assert json.loads(encode_json(value)) == {
        "id": USER,
        "at": "2026-03-01 12:00:00+00:00",
        "rate": None,
        "most": None,
        "7": ["b'x'"],
    }


def test_ordinary_text_is_neither_escaped_nor_padded() -> None:
    """Every escape of a common character would cost bytes on the wire."""
    assert encode_json({"a": ["ü", "😀", 1]}) == '{"a":["ü","😀",1]}'


@pytest.mark.parametrize("depth", [200, 500, 100_000])
def test_deep_nesting_is_cut_with_a_mark(depth: int) -> None:
    text = encode_json(nested(depth, math.nan))

    assert "[nested too deep]" in text
    assert len(text) < 1_000
    json.loads(text)


def test_a_number_beyond_all_measure_is_text() -> None:
    """Python refuses to print integers of more than 4300 digits."""
    assert json.loads(encode_json([10**5000])) == ["[number too long]"]


@given(st.one_of(JSON, st.dictionaries(ANY_TEXT, JSON), st.lists(JSON)))
def test_objects_and_arrays_come_back_from_their_text(value: object) -> None:
    text = encode_json(value)

    assert decode_json(text) == (value if isinstance(value, dict | list) else text)


@pytest.mark.parametrize(
    "text", ["", "12", '"a"', "plain", '{"city":"Par', "[1,", "[" * 100_000, "[" + "9" * 5_000 + "]"]
)
def test_text_that_is_no_object_or_array_stays_text(text: str) -> None:
    """The arguments of a stopped tool call end in the middle."""
    assert decode_json(text) == text


@given(ANY_TEXT)
def test_no_text_stops_the_reader(text: str) -> None:
    for prefix in ("", "{", "[", '{"a":'):
        decode_json(prefix + text)
