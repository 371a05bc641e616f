"""The backlog fed by a change stream: what it opens, what answers what, and where a restart would begin."""

import asyncio
from datetime import UTC, datetime, timedelta

from bson import ObjectId

from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Interest, Stream
from tailer.core.stream.positions import StreamPosition
from tailer.events import HintsRead, ReadingPaused, StreamGapFound
from tailer.flow.records import Checkpoint
from tests.rows import answer, question
from tests.unit.flow.scene import Scene, until, working


def insert(scene: Scene, message_id: str, parent: str | None = None, *, by_user: bool = False) -> EntryKey:
    row = question(message_id, parent) if by_user else answer(message_id, parent or "q")
    (key,) = scene.librechat.insert("messages", row)
    return EntryKey(Interest.QUESTION if by_user else Interest.RESPONSE, key)


async def until_told(scene: Scene, *, inserts: int = 0, updates: int = 0) -> None:
    """Return once so many changes were read."""

    def read(operation: str) -> int:
        return sum(getattr(event, operation) for event in scene.events.of(HintsRead))

    await until(lambda: read("inserts") >= inserts and read("updates") >= updates)


async def test_a_response_opens_an_entry_and_answers_its_question(scene: Scene) -> None:
    """The question waits for as long as nothing answers it, and is not due before its time."""
    async with scene.reading():
        insert(scene, "q1", by_user=True)
        waiting = insert(scene, "q2", by_user=True)
        said = insert(scene, "a1", "q1")
        await until_told(scene, inserts=3)

    (due,) = await scene.backlog.take_due(limit=10, gather_seconds=0)
    assert due.key == said
    assert len(scene.backlog) == 2
    scene.backlog.close(said)
    assert scene.backlog.turns.count(Interest.QUESTION) == 1
    assert scene.backlog.turns.next_due() is not None
    scene.backlog.close(waiting)
    assert len(scene.backlog) == 0


async def test_a_row_that_changes_while_it_is_worked_on_becomes_due_again(scene: Scene) -> None:
    """Closing it does not close it."""
    async with scene.reading():
        key = insert(scene, "a1", "q1")
        (taken,) = await scene.backlog.take_due(limit=10, gather_seconds=0)
        scene.librechat.update("messages", key.document_key, {"text": "more"})
        await until_told(scene, updates=1)
    scene.backlog.close(key)

    assert taken.key == key
    assert len(scene.backlog) == 1
    (again,) = await scene.backlog.take_due(limit=10, gather_seconds=0)
    assert again.key == key
    scene.backlog.close(key)
    assert len(scene.backlog) == 0


async def test_rounds_are_at_least_so_far_apart_and_hold_what_became_due_meanwhile(scene: Scene) -> None:
    """Rows that come one by one are read back together."""
    rounds: list[int] = []

    async def take() -> None:
        while True:
            entries = await scene.backlog.take_due(limit=100, gather_seconds=10)
            rounds.append(len(entries))
            for entry in entries:
                scene.backlog.close(entry.key)

    async with scene.reading(), working(take()):
        for number in range(60):
            insert(scene, f"a{number}")
            await asyncio.sleep(1)
        await until(lambda: sum(rounds) == 60)

    assert len(rounds) <= 8


async def test_reading_pauses_while_too_much_is_open() -> None:
    """The oplog is the buffer; a paused stream is not a silent one, and nothing is lost when it goes on."""
    scene = Scene(open_limit=5)
    async with scene.reading():
        for number in range(5):
            insert(scene, f"a{number}")
        await until(lambda: bool(scene.events.of(ReadingPaused)))
        assert scene.backlog.answers.silent_seconds(Stream.MESSAGES) is None
        for number in range(5, 9):
            insert(scene, f"a{number}")
        for entry in await scene.backlog.take_due(limit=10, gather_seconds=0):
            scene.backlog.close(entry.key)
        await until_told(scene, inserts=9)
        assert scene.backlog.answers.silent_seconds(Stream.MESSAGES) is not None

    assert len(scene.backlog) == 4


