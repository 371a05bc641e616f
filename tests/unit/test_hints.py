"""What a change event asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.stream.hints import Interest, Operation, classify_conversation, classify_message
from tests.recordings import NAMES, truth
from tests.unit.documents import change, replay

FIELDS = st.frozensets(
    st.sampled_from(
        ["updatedAt", "_meiliIndex", "content", "text", "unfinished", "title", "tokenCount", "feedback", "x"]
    )
)


@pytest.mark.parametrize("operation", [Operation.INSERT, Operation.REPLACE])
def test_a_new_row_is_a_question_or_a_response_by_its_flag(operation: Operation) -> None:
    assert classify_message(change("a", operation, created_by_user=True)) is Interest.QUESTION
    assert classify_message(change("a", operation, created_by_user=False)) is Interest.RESPONSE


@pytest.mark.parametrize(
    "changed",
    ["unfinished", "content", "text", "error", "finish_reason", "metadata", "attachments", "feedback"],
)
def test_an_update_that_can_finish_or_alter_a_turn_is_worth_reading(changed: str) -> None:
    """Also when it comes with bookkeeping."""
    hint = change("a", Operation.UPDATE, changed={changed, "updatedAt", "_meiliIndex"})

    assert classify_message(hint) is Interest.RESPONSE


def test_a_row_saved_again_without_a_change_is_a_touch() -> None:
    """On a question it is the only sign of an answer generated anew."""
    assert classify_message(change("a", Operation.UPDATE, changed={"updatedAt"})) is Interest.TOUCH
    assert (
        classify_message(change("a", Operation.UPDATE, changed={"updatedAt", "tokenCount"})) is Interest.TOUCH
    )


@pytest.mark.parametrize("changed", [set(), {"_meiliIndex"}, {"tokenCount"}, {"expiredAt", "isTemporary"}])
def test_bookkeeping_asks_for_nothing(changed: set[str]) -> None:
    """The search index touches every row of the database when it starts anew."""
    assert classify_message(change("a", Operation.UPDATE, changed=changed)) is Interest.NOTHING


@given(FIELDS, st.booleans() | st.none())
def test_a_deleted_message_is_asked_for_and_a_deleted_conversation_is_not(
    changed: frozenset[str],
    created_by_user: bool | None,  # noqa: FBT001
) -> None:
    """The rows of a deleted conversation are deleted one by one."""
    hint = change("a", Operation.DELETE, changed=changed, created_by_user=created_by_user)

    assert classify_message(hint) is Interest.DELETION
    assert classify_conversation(hint) is Interest.NOTHING


@given(FIELDS)
def test_a_conversation_matters_when_its_title_is_stored(changed: frozenset[str]) -> None:
    """Everything else in it is rewritten with every turn."""
    hint = change("a", Operation.UPDATE, changed=changed)

    assert classify_conversation(hint) is (Interest.TITLE if "title" in changed else Interest.NOTHING)
    assert classify_conversation(change("a", changed=changed)) is Interest.NOTHING


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_response_is_asked_for_and_most_updates_are_not(name: str) -> None:
    """Of 172 recorded updates 155 are touches."""
    played = replay(name)
    asked = {
        played.rows[hint.document_key]["messageId"]
        for hint in played.hints
        if classify_message(hint) is Interest.RESPONSE
    }

    assert {turn.response_message_id for turn in truth(name).turns} - {None} <= asked
