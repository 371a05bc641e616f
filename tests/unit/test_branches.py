"""Where a turn stands among its alternatives: the shared parent tells, and the times they were stored."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.turn.branches import Branch, BranchReason, find_branch
from tailer.core.turn.turns import Sibling
from tests.recordings import truth
from tests.unit.documents import (
    QUESTION,
    RESPONSE,
    conversation,
    conversation_row,
    replay,
    response_row,
    stamp,
    trace_of,
    turn_record,
    user_row,
)

PLAIN = turn_record(response_row(12), user_row(3))
FIRST = Sibling("first", stamp(8))
OWN = Sibling(RESPONSE, stamp(12))
QUESTION_OWN = Sibling(QUESTION, stamp(3))
EARLIER_QUESTION = Sibling("earlier question", stamp(1))


def test_the_first_of_a_family_has_no_branch() -> None:
    """When it was sent it was alone, and what was sent stays as it is."""
    later = Sibling("later", stamp(20))

    assert find_branch(PLAIN) is None
    assert find_branch(replace(PLAIN, siblings=(OWN,), question_siblings=(QUESTION_OWN,))) is None
    assert find_branch(replace(PLAIN, siblings=(later, OWN))) is None


def test_an_answer_generated_again_is_a_sibling_of_the_first() -> None:
    third = Sibling("third", stamp(10))
    found = find_branch(replace(PLAIN, siblings=(OWN, third, FIRST)))

    assert found == Branch(2, "first", BranchReason.REGENERATED)


SEEN = replace(PLAIN, siblings=(FIRST, OWN))


def test_the_model_of_an_answer_beside_it_was_not_chosen_for_an_answer() -> None:
    """Until 0.8.1 two models answer one question, and the conversation names one of them."""
    chat = conversation(conversation_row(model="claude-3-5-sonnet"))
    record = replace(SEEN, conversation=chat)
    beside = (replace(FIRST, model="claude-3-5-sonnet"), OWN)

    assert trace_of(record).metadata["chosen_model"] == "claude-3-5-sonnet"
    assert "chosen_model" not in trace_of(replace(record, siblings=beside)).metadata


def test_a_question_edited_and_sent_again_is_a_sibling_of_the_first_question() -> None:
    edited = replace(PLAIN, siblings=(OWN,), question_siblings=(QUESTION_OWN, EARLIER_QUESTION))

    assert find_branch(edited) == Branch(1, "earlier question", BranchReason.EDITED)
    assert find_branch(replace(edited, response=None)) == Branch(1, "earlier question", BranchReason.EDITED)


def test_an_answer_generated_again_to_an_edited_question_is_the_answers_sibling() -> None:
    both = replace(PLAIN, siblings=(FIRST, OWN), question_siblings=(EARLIER_QUESTION, QUESTION_OWN))

    assert find_branch(both) == Branch(1, "first", BranchReason.REGENERATED)


def test_a_response_whose_question_is_gone_has_no_branch() -> None:
    assert find_branch(replace(PLAIN, question=None)) is None


@pytest.mark.parametrize("times", [(None, None), (5, 5), (None, 5)])
def test_equal_or_unknown_times_are_ordered_by_id(times: tuple[int | None, int | None]) -> None:
    """A family has one order, whatever is not known of it."""
    siblings = (Sibling("zzz", times[1]), Sibling(RESPONSE, times[0]))

    assert find_branch(replace(PLAIN, siblings=siblings)) is None


@given(
    st.lists(st.tuples(st.uuids().map(str), st.none() | st.integers(1, 10**12)), max_size=6),
    st.randoms(use_true_random=False),
)
def test_every_member_has_its_place_whatever_order_the_rows_are_read_in(
    others: list[tuple[str, int | None]], order: random.Random
) -> None:
    family = [OWN, *(Sibling(message_id, created) for message_id, created in others)]
    places = []
    for sibling in family:
        assert PLAIN.response is not None
        own = replace(PLAIN.response, message_id=sibling.message_id)
        shuffled = sorted(family, key=lambda _: order.random())
        found = find_branch(replace(PLAIN, response=own, siblings=tuple(shuffled)))
        places.append(0 if found is None else found.index)
        assert found is None or found.sibling_of != sibling.message_id

    assert sorted(places) == list(range(len(family)))


def test_the_trace_names_branch_sibling_and_reason_and_a_first_trace_none() -> None:
    found = trace_of(replace(PLAIN, siblings=(FIRST, OWN))).metadata

    assert (found["branch_index"], found["branch_sibling_of"], found["branch_reason"]) == (
        "1",
        "first",
        "regenerated",
    )
    assert not {name for name in trace_of(PLAIN).metadata if name.startswith("branch")}


@pytest.mark.parametrize(
    ("name", "reason"), [("03-regenerate", "regenerated"), ("04-edit-resubmit", "edited")]
)
def test_recorded_alternatives_are_named(name: str, reason: str) -> None:
    """The first answer to each question, in its first version, has no mark."""
    seen: set[tuple[str, str | None]] = set()
    marked = 0
    for turn in truth(name).turns:
        assert turn.response_message_id is not None
        found = trace_of(replay(name).record(turn.response_message_id)).metadata
        parent = turn.response_parent_message_id if turn.is_regenerate else turn.user_parent_message_id
        family = (turn.conversation_id, parent)
        if "branch_reason" in found:
            marked += 1
            assert found["branch_reason"] in (reason, "regenerated")
        else:
            assert not turn.is_regenerate
            assert family not in seen or name == "03-regenerate"
        seen.add(family)
    assert marked
