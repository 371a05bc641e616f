"""A daemon that leaves out nearly everything says so, once and not for ever."""

import pytest

from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.daemon.left_out import LeftOutWatch
from tailer.events import Event, MostTurnsLeftOut, TurnDone


def told(outcomes: list[str]) -> list[Event]:
    events: list[Event] = []
    watch = LeftOutWatch(events.append)
    for outcome in outcomes:
        watch.note(TurnDone(EntryOutcome(outcome)))
    return events


@pytest.mark.parametrize("reason", ["copied", "temporary", "unread_role"])
def test_nearly_all_left_out_for_one_reason_is_told(reason: str) -> None:
    assert told([reason] * 19) == []
    assert told([reason] * 20) == [MostTurnsLeftOut(reason, 20, 20)]
    assert told([*["complete"] * 2, *[reason] * 18]) == [MostTurnsLeftOut(reason, 18, 20)]


def test_it_is_told_once_for_as_many_turns_as_are_looked_at() -> None:
    assert len(told(["temporary"] * 69)) == 1
    assert len(told(["temporary"] * 70)) == 2


@pytest.mark.parametrize(
    "outcomes",
    [
        ["complete"] * 100,
        ["copied", "complete"] * 50,
        ["copied", "temporary"] * 50,
        # What is done with a row that is no answer says nothing.
        ["not_a_response", "followed", "sent_before"] * 50,
    ],
)
def test_an_ordinary_librechat_gives_no_warning(outcomes: list[str]) -> None:
    assert told(outcomes) == []
