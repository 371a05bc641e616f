"""What the log tells of turns: the first one that was sent, and totals now and then."""

import pytest

from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.daemon.progress import TOLD_EVERY_SECONDS, Progress
from tailer.events import (
    Event,
    FirstTurnSent,
    LeaseTaken,
    Started,
    TraceRejected,
    TracesDelivered,
    TurnDone,
    TurnFailed,
    TurnsSent,
)

STARTED = Started("1", "LibreChat", "https://langfuse", "state", "now", 9464)
TAKEN = LeaseTaken(1, 0.0, after_release=True)


class Log:
    """A progress on a clock that stands still until it is told, and what it emitted."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[Event] = []
        self.progress = Progress(self.lines.append, monotonic=lambda: self.now)
        self.record(TAKEN, STARTED)

    def record(self, *events: Event) -> None:
        for event in events:
            self.progress.record(event)

    def pass_time(self, seconds: float) -> list[Event]:
        self.now += seconds
        before = len(self.lines)
        self.progress.beat()
        return self.lines[before:]


@pytest.fixture
def log() -> Log:
    return Log()


def delivered(traces: int, *latencies: float) -> TracesDelivered:
    return TracesDelivered(traces, traces * 3, latencies)


def test_the_first_turn_that_was_sent_is_told_at_once_and_once_a_term(log: Log) -> None:
    """With how long it took, and where to look for it."""
    log.record(delivered(0), delivered(2, 3.26, 3.14), delivered(1, 3.0))

    assert log.lines == [FirstTurnSent(2, 3.1, "https://langfuse")]

    log.record(TAKEN, delivered(1))
    assert log.lines[1:] == [FirstTurnSent(1, None, "https://langfuse")]


def test_totals_are_told_after_a_while_and_begin_anew(log: Log) -> None:
    """Sent, left out by the settings, kept as dead letters; titles and answered questions are no turns left out."""
    log.record(
        delivered(3, 3.0), delivered(4), TurnDone(EntryOutcome.COPIED, 2), TurnDone(EntryOutcome.DENIED_MODEL)
    )
    log.record(TurnDone(EntryOutcome.UNREAD_ROLE))
    log.record(
        TurnDone(EntryOutcome.COMPLETE, 7),
        TurnDone(EntryOutcome.ANSWERED, 9),
        TurnDone(EntryOutcome.NOT_A_RESPONSE, 9),
    )
    log.record(TraceRejected("t", "m", "http_400"), TurnFailed("m", "x"))

    assert log.pass_time(TOLD_EVERY_SECONDS - 1) == []
    (told,) = log.pass_time(1)
    assert told == TurnsSent(7, 4, 2, round(TOLD_EVERY_SECONDS), 7)

    log.record(delivered(1))
    (told,) = log.pass_time(TOLD_EVERY_SECONDS)
    assert told == TurnsSent(1, 0, 0, round(TOLD_EVERY_SECONDS), 8)


def test_a_daemon_without_turns_is_silent(log: Log) -> None:
    assert log.pass_time(TOLD_EVERY_SECONDS) == []
    assert log.pass_time(TOLD_EVERY_SECONDS) == []


def test_turns_that_are_all_left_out_are_told(log: Log) -> None:
    """Nothing arrives in Langfuse then, and the log says why it may be so."""
    log.record(TurnDone(EntryOutcome.TEMPORARY, 5))

    (told,) = log.pass_time(TOLD_EVERY_SECONDS)

    assert told == TurnsSent(0, 5, 0, round(TOLD_EVERY_SECONDS), 0)


def test_what_was_not_told_yet_is_told_at_the_end(log: Log) -> None:
    log.record(delivered(2, 3.0))
    log.now += 12.4

    log.progress.tell()
    log.progress.tell()

    assert [event for event in log.lines if isinstance(event, TurnsSent)] == [TurnsSent(2, 0, 0, 12, 2)]
