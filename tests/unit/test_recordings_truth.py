"""The truths of the recordings fit the recordings."""

import hashlib
from datetime import UTC, datetime

import pytest

from tailer.demo.stage.recording import Recording
from tests.recordings import CHAT_ROWS, NAMES, REPLAYED, Truth, load, recording_path, truth


def inserted_message_ids(recording: Recording) -> set[str]:
    return {
        event.full_document["messageId"]
        for event in recording.events
        if event.collection == "messages" and event.operation == "insert" and event.full_document
    }


def true_message_ids(what: Truth) -> set[str]:
    return {
        identifier
        for turn in what.turns
        for identifier in (turn.user_message_id, turn.response_message_id)
        if identifier is not None
    }


def test_every_recording_has_its_name_in_the_list() -> None:
    """No recording is forgotten by the tests that run over all of them."""
    directory = recording_path(NAMES[0]).parent

    assert sorted(path.stem for path in directory.glob("*.jsonl")) == sorted((*NAMES, *CHAT_ROWS, *REPLAYED))
    assert sorted(path.name.removesuffix(".truth.json") for path in directory.glob("*.truth.json")) == sorted(
        (*NAMES, *REPLAYED)
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_messages_of_the_truth_are_in_the_recording(name: str) -> None:
    """Each turn's question and response were inserted, by the user whose id it names."""
    assert true_message_ids(truth(name)) <= inserted_message_ids(load(name))
    users = {event.document_key["_id"] for event in load(name).events if event.collection == "users"}
    assert {turn.user_id for turn in truth(name).turns} <= {str(user) for user in users}


@pytest.mark.parametrize("name", NAMES)
def test_the_native_trace_id_is_the_hash_of_the_response_id(name: str) -> None:
    """LibreChat's own tracing seeds the trace id with the response's messageId."""
    for turn in truth(name).turns:
        if turn.response_message_id is not None:
            expected = hashlib.sha256(turn.response_message_id.encode()).hexdigest()[:32]
            assert turn.native_trace_id == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_usage_of_a_turn_is_the_sum_of_its_requests(name: str) -> None:
    """The sums were made from the provider's own numbers."""
    for turn in truth(name).turns:
        counted = [request.usage for request in turn.requests if request.usage is not None]
        assert turn.usage.calls == len(turn.requests)
        assert turn.usage.calls_with_usage == len(counted)
        outputs = [
            usage["completion_tokens"] if "completion_tokens" in usage else usage["output_tokens"]
            for usage in counted
        ]
        assert turn.usage.output_tokens == sum(outputs)


def test_a_usage_that_the_provider_kept_to_itself_is_not_known() -> None:
    """In 16-reasoning the first answer was counted, but LibreChat was not told."""
    turns = truth("16-reasoning").turns

    assert [turn.usage_is_known for turn in turns] == [False, True, True]
    assert turns[0].usage.output_tokens == 29


def test_a_truth_follows_its_recording() -> None:
    """After the same shift and rename the ids still meet."""
    to = datetime(2030, 1, 1, tzinfo=UTC)
    recording = load("09-agent-tools").shift(to).rename("salt")
    by = recording.started_at - load("09-agent-tools").started_at
    moved = truth("09-agent-tools").shift(by=by).rename("salt")

    assert true_message_ids(moved) <= inserted_message_ids(recording)
    documents = [event.full_document for event in recording.events if event.full_document]
    assert {turn.agent_id for turn in moved.turns} - {None} <= {document.get("id") for document in documents}
    assert {turn.user_id for turn in moved.turns} <= {str(document["_id"]) for document in documents}
    assert {turn.conversation_id for turn in moved.turns} <= {
        document.get("conversationId") for document in documents
    }
