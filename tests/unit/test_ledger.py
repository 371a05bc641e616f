"""Transactions that name no message, given to turns by their times; each to one turn at most."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.librechat.transactions import Transaction
from tailer.core.turn.readback import Row
from tailer.core.turn.transactions_by_time import assign_by_time
from tests.unit.documents import (
    MISSING,
    assemble,
    completion_row,
    message,
    moment,
    old_response_row,
    prompt_row,
    response_row,
    row,
    select,
    transactions,
    user_row,
)


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
    own = [entry(5), entry(110)]
    found = assign_by_time([*own, entry(at)], chat((0, 5), (100, 110)))

    assert {message_id for message_id, entries in found.items() if len(entries) > 1} == ({owner} - {None})


def test_an_answer_that_was_stored_while_it_was_written_has_what_was_charged_at_its_end() -> None:
    """Somebody closes the tab after 5 seconds, and the answer goes on for half a minute (0.8.2)."""
    rows = chat((0, 5), (100, 110))
    charged = [entry(35), entry(35.1, context="title")]

    assert list(assign_by_time(charged, rows).items()) == [("r0", charged)]
    assert not assign_by_time([entry(3_606)], chat((0, 5)))
    assert not assign_by_time([entry(35, model="another")], rows)
    assert not assign_by_time([entry(35)], {**rows, "r0": replace(rows["r0"], refused=True)})


@pytest.mark.parametrize(("saved", "is_own"), [(5, False), (24, False), (26, True), (35, True)])
def test_what_was_charged_long_after_the_last_save_of_an_answer_is_not_its_own(
    saved: float, *, is_own: bool
) -> None:
    """Something that is gone may have been charged in between. What names the answer is always its own."""
    question, response = user_row(), old_response_row(5, updatedAt=moment(saved))
    chat = {document["messageId"]: row(document) for document in (question, response)}
    read = {row(document).key: message(document) for document in (question, response)}
    late, named = entry(35), transactions(prompt_row(2, createdAt=moment(35)))[0]
    record = assemble(select(row(response), chat), read, None, (late, named))

    assert record is not None
    assert record.transactions == ((late, named) if is_own else (named,))


@pytest.mark.parametrize(
    "entries",
    [[entry(35, context="title")], [entry(5, context="abort"), entry(35)]],
    ids=["title", "stopped"],
)
def test_a_title_and_a_stopped_call_are_an_answers_own_however_late_they_are_charged(
    entries: list[Transaction],
) -> None:
    """Neither saves the answer once more."""
    question, response = user_row(), old_response_row(5, updatedAt=moment(5))
    chat = {document["messageId"]: row(document) for document in (question, response)}
    read = {row(document).key: message(document) for document in (question, response)}

    record = assemble(select(row(response), chat), read, None, tuple(entries))

    assert record is not None
    assert record.transactions == tuple(entries)


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


def conversation(*turns: tuple[float, float]) -> dict[str, Row]:
    """As `chat`, but each question follows the answer before it."""
    rows = chat(*turns)
    for number in range(1, len(turns)):
        rows[f"q{number}"] = replace(rows[f"q{number}"], parent_message_id=f"r{number - 1}")
    return rows


@pytest.mark.parametrize("at", [5.5, 8.9, 40])
def test_a_title_is_the_first_answers_however_near_the_next_answer_is(at: float) -> None:
    """Seen at 0.7.7 and 0.7.9: prompt and completion of one title were shared out among two turns, or lost."""
    rows = conversation((0, 5), (6, 9))

    assert list(assign_by_time([entry(at, context="title")], rows)) == ["r0"]
    assert list(assign_by_time([entry(8.9)], rows)) == ["r1"]


def test_of_two_models_that_answer_the_first_question_each_has_the_title_that_it_wrote() -> None:
    """Until 0.8.1; seen at 0.7.9, 60 ms after the one answer and 60 ms before the other."""
    rows = chat((0, 5))
    rows["r1"] = row(response_row(5.2, messageId="r1", parentMessageId="q0", model="claude-3-5-sonnet"))
    entries = [
        entry(5.15, context="title", model="gpt-4o"),
        entry(5.15, context="title", model="claude-3-5-sonnet"),
        entry(5.25, context="title", model="a model for titles"),
    ]

    found = assign_by_time(entries, rows)

    assert found == {"r0": [entries[0]], "r1": entries[1:]}


def test_a_title_is_not_that_of_an_answer_that_was_generated_again() -> None:
    rows = chat((0, 5))
    rows["r1"] = row(response_row(7, messageId="r1", parentMessageId="q0"))

    assert list(assign_by_time([entry(7.1, context="title")], rows)) == ["r0"]


def test_a_title_without_a_time_or_from_before_the_first_question_belongs_to_no_answer() -> None:
    titles = [entry(None, context="title"), entry(-2, context="title")]

    assert not assign_by_time(titles, chat((0, 5)))


def test_what_an_assistant_used_is_written_after_its_answer_also_where_the_next_question_came_meanwhile() -> (
    None
):
    """Seen at 0.7.7: LibreChat stores the answer, and then what its run used, three seconds later if it must ask."""
    rows = {
        message_id: replace(item, model="asst_1")
        for message_id, item in conversation((0, 5), (7, 8.1)).items()
    }
    entries = [entry(8), entry(8.2)]

    assert assign_by_time(entries, rows) == {"r0": [entries[0]], "r1": [entries[1]]}
    del rows["r1"]
    assert list(assign_by_time([entry(8)], rows)) == ["r0"]


def completion(at: float, tokens: int, **fields: Any) -> Transaction:
    (found,) = transactions(completion_row(tokens, messageId=MISSING, createdAt=moment(at), **fields))
    return found


def prompt(at: float, tokens: int, **fields: Any) -> Transaction:
    (found,) = transactions(prompt_row(tokens, messageId=MISSING, createdAt=moment(at), **fields))
    return found


@pytest.mark.parametrize("at", [7.2, 40])
def test_what_a_stopped_call_is_charged_when_it_ends_is_not_the_next_answers(at: float) -> None:
    """Seen at 0.7.7: stopped before its first word, and charged again when the provider answered."""
    stop = [prompt(5, 27, context="incomplete"), completion(5, 0, context="incomplete")]
    other = [prompt(7, 44), completion(7, 21)]
    end = [prompt(at, 27), completion(at, 4)]

    found = assign_by_time([*stop, *other, *end], conversation((0, 5), (6, 7.1)))

    assert found == {"r0": [*stop, *end], "r1": other}


def test_an_answer_that_was_generated_anew_after_a_stop_has_a_prompt_of_as_many_tokens() -> None:
    stop = [prompt(5, 27, context="incomplete"), completion(5, 0, context="incomplete")]
    again = [prompt(9, 27), completion(9, 30)]
    rows = chat((0, 5))
    rows["r1"] = row(response_row(9.1, messageId="r1", parentMessageId="q0"))

    assert assign_by_time([*stop, *again], rows) == {"r0": stop, "r1": again}
