"""Transactions that name no message, given to turns by their times; each to one turn at most."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat.transactions import Transaction
from tailer.core.turn.readback import Row
from tailer.core.turn.transactions_by_time import assign_by_time
from tests.unit.documents import MISSING, moment, prompt_row, response_row, row, transactions, user_row


def entry(at: float | None, **fields: Any) -> Transaction:
    created = MISSING if at is None else moment(at)
    (found,) = transactions(prompt_row(1, messageId=MISSING, createdAt=created, **fields))
    return found


def chat(*turns: tuple[float, float]) -> dict[str, Row]:
    """Questions q0, q1… and responses r0, r1… stored at these times."""
    rows: dict[str, Row] = {}
    for number, (asked, answered) in enumerate(turns):
        question = row(user_row(asked, messageId=f"q{number}"))
        response = row(response_row(answered, messageId=f"r{number}", parentMessageId=f"q{number}"))
        rows |= {question.message_id: question, response.message_id: response}
    return rows


@pytest.mark.parametrize(
    ("at", "owner"),
    [
        (-1.5, None),
        (-1, "r0"),
        (0, "r0"),
        (5, "r0"),
        (15, "r0"),
        (15.5, None),
        (99, "r1"),
        (120, "r1"),
        (121, None),
    ],
)
def test_a_transaction_belongs_to_the_turn_that_it_was_written_in(at: float, owner: str | None) -> None:
    """From a second before the question until ten after the response: they are not waited for."""
    found = assign_by_time([entry(at)], chat((0, 5), (100, 110)))

    assert list(found) == ([] if owner is None else [owner])


def test_of_two_turns_the_nearer_response_has_it() -> None:
    """Two tabs in one conversation."""
    rows = chat((0, 10), (1, 14))

    assert list(assign_by_time([entry(10.5)], rows)) == ["r0"]
    assert list(assign_by_time([entry(13.5)], rows)) == ["r1"]


def test_the_order_written_stays_and_a_row_without_time_is_left_out() -> None:
    entries = [entry(4, context="title"), entry(None), entry(5), entry(6)]
    found = assign_by_time(entries, chat((0, 5)))

    assert [item.context for item in found["r0"]] == ["title", "message", "message"]
    assert list(found["r0"]) == [entries[0], *entries[2:]]


def test_a_response_whose_question_is_gone_opens_with_itself() -> None:
    rows = chat((0, 10))
    del rows["q0"]

    assert not assign_by_time([entry(8)], rows)
    assert list(assign_by_time([entry(9.5)], rows)) == ["r0"]


def test_rows_without_times_and_questions_own_nothing() -> None:
    rows = chat((0, 10))
    rows["r0"] = replace(rows["r0"], created_milliseconds=None)

    assert not assign_by_time([entry(5)], rows)


TIMES = st.floats(0, 100).map(lambda at: round(at, 3))


@given(st.lists(st.tuples(TIMES, TIMES), max_size=4), st.lists(TIMES, max_size=8))
def test_no_transaction_is_counted_twice_and_the_order_of_rows_does_not_matter(
    turns: list[tuple[float, float]], times: list[float]
) -> None:
    rows = chat(*turns)
    entries = [entry(at) for at in times]
    found = assign_by_time(entries, rows)
    backwards = dict(reversed(rows.items()))

    assert sum(map(len, found.values())) <= len(entries)
    assert found == assign_by_time(entries, backwards)
    assert found.keys() <= {f"r{number}" for number in range(len(turns))}


def test_what_was_written_for_a_question_without_an_answer_yet_is_not_the_answers_before() -> None:
    """The ledger of an answer is stored some milliseconds before it; a title may come after the next question."""
    rows = chat((0, 5))
    pending = row(user_row(7, messageId="q1"))
    rows[pending.message_id] = pending

    assert dict(assign_by_time([entry(8)], rows)) == {}
    assert list(assign_by_time([entry(6)], rows)) == ["r0"]
    assert list(assign_by_time([entry(8, context="title")], rows)) == ["r0"]
