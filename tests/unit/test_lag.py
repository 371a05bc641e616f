"""The lag of a stream at any moment."""

from hypothesis import given
from hypothesis import strategies as st

from tailer.core.stream.positions import POLL_SECONDS, Answer, lag_seconds

SECONDS = st.integers(1_500_000_000, 2_000_000_000)
MOMENTS = st.floats(0, 1e6)


@given(SECONDS, MOMENTS, st.floats(0, POLL_SECONDS))
def test_an_idle_stream_that_answers_has_no_lag(source: int, told: float, age: float) -> None:
    assert lag_seconds(Answer(source, told), source, told + age * 0.999) == 0


@given(SECONDS, MOMENTS, st.integers(0, 100_000))
def test_what_is_not_read_yet_is_the_lag_while_the_server_answers(
    source: int, told: float, unread: int
) -> None:
    assert lag_seconds(Answer(source, told), source - unread, told + 1) == unread


@given(SECONDS, MOMENTS, st.integers(0, 100_000), st.floats(POLL_SECONDS + 1, 1e5), st.floats(1, 1e5))
def test_a_silence_grows_the_lag_by_every_second(
    source: int, told: float, unread: int, silent: float, longer: float
) -> None:
    last = Answer(source, told)
    first = lag_seconds(last, source - unread, told + silent)
    second = lag_seconds(last, source - unread, told + silent + longer)

    assert abs(first - (unread + silent)) < 1e-3
    assert abs(second - first - longer) < 1e-3


@given(SECONDS, MOMENTS, st.integers(0, 100_000))
def test_a_position_later_than_an_old_answer_is_not_behind_it(source: int, told: float, hours: int) -> None:
    """A standby that takes over: its server spoke long ago, and the position is of a moment ago."""
    assert lag_seconds(Answer(source, told), source + hours, told + hours) < 1
