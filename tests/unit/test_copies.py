"""A copy is known by what stands around it, and no distance of two clocks makes one of a turn."""

from collections.abc import Mapping
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import DocumentKey
from tailer.core.librechat.conversations import Conversation
from tailer.core.librechat.messages import Message
from tailer.core.policy.policies import CopyPolicy, Policies
from tailer.core.turn.assembly import Draft, make_draft, make_record
from tailer.core.turn.copies import ALONE, Surroundings, is_copy, is_extract, needs_others
from tests.recordings import NAMES, truth
from tests.unit.documents import (
    CONVERSATION,
    MISSING,
    QUESTION,
    RESPONSE,
    Document,
    conversation,
    conversation_row,
    export,
    message,
    moment,
    object_id,
    old_response_row,
    prompt_row,
    replay,
    response_row,
    row,
    select,
    transactions,
    usage_metadata,
    user_row,
)

DAY = 86_400


def inserted(at: float, number: int = 0) -> ObjectId:
    """An `_id` of MongoDB's own."""
    return ObjectId(f"{int(moment(at).timestamp()):08x}{number:016x}")


def asked(at: float, stored: float, **fields: object) -> Document:
    return user_row(at, **{"_id": inserted(stored, 1), **fields})


def answered(at: float, stored: float, **fields: object) -> Document:
    return old_response_row(at, **{"_id": inserted(stored, 2), **fields})


def chat_of(at: float, stored: float) -> Conversation:
    return conversation(conversation_row(_id=inserted(stored, 3), createdAt=moment(at)))


def record_of(
    response: Document,
    *others: Document,
    chat: Conversation | None = None,
    entries: tuple[Document, ...] = (),
) -> Any:
    """What is read back for a response among the other rows of its conversation."""
    draft, messages = draft_of(response, *others, chat=chat, entries=entries)
    return make_record(draft, messages, {}, None)


def draft_of(
    response: Document,
    *others: Document,
    chat: Conversation | None = None,
    entries: tuple[Document, ...] = (),
) -> tuple[Draft, Mapping[DocumentKey, Message]]:
    """The draft of a response among the other rows of its conversation, and these rows."""
    stored = [response, *others]
    messages = {row(item).key: message(item) for item in stored}
    selection = select(row(response), {item["messageId"]: row(item) for item in stored}, 1_000)
    draft = make_draft(selection, messages, chat, transactions(*entries))
    assert draft is not None
    return draft, messages


def copied(record: Any) -> bool:
    own = record.response or record.question
    return is_copy(own, record.surroundings)


FORKS = {
    "a fork that is four seconds young": (answered(2.1, 6), asked(2, 6), chat_of(6.5, 6)),
    "a fork within the same second": (answered(2.1, 2), asked(2, 2), chat_of(2.6, 2)),
    "a fork that was inserted before its conversation": (answered(2.1, 6), asked(2, 6), chat_of(7, 7)),
    "a fork of an old chat": (answered(-DAY, 6), asked(-DAY - 1, 6), chat_of(6.5, 6)),
    "a fork from an answer on": (answered(2.1, 6), None, chat_of(6.5, 6)),
    "an import of an answer that took its time": (answered(-90, 6), asked(-96, 6), chat_of(-96, 6)),
    "an import whose rows fell into two seconds": (answered(-90, 7), asked(-96, 6), chat_of(-96, 6)),
    "the same without its conversation": (answered(-90, 6), asked(-96, 6), None),
}


@pytest.mark.parametrize(("response", "question", "chat"), FORKS.values(), ids=FORKS)
@pytest.mark.parametrize("skew", [0, -3_600, 90, 7 * DAY])
def test_a_copy_is_recognised_however_young_and_however_the_clocks_stand(
    response: Document, question: Document | None, chat: Conversation | None, skew: int
) -> None:
    """`skew`: MongoDB's clock is ahead by so many seconds."""
    rows = [ahead(item, skew) for item in (response, question) if item is not None]
    record = record_of(*rows, chat=None if chat is None else chat_ahead(chat, skew))

    assert copied(record)
    assert export(record) == "copied"
    assert export(record, policies=Policies(copies=CopyPolicy.EXPORT)) != "copied"


