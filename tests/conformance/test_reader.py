"""Reading rows back: whose they are, what belongs to them, and what is missing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import DocumentKey
from tailer.core.turn.copies import is_copy
from tailer.core.turn.readback import DeletedRow, Row
from tailer.core.turn.turns import TurnRecord
from tailer.mongo.document_keys import to_key
from tests.conformance.worlds import LibreChatWorld
from tests.rows import ALICE, BOB, NOW, answer, question, transaction
from tests.sent import make_sent


async def read(librechat: LibreChatWorld, keys: list[DocumentKey]) -> dict[str, TurnRecord | None]:
    """The records of rows by message id."""
    rows = await librechat.reader.locate(keys)
    return {
        row.message_id: record async for group in librechat.reader.read_turns(rows) for row, record in group
    }


async def test_a_response_is_read_with_everything_that_belongs_to_it(librechat: LibreChatWorld) -> None:
    """Question, history in order, siblings, conversation, transactions of its own, and the agent that answered."""
    rows = [
        question("q1", None), answer("a1", "q1"), question("q2", "a1"),
        answer("a2", "q2", model="agent_x"), answer("a2b", "q2"),
    ]  # fmt: skip
    keys = await librechat.insert("messages", *rows)
    await librechat.insert(
        "conversations",
        {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "Clocks", "agent_id": "agent_x"},
    )
    await librechat.insert(
        "transactions",
        *(
            {
                "_id": ObjectId(), "conversationId": "c1", "messageId": owner, "user": ObjectId(ALICE),
                "tokenType": "completion", "rawAmount": -tokens, "context": "message",
            }
            for owner, tokens in (("a1", 1), ("a2", 2), ("a2", 3))
        ),
    )  # fmt: skip
    await librechat.insert(
        "agents", {"_id": ObjectId(), "id": "agent_x", "name": "Clockmaker", "model": "o3"}
    )

    record = (await read(librechat, [keys[3]]))["a2"]

    assert record is not None
    assert record.response is not None
    assert record.response.message_id == "a2"
    assert record.question is not None
    assert record.question.message_id == "q2"
    assert [item.message_id for item in record.history] == ["q1", "a1"]
    assert {item.message_id for item in record.siblings} == {"a2", "a2b"}
    assert record.conversation is not None
    assert record.conversation.title == "Clocks"
    assert [item.tokens for item in record.transactions] == [2, 3]
    assert record.agent is not None
    assert record.agent.name == "Clockmaker"


async def test_an_earlier_row_says_if_it_is_temporary_whatever_its_size(librechat: LibreChatWorld) -> None:
    """Of a large row only what a history needs is read."""
    rows = [
        question("q1", None) | {"isTemporary": True},
        answer("a1", "q1") | {"isTemporary": True, "text": "long " * 2_000},
        question("q2", "a1") | {"isTemporary": False},
        answer("a2", "q2") | {"isTemporary": False},
    ]
    keys = await librechat.insert("messages", *rows)

    record = (await read(librechat, [keys[3]]))["a2"]

    assert record is not None
    assert [item.temporary for item in record.history] == [True, True]


async def test_two_users_with_the_same_conversation_id_are_never_mixed(librechat: LibreChatWorld) -> None:
    """LibreChat's ids are unique only together with the user: shared links and imports make such pairs."""
    keys = await librechat.insert(
        "messages",
        question("qa", None, ALICE), answer("aa", "qa", ALICE), question("qa2", "aa", ALICE), answer("aa2", "qa2", ALICE),
        question("qa", None, BOB), answer("ab", "qa", BOB), question("qb2", "aa", BOB), answer("ab2", "qb2", BOB),
    )  # fmt: skip
    await librechat.insert(
        "conversations",
        *(
            {"_id": ObjectId(), "conversationId": "c1", "user": user, "title": f"title of {user}"}
            for user in (ALICE, BOB)
        ),
    )

    records = await read(librechat, [keys[1], keys[3], keys[5], keys[7]])

    assert len(records) == 4
    for message_id, record in records.items():
        owner = ALICE if message_id.startswith("aa") else BOB
        assert record is not None
        assert record.conversation is not None
        assert record.conversation.title == f"title of {owner}"
        assert record.question is not None
        for item in (record.response, record.question, *record.history):
            assert item is not None
            assert item.user_id == owner
    found = records["aa2"]
    assert found is not None
    assert [item.message_id for item in found.history] == ["qa", "aa"]
    # Bob's question hangs on an answer that only Alice has: his history ends there.
    found = records["ab2"]
    assert found is not None
    assert found.history == ()
    found = records["ab"]
    assert found is not None
    assert [item.message_id for item in found.siblings] == ["ab"]


