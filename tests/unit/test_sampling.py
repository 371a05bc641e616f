"""Sampling by conversation: a share, the same everywhere and always."""

from hypothesis import given
from hypothesis import strategies as st

from tailer.core.policy.policies import is_sampled
from tests.unit.documents import ANY_TEXT

RATES = st.floats(0, 1)


@given(ANY_TEXT, RATES, RATES)
def test_a_higher_rate_keeps_what_a_lower_rate_kept(conversation_id: str, one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert is_sampled(conversation_id, low) <= is_sampled(conversation_id, high)


@given(ANY_TEXT)
def test_nothing_is_kept_at_zero_and_everything_at_one(conversation_id: str) -> None:
    assert is_sampled(conversation_id, 1.0)
    assert not is_sampled(conversation_id, 0.0)


def test_the_share_is_about_the_rate() -> None:
    """Four standard deviations of 20,000 conversations are at most 1.5 per cent."""
    for rate in (0.01, 0.1, 0.5, 0.9):
        share = sum(is_sampled(f"conversation-{number}", rate) for number in range(20_000)) / 20_000
        assert abs(share - rate) < 0.015


def test_the_choice_never_changes_between_releases() -> None:
    """Fixed answers: another choice would show half of running conversations after an upgrade."""
    chosen = [number for number in range(40) if is_sampled(f"conversation-{number}", 0.2)]

    assert chosen == [2, 6, 8, 13, 17, 20, 22, 24, 25, 32, 38]
