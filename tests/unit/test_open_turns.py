"""Open turns: when an entry is due, what a change does to it meanwhile, and what is remembered of touches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailer.core.identity import DocumentKey
from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.hints import ChangeHint, Interest, Operation
from tailer.core.stream.open_turns import OpenTurns
from tailer.core.stream.touches import Touches
from tests.unit.documents import change

SETTLE, PARK = 2.0, 600.0
RESPONSE_KEY = EntryKey(Interest.RESPONSE, DocumentKey("r"))
QUESTION_KEY = EntryKey(Interest.QUESTION, DocumentKey("q"))


@pytest.fixture
def turns() -> OpenTurns:
    return OpenTurns(settle_seconds=SETTLE, park_seconds=PARK)


def open_response(turns: OpenTurns, now: float, key: str = "r", *, age: float = 0, **fields: Any) -> EntryKey:
    return turns.open(Interest.RESPONSE, change(key, **fields), now, age_seconds=age)


def open_question(turns: OpenTurns, now: float, *, age: float = 0) -> EntryKey:
    return turns.open(Interest.QUESTION, change("q", message_id="m-q"), now, age_seconds=age)


def keys(entries: Sequence[Entry]) -> list[str]:
    return [entry.key.document_key for entry in entries]


def test_a_response_is_due_when_it_has_been_quiet_for_the_settle_time(turns: OpenTurns) -> None:
    open_response(turns, 100)

    assert turns.next_due() == 102
    assert turns.take_due(101.9, 10) == []
    assert keys(turns.take_due(102, 10)) == ["r"]


def test_every_change_before_it_is_taken_starts_the_settle_time_again(turns: OpenTurns) -> None:
    open_response(turns, 100)
    open_response(turns, 101)
    open_response(turns, 101.5)

    assert turns.take_due(103.4, 10) == []
    assert keys(turns.take_due(103.5, 10)) == ["r"]
    assert len(turns) == 1


def test_a_change_of_long_ago_needs_no_second_wait(turns: OpenTurns) -> None:
    """A backlog after an outage is worked off at once."""
    open_response(turns, 100, "old", age=60)
    open_response(turns, 100, "recent", age=1.5)

    assert keys(turns.take_due(100, 10)) == ["old"]
    assert turns.next_due() == 100.5


def test_an_old_change_read_after_a_recent_one_does_not_shorten_the_wait(turns: OpenTurns) -> None:
    open_response(turns, 100)
    open_response(turns, 100, age=60)

    assert turns.next_due() == 102


def test_a_question_is_due_when_the_park_time_has_passed(turns: OpenTurns) -> None:
    open_question(turns, 100, age=40)

    assert turns.next_due() == 100 + PARK - 40


def test_an_answer_closes_its_question(turns: OpenTurns) -> None:
    open_question(turns, 100)

    assert turns.answer("m-q") == QUESTION_KEY
    assert len(turns) == 0
    assert turns.next_due() is None
    assert turns.answer("m-q") is None


def test_an_answer_to_an_unknown_question_closes_nothing(turns: OpenTurns) -> None:
    open_question(turns, 100)

    assert turns.answer("another") is None
    assert turns.count(Interest.QUESTION) == 1


def test_a_question_that_was_closed_is_not_answered_again(turns: OpenTurns) -> None:
    """It was parked: the answer is looked for there."""
    open_question(turns, 100)
    turns.take_due(1000, 1)

    assert turns.close(QUESTION_KEY)
    assert turns.answer("m-q") is None


def test_a_taken_entry_stays_open_and_is_not_taken_twice(turns: OpenTurns) -> None:
    open_response(turns, 100)
    turns.take_due(102, 10)

    assert len(turns) == 1
    assert turns.next_due() is None
    assert turns.take_due(10_000, 10) == []
    assert turns.close(RESPONSE_KEY)
    assert len(turns) == 0


def test_a_row_that_changes_while_it_is_worked_on_is_taken_again(turns: OpenTurns) -> None:
    """What was read back may be older than the change."""
    open_response(turns, 100)
    turns.take_due(102, 10)
    open_response(turns, 103)

    assert not turns.close(RESPONSE_KEY)
    assert turns.next_due() == 105
    assert keys(turns.take_due(105, 10)) == ["r"]
    assert turns.close(RESPONSE_KEY)


def test_an_entry_given_back_is_due_again_later(turns: OpenTurns) -> None:
    open_response(turns, 100)
    turns.take_due(102, 10)
    turns.release(RESPONSE_KEY, 150)

    assert turns.take_due(149, 10) == []
    assert keys(turns.take_due(150, 10)) == ["r"]


def test_a_question_answered_while_it_was_worked_on_can_be_given_back_and_closed(turns: OpenTurns) -> None:
    """The work on it goes on until its next step; then nothing is left of it."""
    open_question(turns, 100)
    turns.take_due(1000, 1)
    turns.answer("m-q")
    turns.release(QUESTION_KEY, 1100)

    assert turns.close(QUESTION_KEY)
    assert turns.take_due(2000, 10) == []
    assert len(turns) == 0


def test_entries_are_taken_in_the_order_in_which_they_are_due_up_to_the_limit(turns: OpenTurns) -> None:
    for number in (3, 1, 2):
        open_response(turns, 100 + number, f"r{number}")

    assert keys(turns.take_due(200, 2)) == ["r1", "r2"]
    assert keys(turns.take_due(200, 2)) == ["r3"]


def test_a_parked_turn_whose_deadline_has_passed_is_due_at_once_and_says_so(turns: OpenTurns) -> None:
    turns.reopen(QUESTION_KEY, "m-q", 500)
    (entry,) = turns.take_due(500, 10)

    assert entry.deadline_passed
    assert entry.message_id == "m-q"


def test_opening_a_parked_turn_again_leaves_an_open_entry_as_it_is(turns: OpenTurns) -> None:
    open_response(turns, 100)
    turns.reopen(RESPONSE_KEY, None, 100)
    (entry,) = turns.take_due(102, 10)

    assert not entry.deadline_passed


def test_a_late_hint_does_not_postpone_a_turn_whose_deadline_has_passed(turns: OpenTurns) -> None:
    turns.reopen(RESPONSE_KEY, None, 100)
    open_response(turns, 100)

    assert keys(turns.take_due(100, 10)) == ["r"]


def test_the_same_row_can_be_open_for_two_reasons(turns: OpenTurns) -> None:
    """An edited question is looked at as a row, and still waits for its answer."""
    hint = change("q", message_id="m-q")
    turns.open(Interest.QUESTION, hint, 100, age_seconds=0)
    turns.open(Interest.RESPONSE, hint, 100, age_seconds=0)

    assert (turns.count(Interest.QUESTION), turns.count(Interest.RESPONSE), len(turns)) == (1, 1, 2)
    assert turns.answer("m-q") == QUESTION_KEY
    assert len(turns) == 1


def test_the_oldest_entry_tells_how_far_behind_we_are(turns: OpenTurns) -> None:
    assert turns.oldest_seconds() is None
    open_response(turns, 100, "a")
    open_response(turns, 101, "b")
    open_response(turns, 105, "a")
    assert turns.oldest_seconds() == 100


def test_what_is_counted_is_what_is_open(turns: OpenTurns) -> None:
    """Closing, and being answered, count back; a question may be left out of the oldest."""
    turns.open(Interest.QUESTION, change("q", message_id="m-q"), 99, age_seconds=0)
    open_response(turns, 100, "a")
    open_response(turns, 101, "b")
    assert turns.oldest_seconds(except_for=Interest.QUESTION) == 100
    taken = turns.take_due(1_000, 2)
    for entry in taken:
        turns.close(entry.key)
    assert (turns.count(Interest.RESPONSE), turns.count(Interest.QUESTION)) == (0, 1)
    assert turns.oldest_seconds(except_for=Interest.QUESTION) is None
    turns.answer("m-q")
    turns.answer("m-q")
    assert (turns.count(Interest.QUESTION), len(turns), turns.oldest_seconds()) == (0, 0, None)


def test_the_event_that_finished_a_partial_row_gives_its_end(turns: OpenTurns) -> None:
    """Not its insertion, nor a later touch or feedback."""
    open_response(turns, 100, written=1_000, changed={"unfinished"})
    open_response(turns, 101, operation=Operation.UPDATE, written=2_000, changed={"unfinished", "content"})
    open_response(turns, 102, operation=Operation.UPDATE, written=9_000, changed={"feedback"})
    (entry,) = turns.take_due(200, 1)

    assert entry.ended_milliseconds(unfinished=False) == 2_000


def test_a_row_that_was_complete_from_the_start_was_not_finished_later(turns: OpenTurns) -> None:
    open_response(turns, 100, written=1_000, changed={"unfinished"})
    (entry,) = turns.take_due(200, 1)

    assert entry.ended_milliseconds(unfinished=False) is None


@pytest.mark.parametrize(
    ("first", "changed", "ended"),
    [
        ({"unfinished": True}, {"content"}, 2_000),
        ({"unfinished": True}, {"text", "metadata"}, 2_000),
        # A person's edit of a stopped answer, and a rating of it.
        ({"unfinished": True}, {"text", "tokenCount"}, None),
        ({"unfinished": True}, {"feedback"}, None),
        # Stopped at once: whatever is written into it afterwards is no answer of the model's.
        ({"unfinished": True, "stopped": True}, {"content"}, None),
    ],
)
def test_the_last_text_of_a_row_that_stays_unfinished_gives_its_end(
    turns: OpenTurns, first: Mapping[str, Any], changed: set[str], ended: int | None
) -> None:
    open_response(turns, 100, written=1_000, **first)
    open_response(turns, 101, operation=Operation.UPDATE, written=2_000, changed=changed)
    (entry,) = turns.take_due(200, 1)

    assert entry.ended_milliseconds(unfinished=True) == ended
    assert entry.ended_milliseconds(unfinished=False) is None


def test_a_turn_that_is_asked_for_again_before_it_is_quiet_keeps_its_settle_time(turns: OpenTurns) -> None:
    """A backfill, or a destination that is back, asks for a turn that is still being written."""
    key = open_response(turns, 100)
    turns.reopen(key, "m", 100.5, again=True)

    assert turns.take_due(101.9, 10) == []
    assert turns.next_due() == 102


def test_a_chat_lasts_once_its_whole_row_said_so_and_until_its_expiry_is_changed(turns: OpenTurns) -> None:
    """Only of a chat that lasts is anything sent if its row is deleted before it was read."""
    open_response(turns, 100, operation=Operation.UPDATE, changed={"text"})
    (entry,) = turns.take_due(102, 10)
    told = [entry.may_be_temporary]
    for temporary in (True, False):
        open_response(turns, 103, temporary=temporary)
        told.append(entry.may_be_temporary)
    for field in ("text", "expiredAt"):
        open_response(turns, 104, operation=Operation.UPDATE, changed={field})
        told.append(entry.may_be_temporary)

    assert told == [True, True, False, False, True]


def touch(touches: Touches, key: str, written: int | None) -> None:
    touches.note(change(key, Operation.UPDATE, written=written, changed={"updatedAt"}))


def test_touches_of_a_row_are_told_oldest_first_and_once() -> None:
    touches = Touches()
    for written in (3_000, 1_000, 2_000, 1_000):
        touch(touches, "q", written)

    assert touches.of(DocumentKey("q")) == (1_000, 2_000, 3_000)
    assert touches.of(DocumentKey("other")) == ()


def test_a_touch_without_time_is_none() -> None:
    touches = Touches()
    touch(touches, "q", None)

    assert touches.of(DocumentKey("q")) == ()


def test_only_so_many_rows_touches_are_kept_the_newest() -> None:
    touches = Touches(limit=3)
    for number in range(5):
        touch(touches, f"q{number}", 1_000)
    touch(touches, "q2", 1_100)
    touch(touches, "q9", 1_000)

    assert [key for key, _ in touches.recent(10)] == ["q4", "q2", "q9"]
    assert [key for key, _ in touches.recent(1)] == ["q9"]


def test_touches_survive_a_restart_and_may_be_read_twice() -> None:
    """They are stored with the checkpoint; the events behind it are read again."""
    before, after = Touches(), Touches()
    for written in (1_000, 2_000, 3_000, 4_000):
        touch(before, "q", written)
    after.restore(before.recent(500))
    for _ in range(3):
        touch(after, "q", 4_000)

    assert after.recent(500) == before.recent(500)
    assert after.of(DocumentKey("q")) == (1_000, 2_000, 3_000, 4_000)


Event = Callable[[OpenTurns], None]


def _opening(key: str, written: int, *, finishing: bool) -> ChangeHint:
    changed = {"unfinished"} if finishing else {"content"}
    return change(key, Operation.UPDATE, written=written, changed=changed, cluster_seconds=written)


HINTS = st.lists(
    st.builds(_opening, st.sampled_from("abc"), st.integers(1, 50), finishing=st.booleans())
    | st.builds(lambda key, at: change(key, Operation.UPDATE, written=at, changed={"updatedAt"}), st.sampled_from("abc"), st.integers(1, 50)),
    max_size=12,
)  # fmt: skip


def told_by(hints: Sequence[ChangeHint]) -> object:
    turns, touches = OpenTurns(settle_seconds=SETTLE, park_seconds=PARK), Touches()
    for number, hint in enumerate(hints):
        if hint.changed == {"updatedAt"}:
            touches.note(hint)
        else:
            turns.open(Interest.RESPONSE, hint, float(number), age_seconds=0)
    entries = turns.take_due(1_000, 100)
    return (
        sorted((entry.key, entry.finished_milliseconds, entry.cluster_seconds) for entry in entries),
        sorted(touches.recent(100)),
    )


@given(HINTS, st.data())
def test_order_and_repetition_of_hints_do_not_matter(hints: list[ChangeHint], data: st.DataObject) -> None:
    """Which rows are open, when each was finished and when touched: the hints tell it, not their order."""
    repeated = hints + (data.draw(st.lists(st.sampled_from(hints), max_size=10)) if hints else [])

    assert told_by(data.draw(st.permutations(repeated))) == told_by(hints)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["open", "ask", "answer", "take", "close", "release", "pass_on", "reopen", "take_back"]
        ),
        st.sampled_from("ab"),
    ),
    max_size=40,
)


@settings(max_examples=1_000)
@given(STEPS)
def test_no_entry_is_lost_and_none_is_handed_out_twice(steps: list[tuple[str, str]]) -> None:
    """Whatever happens to it, an open entry is taken again until it is closed with nothing new; and for what opens it,
    its first work is done."""
    turns = OpenTurns(settle_seconds=SETTLE, park_seconds=PARK)
    waiting: set[EntryKey] = set()
    taken: dict[EntryKey, bool] = {}
    unseen: set[EntryKey] = set()
    now = 0.0
    for step, name in steps:
        now += SETTLE
        key = EntryKey(
            Interest.QUESTION if step in ("ask", "answer") else Interest.RESPONSE, DocumentKey(name)
        )
        if step in ("open", "ask", "take_back"):
            if step == "take_back":
                turns.take_back(Entry(key, now, now, Interest.RESPONSE), now)
            else:
                turns.open(key.interest, change(name, message_id=name), now, age_seconds=0)
            unseen.add(key)
            if key in taken:
                taken[key] = True
            else:
                waiting.add(key)
        elif step == "answer":
            answered = turns.answer(name)
            assert answered in (None, key)
            if answered is not None:
                waiting.discard(key)
                taken.pop(key, None)
        elif step == "reopen":
            turns.reopen(key, name, now)
            if key not in taken:
                waiting.add(key)
        elif step == "take":
            for entry in turns.take_due(now, 2):
                assert entry.key in waiting
                waiting.remove(entry.key)
                taken[entry.key] = False
                assert entry.work is entry.key.interest or entry.key not in unseen
                unseen.discard(entry.key)
        elif key in taken and step in ("release", "pass_on"):
            if step == "release":
                turns.release(key, now + 1)
            else:
                turns.pass_on(key, Interest.FOLLOWUP, now)
            waiting.add(key)
            del taken[key]
        elif key in taken:
            changed = taken.pop(key)
            assert turns.close(key) is not changed
            if changed:
                waiting.add(key)
    assert len(turns) == len(waiting) + len(taken)
    rest = turns.take_due(now + PARK + SETTLE, 100)
    assert {entry.key for entry in rest} == waiting
    assert len(rest) == len(waiting)


def test_answered_questions_leave_nothing_behind_in_the_schedule(turns: OpenTurns) -> None:
    """At two hundred turns a second they would be a hundred thousand by the time the first would have been parked."""
    for number in range(10_000):
        asked = change(f"q{number}", message_id=f"m{number}")
        turns.open(Interest.QUESTION, asked, number / 100, age_seconds=0)
        assert turns.answer(f"m{number}") is not None

    assert len(turns._schedule) <= 1_001
    assert turns.next_due() is None


def test_what_is_open_stays_due_in_order_while_others_come_and_go(turns: OpenTurns) -> None:
    for number in range(5_000):
        asked = change(f"q{number}", message_id=f"m{number}")
        turns.open(Interest.QUESTION, asked, 0, age_seconds=0)
        turns.answer(f"m{number}")
        if number % 1_000 == 0:
            open_response(turns, 10 - number / 1_000, f"r{number}")

    assert keys(turns.take_due(100, 10)) == ["r4000", "r3000", "r2000", "r1000", "r0"]


def test_due_responses_of_one_conversation_are_taken_together(turns: OpenTurns) -> None:
    """They share what is read for them; what is not due yet, or has been taken, is left where it is."""
    for name, now, conversation in (("a1", 1, "a"), ("b1", 2, "b"), ("a2", 3, "a"), ("a3", 50, "a")):
        open_response(turns, now, name, conversation_id=conversation)

    assert keys(turns.take_due(10, 2)) == ["a1", "a2"]
    assert keys(turns.take_due(10, 10)) == ["b1"]
    assert keys(turns.take_due(60, 10)) == ["a3"]


def test_no_more_are_taken_than_asked_for_however_many_are_of_one_conversation(turns: OpenTurns) -> None:
    for number in range(9):
        open_response(turns, number, f"r{number}", conversation_id="a")

    assert keys(turns.take_due(100, 4)) == ["r0", "r1", "r2", "r3"]
    assert len(turns.take_due(100, 100)) == 5


FOLLOWUPS, RESPONSES = (Interest.FOLLOWUP,), (Interest.RESPONSE,)


def test_each_kind_of_work_is_taken_by_itself(turns: OpenTurns) -> None:
    open_response(turns, 100)
    open_question(turns, 100, age=PARK)

    assert turns.next_due(RESPONSES) == 102
    assert keys(turns.take_due(102, 10, (Interest.QUESTION,))) == ["q"]
    assert keys(turns.take_due(102, 10, FOLLOWUPS)) == []
    assert keys(turns.take_due(102, 10, RESPONSES)) == ["r"]


def test_an_entry_that_is_passed_on_waits_for_its_new_work_only(turns: OpenTurns) -> None:
    """It stays the same entry: the position that it holds is still held, and further changes are its own."""
    open_response(turns, 100, changed={"text"})
    (entry,) = turns.take_due(102, 10)
    turns.pass_on(entry.key, Interest.FOLLOWUP, 103, changed=["feedback"])

    assert turns.is_open(RESPONSE_KEY)
    assert turns.take_due(104, 10, RESPONSES) == []
    (taken,) = turns.take_due(104, 10, FOLLOWUPS)
    assert taken is entry
    assert taken.changed == {"text", "feedback"}


def test_what_changed_while_it_was_followed_up_is_looked_at_from_the_beginning(turns: OpenTurns) -> None:
    open_response(turns, 100)
    (entry,) = turns.take_due(102, 10)
    turns.pass_on(entry.key, Interest.FOLLOWUP, 103)
    turns.take_due(104, 10, FOLLOWUPS)
    open_response(turns, 105)

    assert turns.close(entry.key) is False
    assert turns.take_due(107, 10, FOLLOWUPS) == []
    assert keys(turns.take_due(107, 10, RESPONSES)) == ["r"]


def taken_back(turns: OpenTurns, now: float) -> None:
    """Open what a destination is owed."""
    turns.take_back(Entry(RESPONSE_KEY, now, now, Interest.RESPONSE, changed=frozenset({"content"})), now)


def read_again(turns: OpenTurns, now: float) -> None:
    """Read the change of long ago that opened it; after a start this happens."""
    open_response(turns, now, age=60, changed={"content"})


@pytest.mark.parametrize("open_again", [taken_back, read_again])
def test_a_turn_that_is_opened_again_while_its_rating_waits_is_looked_at_from_the_beginning(
    open_again: Callable[[OpenTurns, float], None], turns: OpenTurns
) -> None:
    """A destination still has to get the turn, and a follow-up would take it for sent."""
    open_response(turns, 100)
    turns.take_due(102, 10)
    turns.pass_on(RESPONSE_KEY, Interest.FOLLOWUP, 103, changed=["feedback"])
    turns.take_due(103, 10, FOLLOWUPS)
    turns.release(RESPONSE_KEY, 160)
    open_again(turns, 104)

    assert turns.take_due(200, 10, FOLLOWUPS) == []
    (entry,) = turns.take_due(104, 10, RESPONSES)
    assert entry.changed == {"content", "feedback"}
    assert turns.close(RESPONSE_KEY) is True


@pytest.mark.parametrize("open_again", [taken_back, read_again])
@pytest.mark.parametrize("give_back", ["pass_on", "release"])
@pytest.mark.parametrize("works", [RESPONSES, FOLLOWUPS])
def test_a_turn_that_is_opened_again_while_it_is_worked_on_begins_again_however_that_work_ends(
    open_again: Callable[[OpenTurns, float], None],
    give_back: str,
    works: tuple[Interest, ...],
    turns: OpenTurns,
) -> None:
    open_response(turns, 100)
    turns.take_due(102, 10)
    if works is FOLLOWUPS:
        turns.pass_on(RESPONSE_KEY, Interest.FOLLOWUP, 103)
        turns.take_due(103, 10, FOLLOWUPS)
    open_again(turns, 104)
    if give_back == "pass_on":
        turns.pass_on(RESPONSE_KEY, Interest.FOLLOWUP, 105)
    else:
        turns.release(RESPONSE_KEY, 105)

    assert turns.take_due(105, 10, FOLLOWUPS) == []
    assert keys(turns.take_due(105, 10, RESPONSES)) == ["r"]
    turns.pass_on(RESPONSE_KEY, Interest.FOLLOWUP, 106)
    assert keys(turns.take_due(106, 10, FOLLOWUPS)) == ["r"]


def test_a_change_while_a_turn_is_worked_on_has_its_settle_time_although_a_rating_follows(
    turns: OpenTurns,
) -> None:
    open_response(turns, 100)
    turns.take_due(102, 10)
    open_response(turns, 104)
    turns.pass_on(RESPONSE_KEY, Interest.FOLLOWUP, 105)

    assert turns.take_due(105.9, 10) == []
    assert keys(turns.take_due(106, 10, RESPONSES)) == ["r"]
