"""A change stream: what each write becomes, and where reading goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from tailer.core.stream.hints import ChangeHint, Operation, Stream
from tailer.core.stream.positions import StreamPosition
from tailer.flow.ports import HistoryLost
from tests.conformance.worlds import LibreChatWorld
from tests.evidence import Reading
from tests.rows import answer, question

WRITTEN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@asynccontextmanager
async def reading(librechat: LibreChatWorld, stream: Stream = Stream.MESSAGES) -> AsyncIterator[Reading]:
    async with Reading(librechat.changes(stream)) as opened:
        yield opened


def described(hint: ChangeHint) -> tuple[object, ...]:
    """What does not depend on the clock."""
    return (
        hint.operation,
        hint.message_id,
        hint.parent_message_id,
        hint.conversation_id,
        hint.created_by_user,
    )


async def test_every_write_of_a_message_is_told_with_what_it_changed(librechat: LibreChatWorld) -> None:
    """In the order in which it was written; ids and flags for whole rows only."""
    async with reading(librechat) as stream:
        (asked, said) = await librechat.insert("messages", question("q1", None), answer("a1", "q1"))
        await librechat.update("messages", said, {"text": "more", "updatedAt": WRITTEN}, "model")
        await librechat.update("messages", asked, {"updatedAt": WRITTEN})
        await librechat.replace("messages", said, answer("a1", "q1", text="another"))
        await librechat.delete("messages", asked)
        hints = await stream.until_read(6)

    assert [hint.document_key for hint in hints] == [asked, said, said, asked, said, asked]
    assert [described(hint) for hint in hints] == [
        (Operation.INSERT, "q1", None, "c1", True),
        (Operation.INSERT, "a1", "q1", "c1", False),
        (Operation.UPDATE, None, None, None, None),
        (Operation.UPDATE, None, None, None, None),
        (Operation.REPLACE, "a1", "q1", "c1", False),
        (Operation.DELETE, None, None, None, None),
    ]
    assert [hint.changed for hint in hints[2:4]] == [
        frozenset({"text", "updatedAt", "model"}),
        frozenset({"updatedAt"}),
    ]
    written = int(WRITTEN.timestamp() * 1000)
    assert [hint.written_milliseconds for hint in hints[2:4]] == [written, written]
    assert all(hint.written_milliseconds is not None for hint in hints)
    places = [position.moment for position in stream.positions]
    assert places == sorted(set(places))


async def test_what_changes_nothing_is_not_told(librechat: LibreChatWorld) -> None:
    """A value that is there already."""
    async with reading(librechat) as stream:
        (key,) = await librechat.insert("messages", answer("a1", "q1", text="Noon"))
        await librechat.update("messages", key, {"text": "Noon"})
        await librechat.update("messages", key, {"text": "Midnight"})
        hints = await stream.until_read(2)
        await stream.beyond(batches=1)

    assert [hint.changed for hint in hints] == [frozenset(), frozenset({"text"})]


async def test_of_conversations_only_titles_and_settings_are_told(librechat: LibreChatWorld) -> None:
    """A turn writes its conversation several times."""
    async with reading(librechat, Stream.CONVERSATIONS) as stream:
        (key,) = await librechat.insert(
            "conversations", {"conversationId": "c1", "title": "New Chat", "temperature": 0.5}
        )
        await librechat.update("conversations", key, {"messages": ["a1"], "pinned": True})
        await librechat.update("conversations", key, {"title": "Clocks"})
        await librechat.update("conversations", key, {"model": "gpt-5", "stop": ["END"]})
        await librechat.update("conversations", key, {}, "temperature")
        await librechat.insert("messages", answer("a1", "q1"))
        hints = await stream.until_read(4)
        await stream.beyond(batches=1)

    assert [hint.operation for hint in hints] == [Operation.INSERT, *[Operation.UPDATE] * 3]
    assert [(hint.title, hint.settings) for hint in hints] == [
        (None, {"temperature": 0.5}),
        ("Clocks", {}),
        (None, {"model": "gpt-5", "stop": ["END"]}),
        (None, {}),
    ]
    assert hints[3].changed == {"temperature"}


async def test_what_no_document_holds_for_long_travels_with_a_new_row_and_is_never_printed(
    librechat: LibreChatWorld,
) -> None:
    """The text of a question, and whether an answer was first stored as one that was stopped."""
    async with reading(librechat) as stream:
        await librechat.insert(
            "messages",
            question("q1", None, text="a secret"),
            question("q2", None, text="é" * 3_000),
            answer("a1", "q1", text="a secret", unfinished=False),
            answer("a2", "q1", text="a secret", unfinished=True),
            answer("a3", "q1", text="", unfinished=True),
            answer("a4", "q1", text="", unfinished=True, langfuseSampled=True),
            {name: value for name, value in answer("a5", "q1", unfinished=True).items() if name != "text"},
        )
        hints = await stream.until_read(7)

    assert [hint.text for hint in hints] == ["a secret", None, *[None] * 5]
    assert [(hint.unfinished, hint.stopped) for hint in hints[2:]] == [
        (False, False), (True, True), (True, True), (True, False), (True, False),
    ]  # fmt: skip
    assert "secret" not in repr(hints)


async def test_whether_its_chat_may_be_temporary_travels_with_a_new_row(librechat: LibreChatWorld) -> None:
    """Stopped answers and the rows of assistants do not say it themselves."""
    rows: dict[str, tuple[dict[str, Any], bool]] = {
        "flagged": ({"isTemporary": True, "expiredAt": WRITTEN}, True),
        "dated": ({"expiredAt": WRITTEN}, True),
        "kept": ({"isTemporary": False, "expiredAt": WRITTEN}, False),
        "lasting": ({"isTemporary": False, "expiredAt": None}, False),
        "old": ({"expiredAt": None}, False),
        "stopped": ({"isTemporary": False, "unfinished": True, "text": "Par"}, True),
        "paused": ({"isTemporary": False, "unfinished": True, "text": "", "langfuseSampled": True}, False),
        "assistant": ({"isTemporary": False, "endpoint": "assistants"}, True),
        "azure": ({"endpoint": "azureAssistants"}, True),
        "agent": ({"isTemporary": False, "endpoint": "agents"}, False),
    }
    async with reading(librechat) as stream:
        await librechat.insert(
            "messages", *(answer(name, "q", **fields) for name, (fields, _) in rows.items())
        )
        hints = await stream.until_read(len(rows))

    assert {hint.message_id: hint.temporary for hint in hints} == {
        name: temporary for name, (_, temporary) in rows.items()
    }


async def test_reading_goes_on_after_each_position(librechat: LibreChatWorld) -> None:
    """What came up to it is not told again, what came after it is told once."""
    async with reading(librechat) as stream:
        await librechat.insert("messages", *(answer(f"a{number}", "q1") for number in range(3)))
        await stream.until_read(3)
        places = list(stream.positions)
    await librechat.insert("messages", answer("a3", "q1"))

    for number, place in enumerate(places):
        async with Reading(librechat.changes(Stream.MESSAGES), place) as again:
            await again.until_read(3 - number)
            await again.beyond(batches=1)
        assert again.ids() == [f"a{later}" for later in range(number + 1, 4)]


async def test_a_position_ahead_of_the_servers_time_means_that_history_is_lost(
    librechat: LibreChatWorld,
) -> None:
    """It is of another server. A small difference is none: the stream waits until the time is there."""
    async with reading(librechat) as stream:
        await librechat.insert("messages", answer("a1", "q1"))
        await stream.until_read(1)
    assert stream.last is not None
    token, now = stream.last.token, stream.last.cluster_seconds
    assert token is not None
    ahead = StreamPosition(f"82{now + 10_800:08X}{token[10:]}", now + 10_800)

    with pytest.raises(HistoryLost) as lost:
        async with Reading(librechat.changes(Stream.MESSAGES), ahead):
            pass
    async with Reading(librechat.changes(Stream.MESSAGES), StreamPosition(None, now + 5)):
        pass

    assert (lost.value.position, lost.value.reason) == (ahead, "position_ahead")


async def test_a_moment_begins_with_the_first_change_of_its_second(librechat: LibreChatWorld) -> None:
    """A position that was set by hand has no token."""
    async with reading(librechat) as stream:
        await librechat.insert("messages", answer("a1", "q1"))
        await stream.until_read(1)
        (place,) = stream.positions
    moment = StreamPosition(None, place.cluster_seconds)

    async with Reading(librechat.changes(Stream.MESSAGES), moment) as again:
        await again.until_read(1)

    assert again.ids() == ["a1"]


async def test_a_quiet_stream_answers_and_its_position_moves(librechat: LibreChatWorld) -> None:
    """Every second: it is alive, and what is stored of it does not grow old."""
    async with reading(librechat) as stream:
        first = stream.last
        await stream.beyond(batches=2)

    assert stream.hints == []
    assert first is not None
    assert stream.last is not None
    assert stream.last.moment >= first.moment
