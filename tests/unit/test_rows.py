"""Which rows a turn needs, and the record made of them."""

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import NO_PARENT, DocumentKey
from tailer.core.librechat.messages import Message
from tailer.core.turn.assembly import named_agent_ids, saved_agent_id
from tailer.core.turn.readback import Row
from tailer.core.turn.selection import RowSelection, group_selections
from tests.recordings import NAMES, truth
from tests.unit.documents import (
    agent,
    agent_row,
    assemble,
    conversation,
    conversation_row,
    message,
    prompt_row,
    replay,
    response_row,
    row,
    select,
    tool_part,
    transactions,
    turn_record,
    user_row,
)

BLANK = row(user_row())


def made(message_id: str, parent: str | None = None, *, by_user: bool | None = None, size: int = 10) -> Row:
    """A row by its ids: questions are called q…, responses r…."""
    return replace(
        BLANK,
        key=DocumentKey(f"key-{message_id}"),
        message_id=message_id,
        parent_message_id=parent,
        created_by_user=message_id.startswith("q") if by_user is None else by_user,
        stored_bytes=size,
    )


def family(*rows: Row) -> dict[str, Row]:
    return {item.message_id: item for item in rows}


CHAT = family(
    made("q1", NO_PARENT),
    made("r1", "q1"),
    made("q2", "r1"),
    made("r2", "q2"),
    made("r2b", "q2"),
    made("q2b", "r1"),
    made("r3", "q2b"),
)


def ids(rows: tuple[Row, ...]) -> list[str]:
    return [item.message_id for item in rows]


def test_a_response_needs_its_question_and_the_questions_ancestors() -> None:
    found = select(CHAT["r2"], CHAT, 1_000)

    assert found.question == CHAT["q2"]
    assert ids(found.ancestors) == ["r1", "q1"]
    assert list(found.keys) == ["key-r2", "key-q2", "key-r1", "key-q1"]
    assert found.stored_bytes == 40


def test_alternatives_are_known_and_not_read() -> None:
    found = select(CHAT["r2"], CHAT, 1_000)

    assert ids(found.responses) == ["r2", "r2b"]
    assert ids(found.questions) == ["q2", "q2b"]


def test_a_question_is_its_own_question() -> None:
    """For a turn that nobody answered."""
    found = select(CHAT["q2"], CHAT, 1_000)

    assert found.question == found.row == CHAT["q2"]
    assert ids(found.ancestors) == ["r1", "q1"]
    assert ids(found.responses) == ["r2", "r2b"]


def test_a_response_without_question_has_no_alternatives_and_no_history() -> None:
    """Its parent is gone, is nothing, or is another response."""
    for orphan in (
        made("r9", "gone"),
        made("r9", None),
        made("r9", NO_PARENT),
        made("r9", "r1"),
        made("r9", "r9"),
    ):
        rows = {**CHAT, **family(orphan, made("r10", orphan.parent_message_id))}
        found = select(orphan, rows, 1_000)
        assert (found.question, found.ancestors, found.responses) == (None, (), ())


def test_what_is_beyond_the_limit_is_counted() -> None:
    found = select(CHAT["r2"], CHAT, 5)

    assert (ids(found.ancestors), found.ancestors_left_out) == (["r1"], 1)


