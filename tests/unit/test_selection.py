"""Which ancestors are read, and when the newest rows of a conversation tell as much as all of them."""

from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tailer.core.identity import NO_PARENT, DocumentKey
from tailer.core.turn.readback import Row, make_excerpt
from tailer.core.turn.selection import (
    HistoryLimits,
    RowSelection,
    began_seconds,
    is_settled,
    least_text_bytes,
    reaches_into_history,
    select_ancestors,
    select_rows,
)
from tests.unit.documents import message, moment, object_id, response_row, row, tool_part, user_row

BLANK = row(user_row())
WIDE = HistoryLimits(100)


def made(message_id: str, parent: str | None, size: int = 10) -> Row:
    return replace(
        BLANK,
        key=DocumentKey(f"key-{message_id}"),
        message_id=message_id,
        parent_message_id=parent,
        stored_bytes=size,
    )


def chain(*ids: str) -> dict[str, Row]:
    """Rows whose parents are the ones after them, the last one at the root; 10 bytes each."""
    return {item: made(item, parent) for item, parent in zip(ids, (*ids[1:], NO_PARENT), strict=True)}


def ids(rows: tuple[Row, ...]) -> tuple[str, ...]:
    return tuple(item.message_id for item in rows)


def test_the_chain_ends_at_the_root() -> None:
    found = select_ancestors("c", {**chain("c", "b", "a"), "sibling": made("sibling", "b")}, WIDE)

    assert (ids(found.rows), found.left_out, found.missing) == (("c", "b", "a"), 0, None)


def test_the_chain_ends_at_a_missing_parent() -> None:
    found = select_ancestors("b", {"b": made("b", "gone")}, WIDE)
    assert (ids(found.rows), found.missing) == (("b",), "gone")
    assert select_ancestors("gone", {}, WIDE).rows == ()
    assert select_ancestors(None, chain("a"), WIDE).rows == ()
    found = select_ancestors("a", {"a": made("a", None)}, WIDE)
    assert (ids(found.rows), found.missing) == (("a",), None)


def test_a_cycle_is_walked_once() -> None:
    rows = {"a": made("a", "b"), "b": made("b", "c"), "c": made("c", "a")}

    assert ids(select_ancestors("a", rows, WIDE).rows) == ("a", "b", "c")
    assert ids(select_ancestors("a", {"a": made("a", "a")}, WIDE).rows) == ("a",)
    assert ids(select_ancestors("a", rows, WIDE, beside=("c",)).rows) == ("a", "b")


def test_rows_beyond_the_limit_are_counted_and_not_read() -> None:
    """One row passes the limit: without its text nobody knows how much of it is shown."""
    found = select_ancestors("d", chain("d", "c", "b", "a"), HistoryLimits(15))
    assert (ids(found.rows), found.left_out, found.is_full) == (("d", "c"), 2, True)

    found = select_ancestors("d", chain("d", "c", "b", "a"), HistoryLimits(100, 3, lambda _: 2))
    assert (ids(found.rows), found.left_out, found.is_full) == (("d", "c"), 2, True)


def test_what_a_summary_replaced_is_neither_read_nor_counted() -> None:
    def text_of(item: Row) -> int | None:
        return None if item.message_id == "c" else 2

    found = select_ancestors("d", chain("d", "c", "b", "a"), HistoryLimits(100, 100, text_of))

    assert (ids(found.rows), found.left_out, found.missing) == (("d", "c"), 0, None)


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(st.sampled_from([*"abcdefg", NO_PARENT, None]), st.integers(0, 50)),
    ),
    st.sampled_from([*"abcdefg", None]),
    st.integers(0, 100),
)
def test_any_graph_gives_a_chain(
    graph: dict[str, tuple[str | None, int]], first: str | None, limit: int
) -> None:
    """Each row once, each the parent of the one before."""
    rows = {item: made(item, parent, size) for item, (parent, size) in graph.items()}
    found = select_ancestors(first, rows, HistoryLimits(limit))
    chosen = ids(found.rows)

    assert len(set(chosen)) == len(chosen)
    assert list(chosen) == [first, *(rows[item].parent_message_id for item in chosen)][: len(chosen)]
    assert len(chosen) + found.left_out <= len(rows)


