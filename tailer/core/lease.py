"""The rules of the lease: when a standby may take it, and how long its holder may act on it.

No clock of another machine counts. A standby watches, on its own clock, whether the holder's beat still moves. The
holder counts, on its own clock, from the moment at which it *asked* for its last renewal. The renewal was written no
earlier than that, so a holder stops acting before any standby may begin.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The lease as it is stored. `lease_seconds` is how long others must wait for its holder. `holder` is a random id
    of one process, `host` a name for people."""

    epoch: int
    beat: int
    holder: str
    host: str
    lease_seconds: float
    released: bool


@dataclass(frozen=True, slots=True)
class LeaseRhythm:
    """The durations that follow from the length of a lease, in seconds."""

    lease_seconds: float

    @property
    def renew_seconds(self) -> float:
        """The pause between renewals: three may fail before the lease is in doubt or lost."""
        return self.lease_seconds / 4

    @property
    def doubt_seconds(self) -> float:
        """How long after asking for its last renewal the holder may act. What it began by then ends before a standby
        begins."""
        return self.lease_seconds * 5 / 8

    @property
    def poll_seconds(self) -> float:
        """The pause between two looks of a standby."""
        return self.lease_seconds / 8


class Vigil:
    """What one standby has seen of the lease, on its own clock."""

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def may_take(self, record: LeaseRecord | None, *, asked: float, answered: float) -> bool:
        """Whether a lease that was read between two moments of this clock may be taken over.

        The holder's own `lease_seconds` count, so that instances with different settings agree. If a read takes longer
        than the pause between renewals, the database was away. Its holder could not renew the lease either, so it gets
        its full time again.
        """
        if record is None or record.released or record.holder == self._holder:
            return True
        seen = (record.epoch, record.beat)
        if seen != self._seen or answered - asked > LeaseRhythm(record.lease_seconds).renew_seconds:
            self._seen, self._since = seen, answered
            return False
        return asked - self._since >= record.lease_seconds
