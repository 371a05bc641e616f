"""LibreChat's clock, as `_id` and `createdAt` of its rows show it."""

from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import DocumentKey
from tailer.core.librechat.clock import estimate_ahead_seconds

NOW = 1_790_000_000
Row = tuple[DocumentKey, int | None]


def row(inserted: int, created_milliseconds: int | None) -> Row:
    rest = ObjectId().binary[4:]
    return DocumentKey(str(ObjectId(inserted.to_bytes(4, "big") + rest))), created_milliseconds


@given(
    st.integers(-3600, 3600),
    st.lists(
        st.tuples(st.integers(0, 600), st.integers(0, 999), st.integers(0, 400)), min_size=1, max_size=50
    ),
    st.lists(st.integers(3600, 10**7), max_size=20),
)
def test_the_skew_is_found_within_a_second_and_a_half_whatever_copies_stand_between(
    skew: int, genuine: list[tuple[int, int, int]], ages: list[int]
) -> None:
    """A genuine row is inserted at once, in a second that has no fraction; a copy keeps an older time."""
    rows = []
    for second, millisecond, delay in genuine:
        stored = (NOW + second) * 1000 + millisecond
        rows.append(row(stored // 1000, stored - delay + skew * 1000))
    rows += [row(NOW, (NOW + skew - age) * 1000) for age in ages]

    found = estimate_ahead_seconds(rows)

    assert found is not None
    assert abs(found - skew) <= 1.5


def test_rows_that_tell_no_time_tell_nothing() -> None:
    assert estimate_ahead_seconds([]) is None
    assert estimate_ahead_seconds([row(NOW, None), (DocumentKey("~00"), NOW * 1000)]) is None