async def test_titles_of_the_same_conversation_id_go_to_their_owners(librechat: LibreChatWorld) -> None:
    """One title each, in the same round."""
    await librechat.insert(
        "messages",
        question("qa", None, ALICE), answer("aa", "qa", ALICE), question("qb", None, BOB), answer("ab", "qb", BOB),
    )  # fmt: skip
    keys = await librechat.insert(
        "conversations",
        *({"_id": ObjectId(), "conversationId": "c1", "user": user, "title": "t"} for user in (ALICE, BOB)),
    )
    await librechat.insert(
        "transactions",
        *(
            {"_id": ObjectId(), "conversationId": "c1", "messageId": message_id, "context": "title"}
            for message_id in ("aa", "ab")
        ),
    )

    both = await librechat.reader.locate_titled(keys)
    bobs = await librechat.reader.locate_titled(keys[1:])

    assert {(key, row.message_id) for key, row in both} == {(keys[0], "aa"), (keys[1], "ab")}
    assert [(key, row.message_id) for key, row in bobs] == [(keys[1], "ab")]


async def test_a_title_that_names_no_message_is_that_of_the_first_answer(librechat: LibreChatWorld) -> None:
    """Until LibreChat 0.8.2. The conversation went on meanwhile, and another user has one of the same id."""
    await librechat.insert(
        "messages",
        question("qa", None, ALICE), answer("aa", "qa", ALICE),
        question("qa2", "aa", ALICE), answer("aa2", "qa2", ALICE),
        question("qb", None, BOB), answer("ab", "qb", BOB),
    )  # fmt: skip
    keys = await librechat.insert(
        "conversations",
        *({"_id": ObjectId(), "conversationId": "c1", "user": user, "title": "t"} for user in (ALICE, BOB)),
    )
    await librechat.insert(
        "transactions",
        *(
            {
                "_id": ObjectId(),
                "conversationId": "c1",
                "user": ObjectId(ALICE),
                "context": context,
                "tokenType": token_type,
                "rawAmount": -5,
                "createdAt": datetime.now(UTC) + timedelta(seconds=30),
            }
            for context in ("title", "message")
            for token_type in ("prompt", "completion")
        ),
    )

    found = await librechat.reader.locate_titled(keys)

    assert [(key, row.message_id) for key, row in found] == [(keys[0], "aa")]


async def test_what_librechat_counted_before_a_question_is_read_where_it_can_tell_something(
    librechat: LibreChatWorld,
) -> None:
    """Only until LibreChat 0.8.5, for a turn with one plain prompt; a row without a count makes the sum unknown."""
    parts = [{"type": "text", "text": "Noon."}]
    keys = await librechat.insert(
        "messages",
        question("q1", None, tokenCount=5), answer("a1", "q1", tokenCount=7, content=parts),
        question("q2", "a1", tokenCount=11), answer("a2", "q2", tokenCount=13, content=parts),
        question("q3", "a2"), answer("a3", "q3", content=parts),
        question("q4", "a3", tokenCount=17), answer("a4", "q4", content=parts),
        question("q5", "a2", tokenCount=17), answer("a5", "q5", content=parts, isTemporary=False),
    )  # fmt: skip
    await librechat.insert(
        "transactions",
        *(
            transaction(tokenType="prompt", messageId=message_id)
            for message_id in ("a1", "a2", "a3", "a4", "a5")
        ),
    )

    records = await read(librechat, keys[1::2])
    counted = {
        message_id: record.earlier_tokens for message_id, record in records.items() if record is not None
    }

    assert counted == {"a1": 0, "a2": 12, "a3": None, "a4": None, "a5": None}


