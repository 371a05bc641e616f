"""Reading rows: every field where the contract has it, older shapes, and no broken row that stops the reader."""

import contextlib
from dataclasses import replace

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.identity import NO_PARENT, DocumentKey
from tailer.core.librechat.conversations import read_agent, read_conversation
from tailer.core.librechat.messages import MalformedDocument, read_earlier, read_message
from tailer.core.librechat.transactions import read_transaction
from tests.unit.documents import (
    ANY_TEXT,
    CONVERSATION,
    MISSING,
    QUESTION,
    RESPONSE,
    USER,
    VALUES,
    Document,
    agent_row,
    broken,
    completion_row,
    conversation,
    conversation_row,
    message,
    moment,
    old_response_row,
    prompt_row,
    response_row,
    stamp,
    structured_prompt_row,
    transactions,
    usage_metadata,
    user_row,
)

KEY = DocumentKey(USER)


@given(broken(response_row()))
def test_a_broken_message_is_read_or_refused_as_malformed(document: Document) -> None:
    """Nothing else is raised: the reader of many rows leaves out this one."""
    with contextlib.suppress(MalformedDocument):
        read_message(KEY, document)


@given(broken(response_row(), keep=("messageId", "conversationId")))
def test_a_message_with_its_two_ids_is_always_read(document: Document) -> None:
    """What is sound in it is kept."""
    found = read_message(KEY, document)

    assert (found.message_id, found.conversation_id) == (RESPONSE, CONVERSATION)


@pytest.mark.parametrize("field", ["messageId", "conversationId"])
@pytest.mark.parametrize("value", [None, "", 7, ObjectId(USER)])
def test_a_message_without_an_id_is_malformed_and_is_named_without_content(field: str, value: object) -> None:
    document = {**response_row(text="a secret"), field: value}

    with pytest.raises(
        MalformedDocument, match=f"messages document {USER}: field {field} is missing"
    ) as caught:
        read_message(KEY, document)
    assert (caught.value.collection, caught.value.key, caught.value.field) == ("messages", USER, field)
    assert "secret" not in str(caught.value)


@given(st.dictionaries(st.sampled_from([*prompt_row(1)]), VALUES), st.sampled_from(["prompt", "completion"]))
def test_no_broken_transaction_stops_the_reader(fields: Document, token_type: str) -> None:
    """Amounts come out as numbers that are not negative, whatever went in."""
    entry = read_transaction({**prompt_row(10), "tokenType": token_type, **fields})

    assert entry is None or (entry.tokens >= 0 and (entry.cost is None or entry.cost >= 0))


@given(st.dictionaries(st.sampled_from([*conversation_row(), "tags", "stop", "topP"]), VALUES), VALUES)
def test_no_broken_conversation_or_agent_stops_the_reader(fields: Document, value: object) -> None:
    read_conversation(KEY, {**conversation_row(), **fields})
    read_agent({**agent_row(), "model_parameters": value})
    read_agent({**agent_row(), **fields})


def test_a_question_is_read_with_all_its_fields() -> None:
    found = message(user_row(3.25, tenantId="acme"))

    assert found.created_by_user
    assert found.parent_message_id == NO_PARENT
    assert found.user_id == USER
    assert found.tenant_id == "acme"
    assert found.text == "What is the capital of France?"
    assert found.token_count == 12
    assert found.model is None
    assert found.created_milliseconds == found.updated_milliseconds == stamp(3.25)
    assert found.inserted_seconds == stamp(3) // 1000


def test_only_the_flag_tells_who_wrote_a_row() -> None:
    """`sender` is a label: imports write 'user', models have any name."""
    assert not message(response_row(sender="User")).created_by_user
    assert message(user_row(sender="GPT-4o")).created_by_user
    assert not message(response_row(isCreatedByUser="true")).created_by_user


def test_a_missing_text_is_told_apart_from_an_empty_one() -> None:
    """A closed tab leaves no `text`, a stopped run an empty one."""
    assert message(response_row(text=MISSING)).text is None
    assert message(response_row(text="")).text == ""


def test_reported_usage_is_read_with_its_cache_and_cost() -> None:
    metadata = usage_metadata(900, 210, write=3, read=512, cost=0.004)
    usage = message(response_row(metadata=metadata)).usage

    assert usage is not None
    assert (usage.input, usage.output, usage.cache_write, usage.cache_read) == (900, 210, 3, 512)
    assert usage.cost == 0.004


@pytest.mark.parametrize(
    "usage", [{}, {"input": 5}, {"input": -1, "output": 2}, {"input": "5", "output": 2}, [5, 2], None]
)
def test_a_report_without_input_or_output_is_none(usage: object) -> None:
    """Half a report is no report: the other sources are asked."""
    assert message(response_row(metadata={"usage": usage})).usage is None


@pytest.mark.parametrize("cost", [-1, float("nan"), "0.1", None])
def test_a_broken_cost_does_not_spoil_the_reported_tokens(cost: object) -> None:
    usage = message(response_row(metadata=usage_metadata(1, 2, cost=cost))).usage

    assert usage is not None
    assert usage.cost is None


