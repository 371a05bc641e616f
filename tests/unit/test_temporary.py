"""A temporary chat leaves nothing, whichever of its rows says what it is."""

from typing import Any

import pytest

from tailer.core.policy.policies import Policies, TemporaryPolicy
from tailer.core.trace.export import Exported, export_title, shows_media
from tailer.core.turn.record import TurnRecord
from tailer.core.turn.temporary import settle_temporary
from tailer.core.turn.turns import Outcome
from tests.unit.documents import (
    MISSING,
    Document,
    assemble,
    completion_row,
    conversation,
    conversation_row,
    export,
    message,
    moment,
    old_response_row,
    options,
    prompt_row,
    response_row,
    row,
    select,
    trace_of,
    transactions,
    turn_record,
    user_row,
)

EXPIRY: dict[str, Any] = {"expiredAt": moment(9_999)}
FLAGGED: dict[str, Any] = {"isTemporary": True, **EXPIRY}
SILENT: dict[str, Any] = {"isTemporary": MISSING, "expiredAt": MISSING}
STOPPED: dict[str, Any] = {"unfinished": True, "text": "Par", "langfuseSampled": MISSING}
ASSISTANT: dict[str, Any] = {"endpoint": "assistants", "model": "asst_1"}
TITLE = (prompt_row(40, context="title"), completion_row(4, context="title"))


def record_of(
    response: Document | None, question: Document | None, chat: Document | None, *entries: Document
) -> TurnRecord:
    """What is read back for a response, or for a question without one."""
    stored = [item for item in (response, question) if item is not None]
    rows = {item["messageId"]: row(item) for item in stored}
    record = assemble(
        select(row(stored[0]), rows),
        {row(item).key: message(item) for item in stored},
        None if chat is None else conversation(conversation_row(**chat)),
        transactions(*entries),
    )
    assert record is not None
    return record


TEMPORARY = {
    "stopped in 0.8.6 or 0.8.7": (
        response_row(**{**STOPPED, "expiredAt": MISSING}),
        user_row(**FLAGGED),
        FLAGGED,
    ),
    "stopped until 0.8.5": (
        old_response_row(**STOPPED, expiredAt=None),
        user_row(isTemporary=MISSING, **EXPIRY),
        EXPIRY,
    ),
    "stopped until 0.8.1": (
        old_response_row(finish_reason="incomplete", expiredAt=None),
        user_row(isTemporary=MISSING, **EXPIRY),
        EXPIRY,
    ),
    "its artifact was edited": (
        old_response_row(expiredAt=None),
        user_row(isTemporary=MISSING, **EXPIRY),
        EXPIRY,
    ),
    "the same without its conversation": (
        old_response_row(expiredAt=None),
        user_row(isTemporary=MISSING, **EXPIRY),
        None,
    ),
    "an assistant's": (
        response_row(**ASSISTANT, expiredAt=MISSING),
        user_row(**ASSISTANT, expiredAt=MISSING),
        FLAGGED,
    ),
    "an assistant's until 0.8.5": (
        old_response_row(**ASSISTANT),
        user_row(**ASSISTANT, **SILENT),
        EXPIRY,
    ),
    "only its question says it": (response_row(), user_row(**FLAGGED), None),
    "a stopped one that alone is left": (response_row(**STOPPED), None, None),
    "an edited one that alone is left": (old_response_row(expiredAt=None), None, None),
    "an assistant's whose conversation has expired": (
        response_row(**ASSISTANT),
        user_row(**ASSISTANT),
        None,
    ),
}


@pytest.mark.parametrize(("response", "question", "chat"), TEMPORARY.values(), ids=TEMPORARY)
def test_a_turn_is_temporary_if_its_row_its_question_or_its_conversation_says_so(
    response: Document, question: Document | None, chat: Document | None
) -> None:
    files = [{"file_id": "f", "filename": "a.png", "type": "image/png", "bytes": 3}]
    record = record_of({**response, "files": files}, question, chat, *TITLE)

    assert export(record, deadline_passed=True) == "temporary"
    assert export_title(record, options()) is None
    assert not shows_media(record, options())
    bare = trace_of(record, policies=Policies(temporary=TemporaryPolicy.METADATA))
    assert "temporary" in bare.tags
    assert all(step.input is None and step.output is None for step in bare.observations)


