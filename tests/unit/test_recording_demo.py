"""The recordings that `tailer demo` plays: small, real, and showing each kind of turn once."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from importlib import resources

import pytest

from tailer.demo.stage.recording import Document, RecordedEvent, Recording, demo_recordings
from tests.recordings import load

COLLECTIONS = {"messages", "conversations", "transactions", "agents", "files", "users"}


def last_documents(recording: Recording, collection: str) -> list[Document]:
    """The documents of a collection as they are at the end of a recording without deletes."""
    last = {
        event.document_key["_id"]: event.full_document
        for event in recording.events
        if event.collection == collection
    }
    return [document for document in last.values() if document is not None]


def messages() -> Iterator[Document]:
    for recording in demo_recordings():
        yield from last_documents(recording, "messages")


def parts(kind: str) -> list[Document]:
    return [
        part for message in messages() for part in message.get("content") or () if part.get("type") == kind
    ]


def most_children(*, by_user: bool) -> int:
    """The greatest number of user messages, or of responses, that share a parent in a conversation."""
    parents = Counter(
        (message["conversationId"], message["parentMessageId"])
        for message in messages()
        if message["isCreatedByUser"] is by_user
    )
    return max(parents.values())


def test_the_demo_lasts_no_longer_than_forty_seconds() -> None:
    """They play side by side, so the longest decides."""
    assert max(recording.duration for recording in demo_recordings()) < timedelta(seconds=40)


def test_the_demo_recordings_are_small() -> None:
    """They are part of the package."""
    directory = resources.files("tailer.demo").joinpath("recordings")

    assert sum(len(file.read_bytes()) for file in directory.iterdir()) < 400_000


def test_every_demo_event_is_an_event_of_a_recording() -> None:
    """Cut, never made up: the same documents and updates; of a user only what a trace can show."""

    def content(event: RecordedEvent) -> tuple[object, ...]:
        return (event.collection, event.operation, event.document_key, event.full_document, event.update)

    for recording in demo_recordings():
        originals = [content(event) for event in load(recording.name).events]
        for event in recording.events:
            assert event.collection in COLLECTIONS
            if event.collection == "users":
                assert event.full_document is not None
                assert list(event.full_document) == ["_id", "name", "username", "email", "role"]
            else:
                assert content(event) in originals


@pytest.mark.parametrize("kind", ["text", "tool_call", "think", "error"])
def test_the_demo_shows_each_kind_of_content(kind: str) -> None:
    """Text, tools, reasoning and a provider's error."""
    assert parts(kind)


def test_the_demo_shows_a_regenerated_response() -> None:
    """Several responses to one user message."""
    assert most_children(by_user=False) >= 3


def test_the_demo_shows_an_edited_question() -> None:
    """Two user messages under the same response."""
    assert most_children(by_user=True) >= 2


def test_the_demo_shows_an_aborted_response() -> None:
    """LibreChat stores an abort as unfinished with text."""
    assert [message for message in messages() if message["unfinished"] and message["text"]]


def test_the_demo_shows_parallel_models() -> None:
    """Content parts of one response that carry a group."""
    assert [part for part in parts("text") if "groupId" in part]


def test_the_demo_shows_a_saved_agent_and_files() -> None:
    """Each stands in its own collection."""
    assert [agent for recording in demo_recordings() for agent in last_documents(recording, "agents")]
    assert [file for recording in demo_recordings() for file in last_documents(recording, "files")]
