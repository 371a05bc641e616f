"""What it means to move a stream's stored position by hand: what is read again, what is never read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time of a stream, in cluster seconds, the end not included."""

    begin_seconds: int
    end_seconds: int


@dataclass(frozen=True, slots=True)
class Repositioning:
    """`read_again`: changes that were read before. `skipped`: changes that no stream will ever read."""

    read_again: Stretch | None
    skipped: Stretch | None


def compare_positions(stored_seconds: int | None, begin_seconds: int) -> Repositioning:
    """What follows from beginning at a time instead of at the stored position; None where nothing is stored."""
    if stored_seconds is None or stored_seconds == begin_seconds:
        return Repositioning(None, None)
    if begin_seconds < stored_seconds:
        return Repositioning(Stretch(begin_seconds, stored_seconds), None)
    return Repositioning(None, Stretch(stored_seconds, begin_seconds))