async def test_titles_are_read_no_sooner_than_the_turns_before_them(scene: Scene) -> None:
    """In a backlog the smaller stream would run ahead, and each title would be sent before its turn, on its own."""
    backlog = scene.backlog
    before = Checkpoint(scene.librechat.position())
    for stream in (Stream.MESSAGES, Stream.CONVERSATIONS):
        backlog.start(stream, before)
    turn = insert(scene, "a1", "q1")
    (key,) = scene.librechat.insert("conversations", {"_id": ObjectId(), "conversationId": "c"})
    scene.librechat.update("conversations", key, {"title": "A chat"})
    async with scene.reading(Stream.CONVERSATIONS):
        await until(lambda: backlog.answers.is_paused(Stream.CONVERSATIONS))
        await asyncio.sleep(600)
        assert len(backlog) == 0
        assert backlog.answers.silent_seconds(Stream.CONVERSATIONS) is None
        async with scene.reading():
            await until_told(scene, updates=1)
        assert not backlog.answers.is_paused(Stream.CONVERSATIONS)

    await asyncio.sleep(10)
    due = await backlog.take_due(limit=10, gather_seconds=0)
    assert [entry.key.interest for entry in due] == [Interest.RESPONSE, Interest.TITLE]
    assert due[0].key == turn


async def test_lost_history_becomes_a_gap_and_reading_goes_on(scene: Scene) -> None:
    """From now; the gap is in the state with its beginning and its end."""
    stored = scene.librechat.position()
    scene.backlog.start(Stream.MESSAGES, Checkpoint(stored))
    await asyncio.sleep(3600)
    insert(scene, "lost")
    scene.librechat.forget_history()
    async with scene.reading():
        await until(lambda: bool(scene.events.of(StreamGapFound)))
        insert(scene, "a1", "q1")
        await until_told(scene, inserts=1)

    (told,) = scene.events.of(StreamGapFound)
    (gap,) = (await scene.state.unfilled_gaps()).values()
    assert (gap.from_seconds, gap.to_seconds) == (told.from_seconds, told.to_seconds)
    assert gap.from_seconds == stored.cluster_seconds
    assert gap.to_seconds >= stored.cluster_seconds + 3600
    assert len(scene.backlog) == 1
    assert scene.backlog.checkpoint(Stream.MESSAGES).position.cluster_seconds >= told.to_seconds


async def test_a_position_of_a_server_whose_time_was_later_becomes_a_gap_from_when_it_was_stored(
    scene: Scene,
) -> None:
    """A stream would open there, and bring nothing until the server's time arrives."""
    now = scene.librechat.seconds
    ahead = StreamPosition(f"82{now + 3 * 3600:08X}00000001", now + 3 * 3600)
    scene.backlog.start(Stream.MESSAGES, Checkpoint(ahead, saved_seconds=now - 500))
    async with scene.reading():
        await until(lambda: bool(scene.events.of(StreamGapFound)))
        insert(scene, "a1", "q1")
        await until_told(scene, inserts=1)

    (gap,) = (await scene.state.unfilled_gaps()).values()
    assert (gap.from_seconds, gap.reason) == (now - 500, "position_ahead")
    assert now <= gap.to_seconds <= now + 60
    assert scene.backlog.checkpoint(Stream.MESSAGES).position.cluster_seconds <= now + 60


async def test_touches_are_stored_with_the_checkpoint(scene: Scene) -> None:
    """The moment a question was saved again is known after a restart, which would not see it."""
    async with scene.reading():
        key = insert(scene, "q1", by_user=True)
        scene.librechat.update("messages", key.document_key, {"updatedAt": datetime.now(UTC) + timedelta(1)})
        await until_told(scene, updates=1)
    await scene.checkpointing.save([Stream.MESSAGES])

    again = scene.restart()

    touches = scene.backlog.touches_of(key.document_key)
    assert touches
    assert again.backlog.touches_of(key.document_key) == touches