async def test_answers_are_found_with_the_questions_of_their_own_user(librechat: LibreChatWorld) -> None:
    """Equal ids under two users, in a conversation of the same id and in another; questions are no answers."""
    keys = await librechat.insert(
        "messages",
        question("q1", None, ALICE), answer("a1", "q1", ALICE), answer("a1b", "q1", ALICE),
        question("q1", None, BOB), answer("b1", "q1", BOB),
        question("follow-up", "q1", ALICE), answer("a2", "follow-up", ALICE),
        answer("elsewhere", "q1", ALICE, conversationId="c2"),
    )  # fmt: skip
    alices, bobs = await librechat.reader.locate([keys[0]]), await librechat.reader.locate([keys[3]])

    async def find(questions: list[Row]) -> set[tuple[str, DocumentKey]]:
        pairs = await librechat.reader.locate_answers(questions)
        return {(found.message_id, asked.key) for found, asked in pairs}

    assert await find([*alices]) == {("a1", keys[0]), ("a1b", keys[0])}
    assert await find([*bobs]) == {("b1", keys[3])}
    assert await find([*alices, *bobs]) == {("a1", keys[0]), ("a1b", keys[0]), ("b1", keys[3])}
    assert await find([]) == set()


async def test_a_turn_has_the_transactions_of_its_own_user(librechat: LibreChatWorld) -> None:
    """Two users have the same ids. What names another user counts only if nothing else does."""
    keys = await librechat.insert(
        "messages",
        question("q1", None, ALICE), answer("a1", "q1", ALICE),
        question("q1", None, BOB), answer("a1", "q1", BOB),
        question("q2", None, ALICE), answer("a2", "q2", ALICE),
    )  # fmt: skip
    await librechat.insert(
        "transactions",
        transaction(ALICE, messageId="a1", rawAmount=-1),
        transaction(BOB, messageId="a1", rawAmount=-2),
        transaction(BOB, messageId="a2", rawAmount=-3),
    )
    rows = await librechat.reader.locate([keys[1], keys[3], keys[5]])
    tokens = {}
    async for group in librechat.reader.read_turns(rows):
        for row, record in group:
            assert record is not None
            tokens[row.key] = [entry.tokens for entry in record.transactions]

    assert tokens == {keys[1]: [1], keys[3]: [2], keys[5]: [3]}


async def test_rows_that_are_missing_are_left_out(librechat: LibreChatWorld) -> None:
    """Deleted before the row was located, between the two reads, and a question that never existed."""
    keys = await librechat.insert(
        "messages",
        question("q1", None),
        answer("a1", "q1"),
        answer("a2", "q1"),
        answer("a3", "gone"),
    )
    rows = list(await librechat.reader.locate([*keys[1:], to_key(ObjectId()), to_key("no such row")]))
    assert {row.message_id for row in rows} == {"a1", "a2", "a3"}

    await librechat.delete("messages", keys[0], keys[2])
    records = {
        row.message_id: record async for group in librechat.reader.read_turns(rows) for row, record in group
    }

    assert records["a2"] is None
    for message_id in ("a1", "a3"):
        record = records[message_id]
        assert record is not None
        assert record.question is None
        assert record.conversation is None
    assert await librechat.reader.locate([]) == []
    assert [group async for group in librechat.reader.read_turns([])] == []


@pytest.mark.parametrize(
    "document_id", ["text", 7, {"a": 1}, b"\\x00\\x80", datetime(2026, 1, 2, tzinfo=UTC)], ids=str
)
async def test_rows_are_found_by_ids_of_any_type(librechat: LibreChatWorld, document_id: object) -> None:
    """An import may set any `_id`; the key that stands for it leads back to the row."""
    (key,) = await librechat.insert("messages", answer("a1", "q1", _id=document_id))

    assert [row.message_id for row in await librechat.reader.locate([key])] == ["a1"]
    assert list(await read(librechat, [key])) == ["a1"]


def pair(number: int, *, behind_seconds: float = 0) -> list[dict[str, Any]]:
    """A question and its quick answer in a conversation of their own; LibreChat's clock is behind MongoDB's."""
    created = datetime.now(UTC) - timedelta(seconds=behind_seconds)
    own: dict[str, Any] = {"conversationId": f"c{number}", "createdAt": created, "updatedAt": created}
    return [question(f"q{number}", None, **own), answer(f"a{number}", f"q{number}", **own)]