def test_the_least_size_of_a_text_is_never_more_than_its_size() -> None:
    """It is found without making the prompt, so it leaves out what costs time to measure."""
    parts = [
        {"type": "text", "text": "four"},
        tool_part(output="seven77"),
        {"type": "think", "think": "x" * 90},
    ]

    assert least_text_bytes(message(user_row(text="née"))) == 3
    assert least_text_bytes(message(response_row(content=parts))) == 11
    assert least_text_bytes(message(response_row(content=[], text="four"))) == 4
    summary = {"type": "summary", "content": [{"type": "text", "text": "They talked."}]}
    assert least_text_bytes(message(response_row(content=[*parts, summary]))) is None
    assert not reaches_into_history(message(response_row(content=[summary])))
    bounded = {**summary, "boundary": {"messageId": "q1", "contentIndex": 0}}
    assert reaches_into_history(message(response_row(content=[bounded])))
    assert reaches_into_history(message(response_row(content=[bounded, *parts])))


def called(number: int, *, questions: int) -> list[Row]:
    """A call of the agents API: its questions and its response, some milliseconds apart and without parents."""
    names = [*(f"q{number}{place}" for place in range(questions)), f"resp_{number}"]
    return [
        replace(
            made(name, None), created_by_user=name != names[-1], created_milliseconds=number * SECOND + place
        )
        for place, name in enumerate(names)
    ]


def test_a_response_of_the_agents_api_answers_the_questions_that_were_stored_with_it() -> None:
    """The second call goes on in the conversation: all of it is what the model had."""
    rows = [*called(1, questions=1), *called(2, questions=2)]
    excerpt = make_excerpt(rows[::-1], complete=True)
    found = select_rows(rows[-1], excerpt, WIDE)

    assert found.question is not None
    assert (found.question.message_id, ids(found.ancestors)) == ("q21", ("q20", "resp_1", "q10"))
    assert (ids(found.responses), ids(found.questions)) == (("resp_2",), ("q21",))
    answers = {row.message_id: ids(select_rows(row, excerpt, WIDE).responses) for row in rows}
    assert answers["q10"] == ("resp_1",)
    assert answers["q20"] == answers["q21"] == ("resp_2",)


def test_other_rows_without_a_parent_answer_nothing() -> None:
    rows = [replace(row, message_id=row.message_id.replace("resp_", "a")) for row in called(1, questions=1)]
    found = select_rows(rows[-1], make_excerpt(rows, complete=True), WIDE)

    assert found.question is None


SECOND = 1_000


@st.composite
def conversations(draw: st.DrawFn) -> list[Row]:
    """A tree of turns as LibreChat grows it: questions follow any answer, answers any question, times mostly go on.

    Now and then a parent is gone, a time is missing, equal or long past, or two rows have the same id.
    """
    rows: list[Row] = []
    now = 1_000_000_000
    oddness = draw(st.sampled_from([0, 1, 8]))
    for number in range(draw(st.integers(1, 30))):
        now += draw(st.sampled_from([60 * SECOND, 0, 500, 5 * SECOND, 20 * SECOND]))
        by_user = not rows or draw(st.booleans())
        parents = [item.message_id for item in rows if item.created_by_user is not by_user]
        recent = parents[-3:] if draw(st.integers(0, 3)) else parents
        parent: str | None = draw(st.sampled_from(recent)) if recent else NO_PARENT
        odd = draw(st.integers(0, 60)) if draw(st.integers(0, 9)) < oddness else 9
        created: int | None = now
        if odd == 0:
            parent = draw(st.sampled_from(["gone", None, NO_PARENT, f"m{number}"]))
        elif odd == 1:
            created = draw(st.sampled_from([None, now - 3_600 * SECOND, now + 3_600 * SECOND]))
        message_id = draw(st.sampled_from([f"m{number}", "m0"])) if odd == 2 else f"m{number}"
        if odd == 3:
            # A call of the agents API: its rows have no parents.
            parent, by_user = None, False
            rows.append(
                replace(
                    BLANK,
                    key=DocumentKey(f"{now // SECOND:08x}{number:015x}0"),
                    message_id=f"q{number}",
                    parent_message_id=None,
                    created_milliseconds=now,
                )
            )
            now, message_id = now + 3, f"resp_{number}"
        rows.append(
            replace(
                BLANK,
                key=DocumentKey(f"{now // SECOND:08x}{number:016x}"),
                message_id=message_id,
                parent_message_id=parent,
                created_by_user=by_user,
                created_milliseconds=created,
                stored_bytes=draw(st.integers(1, 40)),
                refused=not by_user and draw(st.integers(0, 9)) == 0,
            )
        )
    return rows


