"""Two shards beside each other: each thing is worked on by one of them, and nothing is left over."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.backfill import Job, JobReason
from tailer.core.identity import DocumentKey, spending_trace_id, title_trace_id, turn_trace_id
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.stream.shard import Shard
from tailer.core.trace.followup import feedback_score_id
from tailer.events import DeadLetterReplayed
from tailer.flow.lanes import followups, spending, titles
from tailer.settings.sharding import Ordinal
from tests.memory.database import ASKED
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.destinations_file import write_destinations
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene, until

SHARDS = 2
DESTINATIONS = ("default", "other")
NUMBERS = range(12)


@asynccontextmanager
async def sharing(scenes: Sequence[Scene], **changed: Any) -> AsyncIterator[list[Run]]:
    """A run of each shard."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running(own, total_shards=SHARDS, shard_ordinal=Ordinal(index), **changed)
            )
            for index, own in enumerate(scenes)
        ]


async def until_done(runs: Sequence[Run]) -> None:
    for run in runs:
        await run.until_done()


def outcomes(runs: Sequence[Run]) -> list[str]:
    """How entries were closed on all shards, but for those that one left to another."""
    return sorted(outcome for run in runs for outcome in run.outcomes() if outcome != "other_shard")


def store_chats(scene: Scene, *, first: int = 0) -> dict[int, DocumentKey]:
    """Chats of one turn each, of both shards; gives the `_id`s of the answers."""
    keys = {}
    for number in range(first, first + len(NUMBERS)):
        own = {"conversationId": f"c{number}"}
        scene.librechat.insert("messages", question(f"q{number}", None, **own))
        (keys[number],) = scene.librechat.insert("messages", answer(f"a{number}", f"q{number}", **own))
    owners = {Shard(0, SHARDS).owns(f"c{number}") for number in keys}
    assert owners == {True, False}
    return keys


def turns() -> list[str]:
    return sorted(turn_trace_id(f"a{number}") for number in NUMBERS)


async def test_each_turn_is_sent_by_the_shard_of_its_conversation(scene: Scene) -> None:
    """All of them arrive, each once, and both shards have sent some."""
    scenes = scene.share(SHARDS)
    async with sharing(scenes) as runs:
        store_chats(scene)
        await until_done(runs)

        assert sorted(scene.destination.record_ids()) == turns()
        assert outcomes(runs) == ["complete"] * len(NUMBERS)
        assert all("complete" in run.outcomes() for run in runs)


async def test_a_change_that_does_not_say_whose_row_it_is_is_followed_once(scene: Scene) -> None:
    """An update names only the row: the shard whose conversation it is follows it, the other lets go."""
    scenes = scene.share(SHARDS)
    async with sharing(scenes) as runs:
        keys = store_chats(scene)
        await until_done(runs)
        for key in keys.values():
            scene.librechat.update("messages", key, {"feedback": {"rating": "thumbsUp"}})
        await until_done(runs)

        assert set(scene.destination.scores) == {feedback_score_id(turn_trace_id(f"a{n}")) for n in NUMBERS}
        assert sorted(name for kind, name in scene.destination.history if kind == "score") == sorted(
            scene.destination.scores
        )
        assert outcomes(runs) == ["complete"] * len(NUMBERS) + ["followed"] * len(NUMBERS)
        assert all("other_shard" in run.outcomes() for run in runs)


async def test_an_answer_that_is_finished_late_is_sent_by_its_own_shard(scene: Scene) -> None:
    """It is parked there, and nowhere else."""
    scenes = scene.share(SHARDS)
    half: dict[str, Any] = {
        "unfinished": True,
        "text": None,
        "content": [{"type": "text", "text": "half"}],
    }
    async with sharing(scenes) as runs:
        scene.librechat.insert("messages", question("q1", None, conversationId="c1"))
        (key,) = scene.librechat.insert("messages", answer("a1", "q1", conversationId="c1", **half))
        await until(lambda: any(own.database.parked for own in scenes))
        (keeper,) = [index for index, own in enumerate(scenes) if own.database.parked]
        assert Shard(keeper, SHARDS).owns("c1")
        scene.librechat.update("messages", key, {"unfinished": False, "text": "whole"})
        await until_done(runs)

    assert scene.destination.record_ids() == [turn_trace_id("a1")]