def is_copied(record: TurnRecord | None) -> bool:
    assert record is not None
    assert record.response is not None
    return is_copy(record.response, record.surroundings)


async def test_turns_of_a_librechat_whose_clock_is_behind_are_no_copies(librechat: LibreChatWorld) -> None:
    """The rows of other conversations show the same distance of the clocks."""
    keys = await librechat.insert(
        "messages", *(row for number in range(10) for row in pair(number, behind_seconds=90))
    )

    records = await read(librechat, keys[1::2])

    assert len(records) == 10
    assert not any(map(is_copied, records.values()))


async def test_an_import_of_one_quick_answer_is_told_by_the_conversations_around_it(
    librechat: LibreChatWorld,
) -> None:
    keys = await librechat.insert("messages", *pair(1), *pair(2, behind_seconds=600), *pair(3))

    records = await read(librechat, keys[1::2])

    assert {name for name, record in records.items() if is_copied(record)} == {"a2"}


async def test_transactions_that_name_no_answer_go_to_turns_by_their_times(librechat: LibreChatWorld) -> None:
    """Of the same owner, in the window of the turn; those that name an answer are its own."""

    def at(seconds: float) -> dict[str, Any]:
        moment = NOW + timedelta(seconds=seconds)
        return {"createdAt": moment, "updatedAt": moment}

    keys = await librechat.insert(
        "messages",
        question("q1", None, **at(0)), answer("a1", "q1", **at(10)),
        question("q2", "a1", **at(60)), answer("a2", "q2", **at(70)),
    )  # fmt: skip
    await librechat.insert(
        "transactions",
        transaction(rawAmount=-1, createdAt=NOW + timedelta(seconds=5)),
        transaction(rawAmount=-2, createdAt=NOW + timedelta(seconds=65)),
        transaction(rawAmount=-3, createdAt=NOW + timedelta(seconds=65), messageId="a1"),
        transaction(BOB, rawAmount=-4, createdAt=NOW + timedelta(seconds=65)),
    )

    records = await read(librechat, [keys[1], keys[3]])

    tokens = {
        message_id: sorted(entry.tokens for entry in record.transactions)
        for message_id, record in records.items()
        if record is not None
    }
    assert tokens == {"a1": [1, 3], "a2": [2]}


async def test_spending_of_no_chat_is_read_by_call(librechat: LibreChatWorld) -> None:
    """All transactions of a call, whichever is asked for; a conversation or a message makes it a chat's."""
    await librechat.insert("messages", question("q1", None))
    calls = [
        transaction(conversationId="api-1", messageId="r1", rawAmount=-1),
        transaction(conversationId="api-1", messageId="r1", rawAmount=-2),
        transaction(BOB, conversationId="api-2", rawAmount=-3),
        transaction(conversationId="c1", rawAmount=-4),
    ]
    keys = await librechat.insert("transactions", *calls)

    found = await librechat.reader.read_spending([*keys[1:], to_key(ObjectId())])

    told = {
        key: (spent.reference, spent.user_id, [entry.tokens for entry in spent.transactions])
        for key, spent in found.items()
        if spent is not None
    }
    assert set(found) == set(keys[1:])
    assert told == {keys[1]: ("r1", ALICE, [1, 2]), keys[2]: ("api-2", BOB, [3])}
    assert await librechat.reader.read_spending([]) == {}


async def test_spending_has_its_tenant_and_the_user_it_belongs_to(librechat: LibreChatWorld) -> None:
    await librechat.insert("users", {"_id": ObjectId(BOB), "email": "bob@example.com", "role": "ADMIN"})
    keys = await librechat.insert(
        "transactions",
        transaction(BOB, conversationId="api-1", tenantId="acme"),
        transaction(conversationId="api-2"),
    )

    found = await librechat.reader.read_spending(keys)

    told = {
        spent.reference: (spent.tenant_id, spent.user.role if spent.user is not None else None)
        for spent in found.values()
        if spent is not None
    }
    assert told == {"api-1": ("acme", "ADMIN"), "api-2": (None, None)}