ANY_ROWS = st.lists(
    st.builds(
        lambda name, parent, by_user: made(name, parent, by_user=by_user),
        st.sampled_from("abcde"),
        st.sampled_from([*"abcdef", NO_PARENT, None]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@given(ANY_ROWS)
def test_no_row_is_read_twice_for_one_turn(rows: list[Row]) -> None:
    """Whatever cycles the parents make; a question is not part of its own history."""
    chat = family(*rows)
    for item in chat.values():
        found = select(item, chat, 1_000)
        keys = list(found.keys)
        # A question is read once as the row itself and once as its own question.
        own = 2 if item.created_by_user else 1
        assert keys.count(item.key) == own
        assert len(set(keys)) == len(keys) + 1 - own


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 100))
def test_groups_hold_every_turn_once_in_order_and_within_the_limit(sizes: list[int], limit: int) -> None:
    """A turn that is too large by itself is alone."""
    selections = [select(made(f"r{number}", size=size), {}, 10) for number, size in enumerate(sizes)]
    groups = list(group_selections(selections, byte_limit=limit))

    assert [item for group in groups for item in group] == selections
    assert all(groups)
    for group in groups:
        assert len(group) == 1 or sum(item.stored_bytes for item in group) <= limit
    for before, after in itertools.pairwise(groups):
        assert sum(item.stored_bytes for item in (*before, after[0])) > limit


def record_of(selection: RowSelection, *found: Message) -> object:
    by_key = {item.key: item for item in found}
    return assemble(selection, by_key)


def test_a_record_is_made_of_the_rows_that_were_found() -> None:
    """An ancestor that vanished between the two reads is left out."""
    question, response = user_row(), response_row()
    oldest = user_row(messageId="q0", text="oldest")
    gone = response_row(messageId="r0", parentMessageId="q0")
    question["parentMessageId"] = "r0"
    chat = family(*map(row, (question, response, oldest, gone)))
    entries = transactions(prompt_row(5))
    found = assemble(
        select(row(response), chat, 100_000),
        {item.key: item for item in map(message, (question, response, oldest))},
        conversation(conversation_row()),
        entries,
    )

    assert found is not None
    assert found.response == message(response)
    assert found.question == message(question)
    assert [item.text for item in found.history] == ["oldest"]
    assert [(sibling.message_id, sibling.model) for sibling in found.siblings] == [
        (response["messageId"], response["model"])
    ]
    assert found.transactions == entries


def test_every_agent_that_a_turn_names_is_read() -> None:
    """The one that answered, those of the parts, the receiver of a hand-off, and the sub-agents."""
    inner = {"type": "text", "text": "x", "agentId": "agent_f"}
    record = turn_record(
        response_row(
            model="agent_a",
            content=[
                {"type": "text", "text": "x", "agentId": "agent_b"},
                {"type": "text", "text": "x", "agentId": "openAI__gpt-4o"},
                {"type": "think", "think": "x", "agentId": "agent_c"},
                tool_part("lc_transfer_to_agent_d"),
                tool_part("subagent", args='{"subagent_type":"agent_e"}', subagent_content=[inner]),
                tool_part("subagent", args='{"subagent_type":"self"}'),
                {"type": "agent_update", "agent_update": {"agentId": "agent_g"}},
            ],
        )
    )

    assert named_agent_ids(record.response, None) == {f"agent_{letter}" for letter in "abcdefg"}
    assert named_agent_ids(None, None) == frozenset()


def test_a_row_that_vanished_gives_no_record() -> None:
    response = response_row()
    selection = select(row(response), family(row(response)), 100)

    assert record_of(selection) is None


def test_a_question_alone_gives_a_record_without_response() -> None:
    question = user_row()
    found = record_of(select(row(question), family(row(question)), 100), message(question))

    siblings = found.question_siblings  # type: ignore[attr-defined]
    assert found == turn_record(None, question, question_siblings=siblings, earlier_tokens=0)


def test_a_saved_agent_is_known_by_the_responses_model() -> None:
    """A conversation names an encoded model as its agent in a plain chat."""
    plain = turn_record(response_row(model="gpt-4o"), conversation=conversation(conversation_row()))
    saved = turn_record(response_row(model=agent_row()["id"]))
    now_saved = turn_record(
        response_row(model="gpt-4o"), conversation=conversation(conversation_row(agent_id=agent_row()["id"]))
    )
    unanswered = turn_record(
        None, user_row(), conversation=conversation(conversation_row(agent_id=agent_row()["id"]))
    )

    assert saved_agent_id(plain.response, plain.conversation) is None
    assert saved_agent_id(saved.response, saved.conversation) == agent_row()["id"]
    assert saved_agent_id(now_saved.response, now_saved.conversation) is None
    assert saved_agent_id(unanswered.response, unanswered.conversation) == agent_row()["id"]
    assert saved_agent_id(None, None) is None


def test_the_agent_is_added_where_it_may_be_read() -> None:
    response = response_row(model=agent_row()["id"])
    selection, messages = select(row(response), family(row(response))), {row(response).key: message(response)}
    known = agent(agent_row())

    with_agent = assemble(selection, messages, None, (), known)
    assert with_agent is not None
    assert (with_agent.agent, dict(with_agent.agents)) == (known, {known.agent_id: known})
    without = assemble(selection, messages)
    assert without is not None
    assert (without.agent, dict(without.agents)) == (None, {})


def test_every_recorded_turn_finds_its_question_and_its_parents() -> None:
    """As the driver of the recordings asked them."""
    for name in NAMES:
        for turn in truth(name).turns:
            if turn.response_message_id is None:
                continue
            record = replay(name).record(turn.response_message_id)
            assert record.question is not None
            assert record.question.message_id == turn.user_message_id
            assert record.question.parent_message_id == turn.user_parent_message_id
            first = record.history[0].parent_message_id if record.history else NO_PARENT
            assert first == NO_PARENT or name == "13-deletes"