TURNS = {
    "an answer at once": (answered(2.05, 2), asked(2, 2), chat_of(2.01, 2)),
    "an answer over a second's end": (answered(2.1, 3), asked(1.99, 1), chat_of(1.95, 2)),
    "a slow answer": (answered(50, 50), asked(2, 2), chat_of(2.01, 2)),
    "an answer in a conversation of long ago": (answered(4.4, 4), asked(2, 2), chat_of(-DAY, -DAY)),
    "an answer generated anew to a copied question": (answered(9.4, 9), asked(2, 6), chat_of(6.5, 6)),
    "an answer of another process whose clock is behind": (answered(4, 9), asked(2, 7), chat_of(5, 3)),
    "a question stored slowly": (answered(4, 4), asked(0, 2), chat_of(2, 2)),
    "an answer whose conversation was deleted meanwhile": (answered(5, 5), None, chat_of(5.04, 5)),
    "an answer that is stored together with its conversation": (
        answered(5, 5),
        asked(2, 2),
        chat_of(5.05, 5),
    ),
    "an answer without its conversation": (answered(2.9, 2), asked(2, 2), None),
}


@pytest.mark.parametrize(("response", "question", "chat"), TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("skew", [0, -3_600, 90, 7 * DAY])
def test_a_genuine_turn_is_no_copy_however_the_clocks_stand(
    response: Document, question: Document | None, chat: Conversation | None, skew: int
) -> None:
    rows = [ahead(item, skew) for item in (response, question) if item is not None]
    record = record_of(*rows, chat=None if chat is None else chat_ahead(chat, skew))

    assert not copied(record)


def ahead(document: Document, seconds: float) -> Document:
    return {**document, "_id": shifted(str(document["_id"]), seconds)}


def chat_ahead(chat: Conversation, seconds: float) -> Conversation:
    created = chat.created_milliseconds
    assert created is not None
    document = conversation_row(_id=shifted(chat.key, seconds))
    return conversation({**document, "createdAt": moment((created - moment(0).timestamp() * 1000) / 1000)})


def shifted(key: str, seconds: float) -> ObjectId:
    return ObjectId(f"{int(key[:8], 16) + int(seconds):08x}{key[8:]}")


_TIMES = st.floats(min_value=0, max_value=30)


@given(
    times=st.tuples(_TIMES, _TIMES, _TIMES, _TIMES, _TIMES, _TIMES),
    skew=st.integers(min_value=-(10**8), max_value=10**8),
    elsewhere=st.one_of(st.none(), st.lists(st.integers(min_value=-5_000, max_value=5_000), min_size=1)),
)
def test_a_constant_distance_of_the_clocks_changes_no_verdict(
    times: tuple[float, ...], skew: int, elsewhere: list[int] | None
) -> None:
    def verdict(by: int) -> tuple[bool, bool]:
        question, response = asked(times[0], times[1] + by), answered(times[2], times[3] + by)
        record = record_of(response, question, chat=chat_of(times[4], times[5] + by))
        lags = None if elsewhere is None else tuple(lag + by * 1000 for lag in elsewhere)
        around = record.surroundings
        found = Surroundings(
            around.billed,
            around.conversation,
            around.question,
            created_apart=around.created_apart,
            lags_elsewhere=lags,
        )
        return is_copy(message(response), found), is_copy(message(response), ALONE)

    assert verdict(skew) == verdict(0)


@pytest.mark.parametrize(
    ("fields", "entries"),
    [({"metadata": usage_metadata(1, 2)}, ()), ({}, (prompt_row(10),))],
    ids=["a run of its own", "transactions that name it"],
)
def test_what_was_generated_or_billed_for_a_row_proves_it_genuine(
    fields: Document, entries: tuple[Document, ...]
) -> None:
    """Even where its times look like those of a fork."""
    response = answered(-90, 6, **fields)
    record = record_of(response, asked(-96, 6), chat=chat_of(6, 6), entries=entries)

    assert not copied(record)
    assert copied(record_of(answered(-90, 6), asked(-96, 6), chat=chat_of(6, 6)))


def test_transactions_of_another_answer_prove_nothing() -> None:
    record = record_of(
        answered(2.1, 6), asked(2, 6), chat=chat_of(6.5, 6), entries=(prompt_row(10, messageId=MISSING),)
    )

    assert copied(record)


def test_the_first_turn_after_a_fork_is_no_copy_and_its_ancestors_are() -> None:
    old = [asked(2, 6), answered(2.1, 6)]
    follow_up = asked(6.9, 6, messageId="q2", parentMessageId=RESPONSE, _id=inserted(6, 8))
    answer = answered(7.4, 7, messageId="r2", parentMessageId="q2", _id=inserted(7, 9))
    chat = chat_of(6.5, 6)

    assert not copied(record_of(answer, follow_up, *old, chat=chat))
    assert copied(record_of(old[1], old[0], follow_up, answer, chat=chat))


def test_rows_of_other_conversations_tell_a_clock_from_an_import() -> None:
    """An import of one quick answer looks like a turn; the chats around it have another distance of clocks."""
    import_, _ = draft_of(answered(-600, 6), asked(-600.2, 6), chat=chat_of(-600.2, 6))
    neighbours = [row(asked(5, 5, conversationId="other")), row(asked(8, 8, conversationId="third"))]
    behind = [row(asked(-601, 5, conversationId="other"))]

    assert import_.needs_rows_elsewhere
    assert copied(import_.with_rows_elsewhere(neighbours))
    assert not copied(import_.with_rows_elsewhere(behind))
    assert not copied(import_.with_rows_elsewhere([*neighbours, *behind]))
    assert not copied(import_.with_rows_elsewhere([]))


def test_a_row_of_another_year_is_a_copy_where_no_other_row_tells() -> None:
    old, _ = draft_of(answered(-400 * DAY, 6), asked(-400 * DAY, 6))

    assert copied(old.with_rows_elsewhere([]))


def test_others_are_looked_at_only_where_a_row_and_its_conversation_leave_it_open() -> None:
    fresh, _ = draft_of(answered(2.4, 2), asked(2, 2), chat=chat_of(2.01, 2))
    fork, _ = draft_of(answered(2.1, 60), asked(2, 60), chat=chat_of(60, 60))
    proven, _ = draft_of(answered(2.1, 60, metadata=usage_metadata(1, 2)), asked(2, 60))

    assert not any(draft.needs_rows_elsewhere for draft in (fresh, fork, proven))
    assert not needs_others(message(answered(2, 60, _id="no ObjectId")), ALONE)


def test_a_copied_question_without_an_answer_is_no_unanswered_turn() -> None:
    fork = asked(-3_600, 6)
    genuine = asked(2, 2)

    assert export(record_of(fork, chat=chat_of(6.5, 6)), deadline_passed=True) == "copied"
    assert export(record_of(genuine, chat=chat_of(2.02, 2)), deadline_passed=True) != "copied"
    assert export(record_of(genuine, chat=chat_of(2.5, 4)), deadline_passed=True) != "copied"


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_turns_and_only_they_are_no_copies(name: str) -> None:
    """Forks, duplicates, imports and forks of shared links of four releases stand among them."""
    genuine = {turn.response_message_id for turn in truth(name).turns} - {None}
    played = replay(name)
    found = {
        record.response.message_id
        for record in played.records.values()
        if record.response is not None and not copied(record)
    }

    assert genuine <= found
    if name in COPIED_IN:
        everything = {
            record.response.message_id for record in played.records.values() if record.response is not None
        }
        assert len(everything - found) == COPIED_IN[name]


COPIED_IN = {"14-fork-duplicate-import": 6}


@pytest.mark.parametrize(
    ("name", "copied_conversations"),
    [
        ("42-temp-share-fork", {"c896dbe4": 1, "b1fb18b3": 3}),
        ("62-v0.7.9-agent-tools", {"e9bda263": 0}),
    ],
)
def test_forks_of_shared_links_and_of_old_releases_are_copies_and_what_follows_is_not(
    name: str, copied_conversations: dict[str, int]
) -> None:
    """Two answers were copied into each conversation; the number is that of the answers generated there afterwards."""
    for conversation_id, followed in copied_conversations.items():
        verdicts = [
            copied(record)
            for record in replay(name).records.values()
            if record.response is not None and record.response.conversation_id.startswith(conversation_id)
        ]
        assert (verdicts.count(True), verdicts.count(False)) == (2, followed)


def test_ids_of_the_builders_are_unrelated_to_copies() -> None:
    """The builders of these tests make rows as LibreChat does."""
    assert not copied(record_of(response_row(_id=object_id(2)), user_row(0)))
    assert (response_row()["conversationId"], user_row()["messageId"]) == (CONVERSATION, QUESTION)


PARALLEL = [
    {"type": "think", "think": "Hm", "agentId": "openAI__o4-mini", "groupId": 1},
    {"type": "text", "text": "From one", "agentId": "openAI__o4-mini", "groupId": 1},
    {"type": "text", "text": "From the other", "agentId": "anthropic__claude____1", "groupId": 1},
]
SHARE = [{"type": "think", "think": "Hm"}, {"type": "text", "text": "From one"}]
LABEL = {"type": "activity_label", "activity_label": "Looked it up", "tool_call_ids": ["c1"], "status": "ok"}


@pytest.mark.parametrize(
    ("fields", "extracted"),
    [
        ({}, True),
        ({"content": SHARE[1:]}, False),
        ({"tokenCount": 5}, False),
        ({"metadata": usage_metadata(1, 2)}, False),
        ({"langfuseSampled": True}, False),
        ({"content": [{"type": "text", "text": "Something else"}]}, False),
    ],
)
def test_one_agents_share_of_a_parallel_answer_is_a_copy_of_it(fields: Document, *, extracted: bool) -> None:
    """LibreChat stores it as an answer of its own, with the time of that moment and without numbers."""
    share = old_response_row(9, **{"content": SHARE, "tokenCount": MISSING, "contextMeta": MISSING, **fields})
    parallel = old_response_row(2, messageId="both", content=PARALLEL)
    draft, _ = draft_of(share, user_row(), parallel)

    needed = draft.rows_to_compare
    compared = draft.with_answers([message(parallel)] if needed else [])

    assert bool(needed) is fields.keys().isdisjoint({"tokenCount", "metadata", "langfuseSampled"})
    assert copied(compared) is extracted


def test_the_labels_of_activities_are_copied_with_an_agents_share() -> None:
    """They name their agent in the parallel answer, as its parts do (0.8.8)."""
    label = {**LABEL, "agentId": "openAI__o4-mini", "groupId": 1}
    share = message(response_row(content=[SHARE[0], LABEL, SHARE[1]]))
    parallel = message(response_row(messageId="both", content=[PARALLEL[0], label, *PARALLEL[1:]]))

    assert is_extract(share, parallel)
    assert not is_extract(message(response_row(content=[LABEL])), parallel)


def test_the_shares_of_two_agents_together_are_no_copy_of_an_answer_of_three() -> None:
    third = {"type": "text", "text": "From a third", "agentId": "google__gemini____2", "groupId": 1}
    said = [{"type": "text", "text": part["text"]} for part in (PARALLEL[2], third)]
    parallel = old_response_row(2, messageId="all", content=[*PARALLEL, third])

    def is_extracted(*content: Document) -> bool:
        share = old_response_row(9, content=list(content), tokenCount=MISSING, contextMeta=MISSING)
        draft, _ = draft_of(share, user_row(), parallel)
        return copied(draft.with_answers([message(parallel)]))

    assert is_extracted(said[1])
    assert not is_extracted(*said)


@pytest.mark.parametrize(
    ("chat", "word"),
    [
        ({"isTemporary": False, "expiredAt": moment(9_999)}, None),
        ({"expiredAt": None}, None),
        ({"expiredAt": moment(9_999)}, "temporary"),
        ({"isTemporary": True, "expiredAt": moment(9_999)}, "temporary"),
    ],
)
def test_an_expiry_date_alone_makes_no_temporary_chat_of_a_conversation_that_is_none(
    chat: Document, word: str | None
) -> None:
    """Retention modes give every row one; until 0.8.5 it was the only sign of a temporary chat."""
    response = old_response_row(2, expiredAt=moment(9_999))
    record = record_of(response, user_row(), chat=conversation(conversation_row(**chat)))

    assert (export(record) == word) is (word is not None)
    assert export(record_of(response, user_row())) == "temporary"