async def test_what_was_spent_on_a_deleted_answer_is_read_by_its_ids(librechat: LibreChatWorld) -> None:
    """The row is gone; its transactions name it."""
    gone, unknown = to_key(ObjectId()), to_key(ObjectId())
    await librechat.insert(
        "transactions",
        transaction(messageId="a1", rawAmount=-1),
        transaction(messageId="a1", rawAmount=-2),
        transaction(messageId="a2", rawAmount=-3),
        transaction(rawAmount=-4),
    )

    found = await librechat.reader.read_deleted(
        {gone: DeletedRow("a1", "c1"), unknown: DeletedRow("a9", "c1")}
    )

    assert set(found) == {gone}
    spent = found[gone]
    assert (spent.key, spent.reference, spent.user_id, spent.is_deleted_turn) == (gone, "a1", ALICE, True)
    assert [entry.tokens for entry in spent.transactions] == [1, 2]
    assert await librechat.reader.read_deleted({}) == {}


async def test_a_deleted_answer_may_be_temporary_if_its_conversation_is(librechat: LibreChatWorld) -> None:
    """Whatever its insertion said. The conversation of another user of the same id says nothing of it."""
    gone = {to_key(ObjectId()): DeletedRow(f"a{number}", f"c{number}", False) for number in range(5)}
    await librechat.insert(
        "transactions",
        *(transaction(messageId=f"a{number}", conversationId=f"c{number}") for number in range(5)),
    )
    chats: tuple[dict[str, Any], ...] = (
        {"user": ALICE, "isTemporary": True}, {"user": ALICE, "expiredAt": NOW},
        {"user": ALICE, "isTemporary": False, "expiredAt": NOW}, {"user": BOB, "isTemporary": True},
    )  # fmt: skip
    await librechat.insert(
        "conversations",
        *({"_id": ObjectId(), "conversationId": f"c{number}", **chat} for number, chat in enumerate(chats)),
    )

    found = await librechat.reader.read_deleted(gone)

    assert [found[key].may_be_temporary for key in gone] == [True, True, False, False, False]


async def test_a_row_that_is_read_again_is_temporary_if_its_conversation_is(
    librechat: LibreChatWorld,
) -> None:
    """Its own row may say nothing of it, or have an expiry date for another reason."""
    rows: tuple[tuple[dict[str, Any], dict[str, Any] | None, bool], ...] = (
        ({"isTemporary": False}, {"isTemporary": True}, True),
        ({"isTemporary": False}, {"isTemporary": False}, False),
        ({"isTemporary": False}, {"expiredAt": NOW}, False),
        ({}, {"expiredAt": NOW}, True),
        ({"expiredAt": NOW}, {"isTemporary": False}, False),
        ({"expiredAt": NOW}, None, True),
        ({}, None, False),
    )  # fmt: skip
    keys = await librechat.insert(
        "messages",
        *(
            answer(f"a{number}", "q", conversationId=f"c{number}", **own)
            for number, (own, _, _) in enumerate(rows)
        ),
    )
    await librechat.insert(
        "conversations",
        *(
            {"_id": ObjectId(), "conversationId": f"c{number}", "user": ALICE, **chat}
            for number, (_, chat, _) in enumerate(rows)
            if chat is not None
        ),
    )

    found = await librechat.reader.read_messages(keys)

    assert [found[key].temporary for key in keys] == [temporary for _, _, temporary in rows]