@pytest.mark.parametrize("policy", DeletionPolicy)
async def test_a_deletion_is_followed_by_the_shard_that_sent_the_turn(
    scene: Scene, policy: DeletionPolicy
) -> None:
    """The row is gone; the record of its turn says whose it was."""
    scenes = scene.share(SHARDS)
    async with sharing(scenes, deletions=policy) as runs:
        keys = store_chats(scene)
        await until_done(runs)
        scene.librechat.delete("messages", *keys.values())
        await until_done(runs)

        found = outcomes(runs)
        if policy is DeletionPolicy.KEEP:
            assert found == ["complete"] * len(NUMBERS) + ["deletion_kept"] * len(NUMBERS)
        else:
            assert found.count("deletion_followed") == len(NUMBERS)
            assert sorted(name for kind, name in scene.destination.history if kind == "delete") == turns()


async def test_titles_and_spending_are_sent_once(scene: Scene) -> None:
    """A title's event names only its conversation; spending names its own."""
    scenes = scene.share(SHARDS)
    async with sharing(scenes, stream_transactions=True) as runs:
        chats = {}
        for number in NUMBERS:
            own = {"conversationId": f"c{number}", "user": ALICE, "title": "New Chat"}
            (chats[number],) = scene.librechat.insert("conversations", {"_id": ObjectId(), **own})
        store_chats(scene)
        await until_done(runs)
        for number, chat in chats.items():
            own = {"conversationId": f"c{number}", "messageId": f"a{number}"}
            scene.librechat.insert("transactions", transaction(**own, context="title"))
            scene.librechat.update("conversations", chat, {"title": f"Title {number}"})
            call = {"conversationId": f"api-{number}", "messageId": f"resp-{number}"}
            scene.librechat.insert("transactions", transaction(**call), transaction(**call))
        await until_done(runs)

    expected = [*turns(), *(title_trace_id(f"a{n}") for n in NUMBERS)]
    expected += [spending_trace_id(f"resp-{n}") for n in NUMBERS]
    assert sorted(scene.destination.record_ids()) == sorted(expected)


async def test_a_backfill_of_every_shard_sends_each_turn_once(scene: Scene) -> None:
    """All of them walk the collection, and each opens its own rows."""
    store_chats(scene)
    scenes = scene.share(SHARDS)
    for own in scenes:
        own.database.jobs["start"] = Job("start", JobReason.START)
    async with sharing(scenes) as runs:
        await until(lambda: all(own.database.jobs["start"].is_done for own in scenes))
        await until_done(runs)

    assert sorted(scene.destination.record_ids()) == turns()
    assert sum(own.database.jobs["start"].counts.sent for own in scenes) == len(NUMBERS)


