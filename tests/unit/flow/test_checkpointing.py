"""How often a position is stored: soon where something happened, seldom where nothing does."""

import asyncio
from datetime import timedelta

import pytest

from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Interest, Stream
from tailer.events import CheckpointSaved
from tests.memory.clock import monotonic
from tests.rows import answer, question
from tests.unit.flow.scene import Scene, until, working

EVERY = timedelta(seconds=1)


async def test_a_stream_that_moves_is_stored_at_each_interval(scene: Scene) -> None:
    """Where no batch carries its position."""
    async with scene.reading(), working(scene.checkpointing.run([Stream.MESSAGES], EVERY)):
        for number in range(30):
            (key,) = scene.librechat.insert("messages", question(f"q{number}", None))
            await asyncio.sleep(1)
            scene.backlog.close(EntryKey(Interest.QUESTION, key))

    assert 20 <= len(scene.events.of(CheckpointSaved)) <= 31


async def test_a_position_that_does_not_change_is_left_alone_for_a_minute(scene: Scene) -> None:
    """The first question is not answered and holds it, whatever is asked after it."""
    async with scene.reading(), working(scene.checkpointing.run([Stream.MESSAGES], EVERY)):
        scene.librechat.insert("messages", question("q", None))
        await asyncio.sleep(5)
        stored = scene.database.writes.count("save_checkpoint")
        for number in range(50):
            scene.librechat.insert("messages", question(f"q{number}", None))
            await asyncio.sleep(1)
        assert scene.database.writes.count("save_checkpoint") == stored
        await asyncio.sleep(15)

    assert scene.database.writes.count("save_checkpoint") == stored + 1


async def test_while_batches_flow_no_position_is_stored_by_itself(scene: Scene) -> None:
    """Each batch carries them; four seconds after the last one the position is stored once more."""
    delivery = scene.make_delivery()
    every = timedelta(seconds=4)
    async with scene.reading(), working(delivery.work(), scene.checkpointing.run([Stream.MESSAGES], every)):
        await asyncio.sleep(0.01)
        stored = scene.database.writes.count("save_checkpoint")
        for number in range(30):
            await delivery.hand_over(scene.open_turns(f"m{number}"))
            await asyncio.sleep(1)
        assert scene.database.writes.count("save_checkpoint") == stored
        assert scene.checkpointing.saved(Stream.MESSAGES) == scene.database.checkpoints[Stream.MESSAGES]
        await asyncio.sleep(6)

    assert scene.database.writes.count("save_checkpoint") == stored + 1


async def test_an_idle_stream_is_stored_ever_more_seldom_and_every_ten_seconds_at_least(scene: Scene) -> None:
    """Its position moves with the server's clock; each save is a write that it sees itself."""
    async with scene.reading(), working(scene.checkpointing.run([Stream.MESSAGES], EVERY)):
        await asyncio.sleep(60)
        early = len(scene.events.of(CheckpointSaved))
        await asyncio.sleep(1000)
        later = len(scene.events.of(CheckpointSaved)) - early

    assert early < 15
    assert 85 <= later <= 100
    stored = scene.database.checkpoints[Stream.MESSAGES].position
    assert scene.librechat.seconds - stored.cluster_seconds <= 12


async def test_a_stream_that_is_not_open_yet_is_not_stored(scene: Scene) -> None:
    """Who waits for the first position of every stream waits for it, and no longer."""
    streams = [Stream.MESSAGES, Stream.CONVERSATIONS]
    async with (
        working(scene.checkpointing.run(streams, EVERY), scene.checkpointing.wait_for_first(streams)) as (
            _,
            waiting,
        ),
        scene.reading(),
    ):
        await asyncio.sleep(60)
        assert set(scene.database.checkpoints) == {Stream.MESSAGES}
        assert not waiting.done()
        async with scene.reading(Stream.CONVERSATIONS):
            began = monotonic()
            await until(waiting.done)
            assert monotonic() - began <= 2 * EVERY.total_seconds()


@pytest.mark.parametrize("closed", [(3, 1), (1, 0), (2, 0, 1), (3, 2, 1, 0), ()])
async def test_the_checkpoint_waits_for_the_oldest_open_entry(scene: Scene, closed: tuple[int, ...]) -> None:
    """Closed in any order; a restart is told again of everything that is open, and of nothing before."""
    async with scene.reading():
        for number in range(4):
            scene.librechat.insert("messages", answer(f"a{number}", "q"))
            await asyncio.sleep(1)
        await asyncio.sleep(10)
        entries = await scene.backlog.take_due(limit=10, gather_seconds=0)
        for number in closed:
            scene.backlog.close(entries[number].key)
        await scene.checkpointing.save([Stream.MESSAGES])

    later = scene.restart()
    async with later.reading():
        await asyncio.sleep(60)
        again = await take(later)

    first_open = min(set(range(4)) - set(closed), default=4)
    assert again == [f"a{number}" for number in range(first_open, 4)]


async def take(scene: Scene) -> list[str | None]:
    """The message ids of what is due."""
    if not len(scene.backlog):
        return []
    return [entry.message_id for entry in await scene.backlog.take_due(limit=10, gather_seconds=0)]
