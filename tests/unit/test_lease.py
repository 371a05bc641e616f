"""The rules of the lease: whatever the clocks say, two instances never act at the same time."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from tailer.core.lease import LeaseRecord, LeaseRhythm, Vigil

LEASE = LeaseRecord(epoch=3, beat=0, holder="a", host="host", lease_seconds=8, released=False)


def look(vigil: Vigil, record: LeaseRecord | None, at: float, *, took: float = 0) -> bool:
    return vigil.may_take(record, asked=at, answered=at + took)


def test_a_lease_that_nobody_has_is_taken_at_once() -> None:
    """None was ever given, it was given up, or it is one's own from an answer that was lost."""
    for record in (None, replace(LEASE, released=True), replace(LEASE, holder="b")):
        assert look(Vigil("b"), record, 0)


def test_a_silent_holder_is_waited_for_as_long_as_it_asked_for() -> None:
    """Its own setting counts, from when this standby saw the last beat."""
    vigil = Vigil("b")
    assert not look(vigil, LEASE, 100, took=1)
    assert not look(vigil, LEASE, 108.9)
    assert look(vigil, LEASE, 109)


def test_a_beat_or_another_holder_begins_the_patience_anew() -> None:
    vigil = Vigil("b")
    assert not look(vigil, LEASE, 0)
    assert not look(vigil, replace(LEASE, beat=1), 9)
    assert not look(vigil, replace(LEASE, epoch=4, holder="c", beat=1), 18)
    assert not look(vigil, replace(LEASE, epoch=4, holder="c", beat=1), 25)
    assert look(vigil, replace(LEASE, epoch=4, holder="c", beat=1), 26)


def test_an_outage_of_the_database_is_not_held_against_the_holder() -> None:
    """A read that took eleven seconds: nobody could renew anything in that time."""
    vigil = Vigil("b")
    assert not look(vigil, LEASE, 0)
    assert not look(vigil, LEASE, 1, took=11)
    assert not look(vigil, LEASE, 13)
    assert look(vigil, LEASE, 20)


@dataclass(slots=True)
class Holder:
    """A holder that renews when it can, and believes what it may."""

    beat: int = 0
    asked: float = 0.0

    def acts_until(self, rhythm: LeaseRhythm) -> float:
        return self.asked + rhythm.doubt_seconds


@given(
    lease_seconds=st.floats(1, 120),
    offset=st.floats(-1e6, 1e6),
    # In parts of the lease: a holder that is late, dead or stopped, a standby that looks about as it should.
    renewals=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=8),
    looks=st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 0.3)), min_size=30, max_size=60),
)
def test_a_holder_has_stopped_acting_before_any_standby_takes_over(
    lease_seconds: float,
    offset: float,
    renewals: list[tuple[float, float]],
    looks: list[tuple[float, float]],
) -> None:
    """Renewals as late as they like, stops of any length, a standby whose clock shows something else."""
    rhythm, holder = LeaseRhythm(lease_seconds), Holder()
    # True time of each renewal: when it was asked for, and when the server wrote it.
    written, now = [(0.0, 0.0)], 0.0
    for pause, delay in ((a * lease_seconds, b * lease_seconds) for a, b in renewals):
        written.append((now + pause, now + pause + delay))
        now += pause + delay
    record, vigil, at = replace(LEASE, lease_seconds=lease_seconds), Vigil("b"), 0.0
    for pause, took in ((a * lease_seconds, b * lease_seconds) for a, b in looks):
        asked = at + pause
        # The server answers at some moment in between; the earliest is the worst for the holder.
        holder.beat = max(beat for beat, (_, seen) in enumerate(written) if seen <= asked)
        holder.asked = written[holder.beat][0]
        taken = vigil.may_take(
            replace(record, beat=holder.beat), asked=offset + asked, answered=offset + asked + took
        )
        if taken:
            assert holder.acts_until(rhythm) < asked
            return
        at = asked + took