@pytest.mark.parametrize(
    ("entries", "billed_with"),
    [
        ([{"messageId": "p1", "context": "subagent"}], "p1"),
        ([{"messageId": "p1", "context": "subagent"}, {"messageId": "task:assistant"}], None),
        ([{"messageId": "p1", "context": "message"}], None),
        ([{"messageId": "p0", "context": "subagent"}], None),
        ([{"messageId": "p1", "context": "subagent", "user": BOB}], None),
        ([], None),
    ],
    ids=["at its parent", "by itself", "its parent alone", "another task", "another user", "nowhere"],
)
async def test_where_a_detached_sub_agent_was_billed_is_read_from_its_parents_ledger(
    librechat: LibreChatWorld, entries: list[dict[str, Any]], billed_with: str | None
) -> None:
    """The conversation names the turn that started its first task, the row the one that started its own."""
    usage = {"input": 11_000, "output": 1_200}
    task = {"parentRunId": "p1", "status": "completed"}
    _, said = await librechat.insert(
        "messages",
        question("task:user", None),
        answer("task:assistant", "task:user", subagentTask=task, metadata={"usage": usage}),
    )
    thread = {"parentConversationId": "c0", "parentMessageId": "p0", "subagentType": "self"}
    await librechat.insert(
        "conversations",
        {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "subagentThread": thread},
    )
    for entry in entries:
        place = "c1" if entry["messageId"] == "task:assistant" else "c0"
        await librechat.insert("transactions", transaction(**{"conversationId": place, **entry}))

    record = (await read(librechat, [said]))["task:assistant"]

    assert record is not None
    assert record.billed_with == billed_with
    assert len(record.transactions) == sum(entry["messageId"] == "task:assistant" for entry in entries)


async def test_a_turn_has_the_user_it_belongs_to(librechat: LibreChatWorld) -> None:
    """Nobody where the account is gone."""
    await librechat.insert("users", {"_id": ObjectId(ALICE), "username": "alice", "role": "ADMIN"})
    keys = await librechat.insert("messages", answer("a1", "q"), answer("a2", "q", BOB))

    records = await read(librechat, keys)

    users = {
        message_id: None if record is None or record.user is None else record.user.username
        for message_id, record in records.items()
    }
    assert users == {"a1": "alice", "a2": None}


async def test_a_row_that_is_no_message_is_left_out(librechat: LibreChatWorld) -> None:
    """It has no id, or belongs to no conversation; the others of the same look are read."""
    keys = await librechat.insert(
        "messages",
        {"_id": ObjectId(), "messageId": 7, "conversationId": "c1"},
        {"_id": ObjectId(), "messageId": "a1"},
        answer("a2", "q1"),
    )

    assert [row.message_id for row in await librechat.reader.locate(keys)] == ["a2"]
    assert await librechat.reader.find_existing([*keys, to_key(ObjectId())]) == frozenset(keys)
    assert set(await librechat.reader.read_messages(keys)) == {keys[2]}


async def test_what_names_no_message_is_read_by_its_user_and_conversation(librechat: LibreChatWorld) -> None:
    keys = await librechat.insert(
        "transactions",
        transaction(tokenType="prompt", rawAmount=-9),
        transaction(),
        transaction(BOB),
        transaction(messageId="m1"),
        transaction(conversationId="c2"),
    )
    now = int(keys[0][:8], 16)

    found = await librechat.reader.read_unnamed("c1", ALICE, now)
    assert [entry.key for entry in found] == keys[:2]
    assert not await librechat.reader.read_unnamed("c1", ALICE, now + 60)


async def test_the_ledgers_of_turns_are_read_by_the_messages_that_they_name(
    librechat: LibreChatWorld,
) -> None:
    """In the order written; rows that name no message, or another, are nobody's."""
    rows = [
        transaction(messageId="m1", tokenType="prompt", rawAmount=-9),
        transaction(messageId="m1"),
        transaction(messageId="m2"),
        transaction(),
    ]
    keys = await librechat.insert("transactions", *rows, transaction(messageId="m1", context="title"))
    turn = replace(make_sent("m1"), session_id="c1")

    ledgers = await librechat.reader.read_ledgers([turn, replace(make_sent("m3"), session_id="c1")])
    assert {name: [entry.key for entry in ledger] for name, ledger in ledgers.items()} == {
        "m1": [*keys[:2], keys[4]]
    }
    for counted, news in (((), keys[:2]), ((keys[0],), [keys[1]]), (keys[:2], [])):
        known = replace(turn, transactions=tuple(counted))
        ledgers = await librechat.reader.read_ledgers([known], only_news=True)
        assert [entry.key for entry in ledgers.get("m1", ())] == news
    found = await librechat.reader.read_transactions([keys[2], DocumentKey("0" * 24)])
    assert {key: entry.message_id for key, entry in found.items()} == {keys[2]: "m2"}