def fail(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize("kind", ["turn", "title", "spending", "feedback"])
async def test_a_replay_is_done_by_one_shard(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Letters lie together: the shard of the conversation works on each, whatever its document is."""
    scenes = scene.share(SHARDS)
    async with sharing(scenes, stream_transactions=True) as runs:
        conversation = {"_id": ObjectId(), "conversationId": "c3", "user": ALICE, "title": "New Chat"}
        (chat,) = scene.librechat.insert("conversations", conversation)
        if kind == "turn":
            for own in scenes:
                own.sink.breaks_on = frozenset({"a3"})
        keys = store_chats(scene)
        await until_done(runs)
        with monkeypatch.context() as broken:
            broken.setattr(titles, "export_title", fail)
            broken.setattr(spending, "export_spending", fail)
            broken.setattr(followups, "make_feedback_score", fail)
            if kind == "title":
                own_ids = {"conversationId": "c3", "messageId": "a3"}
                scene.librechat.insert("transactions", transaction(**own_ids, context="title"))
                scene.librechat.update("conversations", chat, {"title": "Clocks"})
            elif kind == "spending":
                call = {"conversationId": "api-1", "messageId": "resp-1"}
                scene.librechat.insert("transactions", transaction(**call))
            elif kind == "feedback":
                scene.librechat.update("messages", keys[3], {"feedback": {"rating": "thumbsUp"}})
            await until_done(runs)
        for own in scenes:
            own.sink.breaks_on = frozenset()
        (letter,) = scene.database.letters
        scene.database.ask_for_replay(letter)
        await asyncio.sleep(60)
        await until_done(runs)
        replayed = [event for run in runs for event in run.events.of(DeadLetterReplayed)]

    assert [(event.record_id, event.outcome) for event in replayed] == [(letter, "sent")]
    assert scene.database.letters == {}
    assert scene.destination.duplicates() == []


async def test_a_replay_waits_for_its_own_shard(scene: Scene) -> None:
    """Another one does not end it with the word that there is nothing to send."""
    scenes = scene.share(SHARDS)
    owner = next(index for index in range(SHARDS) if Shard(index, SHARDS).owns("c3"))
    for own in scenes:
        own.sink.breaks_on = frozenset({"a3"})
    async with sharing(scenes) as runs:
        store_chats(scene)
        await until_done(runs)
    for own in scenes:
        own.sink.breaks_on = frozenset()
    (letter,) = scene.database.letters
    scene.database.ask_for_replay(letter)
    numbers: dict[int, dict[str, Any]] = {
        index: {"total_shards": SHARDS, "shard_ordinal": Ordinal(index)} for index in range(SHARDS)
    }

    async with running(scenes[1 - owner], **numbers[1 - owner]):
        await asyncio.sleep(60)
        assert scene.database.letters[letter].replay == ASKED
    async with running(scenes[owner], **numbers[owner]):
        await until(lambda: not scene.database.letters, seconds=60)

    assert sorted(scene.destination.record_ids()) == turns()


@pytest.fixture
def two_destinations(tmp_path: Path) -> Path:
    """Both get everything."""
    return write_destinations(tmp_path / "destinations.toml", DESTINATIONS)


async def test_what_follows_a_turn_is_brought_back_by_its_own_shard(
    scene: Scene, two_destinations: Path
) -> None:
    """A rating and a deletion name only the row, and of a destination that is away they are owed."""
    scenes, other = scene.share(SHARDS, DESTINATIONS), scene.at("other")
    changed = {"destinations_file": two_destinations, "deletions": DeletionPolicy.DELETE}
    async with sharing(scenes, **changed) as runs:
        keys = store_chats(scene)
        await until_done(runs)
        other.is_away = True
        # Those that are sent now are on their way all the time.
        late = store_chats(scene, first=100)
        await until_done(runs)
        for number, key in {**keys, **late}.items():
            if number % 2:
                scene.librechat.delete("messages", key)
            else:
                scene.librechat.update("messages", key, {"feedback": {"rating": "thumbsUp"}})
        await until_done(runs)
        assert any(own.database.at("other").owed for own in scenes)
    async with sharing(scenes, **changed) as runs:
        await until_done(runs)
        other.is_away = False
        held = [own.database.at("other") for own in scenes]
        await until(lambda: not any(each.owed or each.batches for each in held))
        await until_done(runs)

    rated = {turn_trace_id(f"a{number}") for number in {**keys, **late} if number % 2 == 0}
    for destination in (scene.destination, other):
        assert set(destination.trace_ids()) == rated
        assert set(destination.scores) == {feedback_score_id(trace_id) for trace_id in rated}
