"""The schedule: the same for the same seed, within its bounds, and sooner or later with every blow."""

from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.schedule import LANGFUSE, MONGODB, TAILER, Blow, make_schedule

SEEDS = st.text(min_size=1, max_size=12)


@given(SEEDS)
def test_a_seed_stands_for_one_schedule(seed: str) -> None:
    assert list(make_schedule(seed, 30)) == list(make_schedule(seed, 30))


@given(SEEDS)
def test_faults_at_the_same_time_are_of_different_kinds_and_short(seed: str) -> None:
    for each in make_schedule(seed, 50):
        kinds = [
            next(kind for kind in (TAILER, MONGODB, LANGFUSE) if fault.blow in kind) for fault in each.faults
        ]
        assert len(set(kinds)) == len(kinds) in (1, 2)
        assert all(0 < fault.hold_seconds <= 3 and fault.replica in (0, 1) for fault in each.faults)


def test_a_long_schedule_has_every_blow() -> None:
    assert {fault.blow for each in make_schedule("1", 400) for fault in each.faults} == set(Blow)