def newest_first(row: Row) -> tuple[int, DocumentKey]:
    """As the server sorts: what is no time comes last."""
    return -(row.created_milliseconds or 0), row.key


def hides_an_answer(rows: list[Row], known: list[Row]) -> bool:
    """Whether a row that was not read answers one that was, and is further out of order than any that was read."""
    slack = make_excerpt(known, complete=False).slack_milliseconds
    by_id = {row.message_id: row for row in known}
    return any(
        (parent := by_id.get(row.parent_message_id or "")) is not None
        and (
            row.created_milliseconds is None
            or slack is None
            or row.created_milliseconds + slack < (parent.created_milliseconds or 0)
        )
        for row in rows
        if row not in known
    )


@settings(max_examples=600)
@given(conversations(), st.integers(3, 12), st.integers(1, 200), st.integers(1, 40), st.data())
def test_the_newest_rows_give_the_same_selection_as_all_of_them_or_say_that_they_do_not(
    rows: list[Row], page: int, stored_limit: int, text_limit: int, data: st.DataObject
) -> None:
    """But for the number of ancestors left out, which is then not stated; and for rows inserted in the same second,
    where all rows of a conversation were inserted at once."""
    item = rows[-data.draw(st.integers(1, min(len(rows), page)))]
    limits = HistoryLimits(stored_limit, text_limit, lambda known: known.stored_bytes // 2)
    known = sorted(rows, key=newest_first)[:page]
    excerpt = make_excerpt(known, complete=page > len(rows))
    found = select_rows(item, excerpt, limits)
    if not excerpt.complete and hides_an_answer(rows, known):
        event("an answer is hidden")
        return
    if not excerpt.complete and {row.message_id for row in rows if row not in known} & excerpt.rows.keys():
        event("an id is there twice, once on the page")
        return
    settled = is_settled(found, excerpt)
    event(f"settled: {settled}, complete: {excerpt.complete}")
    if not settled:
        return

    whole = select_rows(item, make_excerpt(rows, complete=True), limits)
    assert comparable(found) == comparable(whole)
    if not found.is_cut:
        assert found.ancestors_left_out == whole.ancestors_left_out
        assert whole.missing_ancestor == found.missing_ancestor
    else:
        assert found.is_full


def comparable(selection: RowSelection) -> object:
    """Everything but the number of ancestors left out, without the order of those beside the turn. The last ancestor
    may have a parent that only the whole conversation tells."""
    return (
        selection.row.key,
        selection.question.key if selection.question is not None else None,
        ids(selection.ancestors),
        set(selection.responses),
        set(selection.questions),
        selection.went_on,
        selection.answered_ids,
    )


def long_chat(turns: int) -> list[Row]:
    """Questions and answers in turn, ten seconds apart."""
    rows = []
    parent = NO_PARENT
    for number in range(turns):
        for by_user in (True, False):
            at = (2 * number + (not by_user)) * 10 * SECOND + 1_000_000_000
            message_id = f"{'q' if by_user else 'a'}{number}"
            rows.append(replace(made(message_id, parent), created_by_user=by_user, created_milliseconds=at))
            parent = message_id
    return rows


def test_the_last_turn_of_a_long_conversation_is_told_by_its_newest_rows() -> None:
    rows = long_chat(100)
    excerpt = make_excerpt(rows[-20:], complete=False)

    full = select_rows(rows[-1], excerpt, HistoryLimits(100))
    assert is_settled(full, excerpt)
    assert (len(full.ancestors), full.is_cut) == (11, True)
    # The page ends before the history is full: an older page is needed.
    assert not is_settled(select_rows(rows[-1], excerpt, HistoryLimits(1_000)), excerpt)
    # The alternatives of a turn at the end of the page may lie beyond it.
    old = select_rows(rows[-19], excerpt, HistoryLimits(0))
    assert not is_settled(old, excerpt)
    assert is_settled(
        select_rows(rows[-19], make_excerpt(rows, complete=True), WIDE), make_excerpt(rows, complete=True)
    )


def test_a_conversation_out_of_order_is_not_told_by_its_newest_rows() -> None:
    rows = long_chat(100)
    for odd in (
        replace(rows[-5], created_milliseconds=None),
        replace(rows[-5], created_milliseconds=900_000_000),
        replace(rows[-5], message_id=rows[-7].message_id),
    ):
        excerpt = make_excerpt([*rows[-20:-5], odd, *rows[-4:]], complete=False)
        assert not is_settled(select_rows(rows[-1], excerpt, HistoryLimits(50)), excerpt)


def test_a_row_that_is_gone_is_not_told_by_the_rows_around_it() -> None:
    rows = long_chat(3)
    for complete in (True, False):
        excerpt = make_excerpt(rows[:-1], complete=complete)
        assert not is_settled(select_rows(rows[-1], excerpt, WIDE), excerpt)


def test_an_alternative_that_seems_older_by_two_clocks_is_not_overlooked() -> None:
    """An answer that another process stored may seem to be a second older than its question."""
    rows = long_chat(100)
    question, answer = rows[-14], rows[-13]
    earlier = replace(
        made("a93b", question.message_id),
        created_by_user=False,
        created_milliseconds=(question.created_milliseconds or 0) - 1 * SECOND,
    )
    for length in range(3, 30):
        known = sorted([*rows, earlier], key=newest_first)[:length]
        excerpt = make_excerpt(known, complete=False)
        found = select_rows(answer, excerpt, HistoryLimits(0))
        assert not is_settled(found, excerpt) or earlier in found.responses
        alternative = replace(
            made("q93b", rows[-15].message_id),
            created_milliseconds=(rows[-15].created_milliseconds or 0) - 1 * SECOND,
        )
        known = sorted([*rows, alternative], key=newest_first)[:length]
        excerpt = make_excerpt(known, complete=False)
        found = select_rows(answer, excerpt, HistoryLimits(0))
        assert not is_settled(found, excerpt) or alternative in found.questions


def test_a_question_below_another_question_is_no_answer_to_it() -> None:
    """A question whose answer was never stored is the parent of the next one, also of one that is sent again."""
    asked, beside = made("q1", NO_PARENT), made("q2", NO_PARENT)
    below, under = made("q3", "q1"), made("q4", "q2")
    answer = replace(made("a1", "q1"), created_by_user=False)
    excerpt = make_excerpt([asked, below, answer, beside, under], complete=True)

    found = select_rows(answer, excerpt, WIDE)

    assert ids(found.responses) == ("a1",)
    assert found.answered_ids == {"q1"}


@pytest.mark.parametrize(("created", "inserted"), [(10, 7), (7, 10)])
def test_a_turn_began_with_the_earliest_second_of_its_question_by_either_clock(
    created: int, inserted: int
) -> None:
    """From then on its ledger is read: with a later second the first rows of it would be missing."""
    asked, answer = row(user_row(created, _id=object_id(inserted))), row(response_row(30))
    found = select_rows(answer, make_excerpt([asked, answer], complete=True), WIDE)

    assert began_seconds(found) == int(moment(7).timestamp())
    assert began_seconds(replace(found, question=None)) == 0
    assert began_seconds(replace(found, question=replace(asked, created_milliseconds=None))) == 0