LASTING = {
    "stopped": (response_row(**STOPPED), user_row(), {"isTemporary": False}, Outcome.ABORTED),
    "stopped until 0.8.5": (
        old_response_row(**STOPPED, expiredAt=None),
        user_row(isTemporary=MISSING),
        {"expiredAt": None},
        Outcome.ABORTED,
    ),
    "an assistant's": (
        response_row(**ASSISTANT),
        user_row(**ASSISTANT),
        {"isTemporary": False},
        Outcome.COMPLETE,
    ),
    "kept for a while": (
        response_row(**EXPIRY),
        user_row(**EXPIRY),
        {"isTemporary": False, **EXPIRY},
        Outcome.COMPLETE,
    ),
    "begun before it was kept for a while": (
        old_response_row(),
        user_row(isTemporary=MISSING, **EXPIRY),
        {"isTemporary": False, **EXPIRY},
        Outcome.COMPLETE,
    ),
    "kept for a while, and alone left": (response_row(**EXPIRY), None, None, Outcome.COMPLETE),
    "its conversation is not there": (response_row(), user_row(), None, Outcome.COMPLETE),
    "its question is not there": (response_row(), None, {"isTemporary": False}, Outcome.COMPLETE),
}


@pytest.mark.parametrize(("response", "question", "chat", "outcome"), LASTING.values(), ids=LASTING)
def test_a_chat_that_nothing_calls_temporary_is_sent(
    response: Document, question: Document | None, chat: Document | None, outcome: Outcome
) -> None:
    record = record_of(response, question, chat)

    made = export(record)
    assert isinstance(made, Exported)
    assert made.outcome is outcome
    assert "temporary" not in trace_of(record).tags


@pytest.mark.parametrize(
    ("question", "chat"),
    [
        (user_row(**ASSISTANT), FLAGGED),
        (user_row(**ASSISTANT, **SILENT), EXPIRY),
        (user_row(**ASSISTANT), None),
        (user_row(**FLAGGED), None),
        (user_row(isTemporary=MISSING, **EXPIRY), EXPIRY),
    ],
)
def test_a_question_of_a_temporary_chat_that_was_never_answered_leaves_nothing(
    question: Document, chat: Document | None
) -> None:
    assert export(record_of(None, question, chat), deadline_passed=True) == "temporary"


@pytest.mark.parametrize(("age_seconds", "temporary"), [(3_590, False), (3_610, True)])
@pytest.mark.parametrize("row", [response_row(**STOPPED), response_row(**ASSISTANT), old_response_row()])
def test_a_row_that_stands_alone_is_what_a_temporary_chat_left_only_if_one_can_have_expired_since(
    row: Document, age_seconds: int, *, temporary: bool
) -> None:
    """LibreChat keeps a temporary chat for an hour at least."""
    alone = message(row)
    made = alone.inserted_seconds
    assert made is not None

    settled = settle_temporary(alone, None, None, now_seconds=made + age_seconds)

    assert settled.temporary is temporary


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (TemporaryPolicy.SKIP, [{"role": "user", "content": "And of Italy?"}]),
        (TemporaryPolicy.METADATA, [{"role": "user", "content": "And of Italy?"}]),
        (
            TemporaryPolicy.FULL,
            [
                {"role": "user", "content": "A secret"},
                {"role": "assistant", "content": "Paris."},
                {"role": "user", "content": "And of Italy?"},
            ],
        ),
    ],
)
def test_a_chat_that_was_made_a_lasting_one_shows_nothing_of_what_was_temporary(
    policy: TemporaryPolicy, shown: list[Document]
) -> None:
    """LibreChat keeps the expiry date of the rows from before, and drops that of the conversation."""
    earlier = (message(user_row(text="A secret", **FLAGGED)), message(response_row(**FLAGGED)))
    record = turn_record(
        response_row(),
        user_row(text="And of Italy?"),
        history=earlier,
        conversation=conversation(conversation_row(isTemporary=False, expiredAt=None)),
    )
    found = export(record, policies=Policies(temporary=policy))
    assert isinstance(found, Exported)
    _, generation = found.traces[0].observations

    assert generation.input == shown
    assert generation.metadata.get("history_messages_left_out") == (None if len(shown) > 1 else "2")