@pytest.mark.parametrize(
    ("fields", "temporary"),
    [
        ({"isTemporary": True, "expiredAt": moment(720 * 3600)}, True),
        ({"isTemporary": False, "expiredAt": moment(720 * 3600)}, False),
        ({"isTemporary": False, "expiredAt": None}, False),
        ({"isTemporary": MISSING, "expiredAt": moment(720 * 3600)}, True),
        ({"isTemporary": MISSING, "expiredAt": None}, False),
        ({"isTemporary": MISSING, "expiredAt": MISSING}, False),
    ],
)
def test_a_temporary_chat_is_known_by_its_flag_or_before_the_flag_by_its_expiry(
    fields: Document, *, temporary: bool
) -> None:
    """0.8.6 brought the flag; with `retentionMode: all` every chat expires."""
    assert message(response_row(**fields)).temporary is temporary


def test_the_sampling_decision_is_a_sign_of_the_release() -> None:
    assert message(response_row(langfuseSampled=False)).sampling_decided
    assert not message(old_response_row()).sampling_decided


@given(ANY_TEXT)
def test_only_an_object_id_tells_when_a_row_was_inserted(key: str) -> None:
    """Other `_id`s are legal and tell nothing."""
    found = read_message(DocumentKey(f"~{key}"), response_row())

    assert found.inserted_seconds is None


def test_amounts_of_a_transaction_are_positive_and_its_cost_is_in_dollars() -> None:
    """Stored: negative tokens, and negative millionths of a dollar."""
    (prompt,) = transactions(structured_prompt_row(900, write=3, read=512, tokenValue=-2890.5, rate=2.05))

    assert (prompt.tokens, prompt.input_tokens, prompt.write_tokens, prompt.read_tokens) == (
        1415,
        900,
        3,
        512,
    )
    assert prompt.cost == pytest.approx(0.0028905)
    assert prompt.user_id == USER


def test_a_transaction_is_known_by_its_id() -> None:
    """By it a row that was written after its turn was sent is told from those that were counted."""
    stored = prompt_row(5)
    (entry,) = transactions(stored)

    assert entry.key == str(stored["_id"])


def test_a_stored_negative_zero_is_zero() -> None:
    (prompt,) = transactions(structured_prompt_row(900, write=0, read=512, writeTokens=-0.0))

    assert prompt.write_tokens == 0


def test_a_plain_transaction_has_no_cache_columns() -> None:
    (prompt,) = transactions(prompt_row(108))

    assert (prompt.tokens, prompt.input_tokens, prompt.write_tokens, prompt.read_tokens) == (
        108,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    "fields",
    [{"tokenType": "credits", "context": "autoRefill"}, {"rawAmount": MISSING}, {"rawAmount": float("nan")},
     {"tokenType": MISSING}],
)  # fmt: skip
def test_a_row_that_states_no_tokens_is_no_transaction(fields: Document) -> None:
    """A refill of the balance is nobody's usage."""
    assert read_transaction(prompt_row(10, **fields)) is None


def test_a_transaction_of_a_release_before_0_8_3_names_no_message() -> None:
    (entry,) = transactions(completion_row(5, messageId=MISSING, context=MISSING))

    assert entry.message_id is None
    assert entry.context == "message"


def test_a_conversation_keeps_the_settings_that_reach_the_provider() -> None:
    found = conversation(
        conversation_row(
            promptPrefix="Be brief.", stop=["END"], greeting="Hi", top_p=None, tags=["a", 7, "b"]
        )
    )

    assert found.settings == {"temperature": 0.5, "stop": ["END"]}
    assert found.prompt_prefix == "Be brief."
    assert found.tags == ("a", "b")


def test_the_instructions_of_an_assistant_are_its_system_prompt() -> None:
    assert conversation(conversation_row(instructions="Help.")).prompt_prefix == "Help."


def test_a_conversation_or_agent_without_id_is_none() -> None:
    assert read_conversation(KEY, conversation_row(conversationId=MISSING)) is None
    assert read_agent(agent_row(id=None)) is None


def test_a_response_names_its_question() -> None:
    assert message(response_row()).parent_message_id == QUESTION
    assert message(response_row(parentMessageId=None)).parent_message_id is None


@given(
    broken(response_row(), keep=("messageId", "conversationId"))
    | broken(user_row(), keep=("messageId", "conversationId"))
)
def test_an_earlier_row_is_replayed_like_a_whole_one(document: Document) -> None:
    """A history reads less of a row than its own turn does, and shows the same of it."""
    whole, earlier = read_message(KEY, document), read_earlier(KEY, document)

    assert earlier.replay == whole.replay
    assert (earlier.message_id, earlier.created_by_user) == (whole.message_id, whole.created_by_user)


@pytest.mark.parametrize("field", ["messageId", "conversationId"])
def test_an_earlier_row_without_an_id_is_malformed_too(field: str) -> None:
    with pytest.raises(MalformedDocument, match=field):
        read_earlier(KEY, {**response_row(), field: 7})


def test_a_row_is_made_into_chat_messages_once_for_all_turns_that_show_it() -> None:
    found = message(response_row())

    assert found.replay is found.replay
    assert replace(found, text="other", parts=()).replay.chat == ({"role": "assistant", "content": "other"},)
