"""Whatever is written, fails and ends in whatever order: in the end each destination shows what LibreChat holds, each
thing once.

A seed gives a schedule of an hour: chats that are begun, finished late, edited, rated, given titles and deleted, calls
of the remote API, and backfills; destinations that are slow, away, refuse keys and lose answers, each by itself; runs
that are killed and stopped, one or one of each shard, and times without any.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from random import seed as seed_jitter
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.backfill import Job, JobReason
from tailer.core.identity import DocumentKey, spending_trace_id, title_trace_id, turn_trace_id
from tailer.core.policy.policies import DeletionPolicy
from tailer.events import TracesMayRepeat
from tailer.flow.sending.outcomes import Retry, Unknown
from tailer.settings.sharding import Ordinal
from tests.memory import Answer, MemoryDestination
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.destinations_file import write_destinations
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene, until

SEEDS = range(100)
STEPS = 60
ALONE, SEVERAL = ("default",), ("default", "second", "third")
TEAM = "team-a"
HALF: dict[str, Any] = {
    "unfinished": True,
    "text": None,
    "content": [{"type": "text", "text": "half an answer"}],
}
OPTIONS: dict[str, Any] = {"deletions": DeletionPolicy.DELETE, "stream_transactions": True}


def said_id(number: int) -> str:
    """The message id of an answer. A chat's ids are UUIDs, which tells its bills from those of the remote API."""
    return f"00000000-0000-4000-8000-{number:012x}"


def asked_id(number: int) -> str:
    """The message id of a question."""
    return f"00000000-0000-4000-9000-{number:012x}"


@dataclass(slots=True)
class Chat:
    """A turn as its user sees it."""

    number: int
    question: DocumentKey
    answer: DocumentKey
    conversation: DocumentKey
    text: str
    is_unfinished: bool
    rating: str | None = None
    is_titled: bool = False
    is_deleted: bool = False

    def is_for(self, destination: str) -> bool:
        """Whether a destination gets it."""
        return destination != SEVERAL[2] or self.number % 2 == 1


@dataclass(slots=True)
class World:
    """Who writes, what fails, and what should be seen in the end."""

    scene: Scene
    random: Random
    names: Sequence[str]
    shards: Sequence[Scene]
    chats: list[Chat] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    doubted: set[str | None] = field(default_factory=set)
    """The destinations that could not be asked for a batch of unknown outcome, because their keys were refused then:
    what was sent again may be there twice, and that was said."""

    def note(self, runs: Sequence[Run]) -> None:
        """Note what runs said of themselves."""
        self.doubted |= {event.destination for run in runs for event in run.events.of(TracesMayRepeat)}

    def write(self) -> None:
        """One thing that a user, or LibreChat, does."""
        if self.random.random() < 0.05:
            self._fill()
            return
        alive = [chat for chat in self.chats if not chat.is_deleted]
        if not alive or self.random.random() < 0.4:
            self.random.choice((self._begin, self._begin, self._begin, self._spend))()
            return
        chat = self.random.choice(alive)
        if chat.is_unfinished:
            self.random.choice((self._finish, self._finish, self._delete))(chat)
            return
        self.random.choice((self._edit, self._edit_question, self._rate, self._entitle, self._delete))(chat)

    def fail(self) -> None:
        """One thing that happens to a destination, and the end of another."""
        held = self.scene.at(self.random.choice(self.names))
        held.latency_seconds = self.random.choice((0, 0.1, 3, 5, 20))
        held.is_away = self.random.random() < 0.3
        held.refuses_keys = self.random.random() < 0.1
        for _ in range(self.random.randrange(3)):
            outcome = self.random.choice((Retry("http_500"), Retry("http_429", 7.0), Unknown("lost")))
            taken = isinstance(outcome, Unknown) and self.random.random() < 0.5
            held.answers.append(Answer(outcome, taken=taken))
        if self.random.random() < 0.3:
            held.score_answers.append(Retry("http_503"))

    def end(self) -> None:
        """Every answer is finished."""
        for chat in self.chats:
            if chat.is_unfinished and not chat.is_deleted:
                self._finish(chat)

    def heal(self) -> None:
        """Nothing fails any more."""
        for held in map(self.scene.at, self.names):
            held.latency_seconds, held.is_away, held.refuses_keys = 0, False, False
            held.answers.clear()
            held.score_answers.clear()

    async def until_done(self, runs: Sequence[Run]) -> None:
        """Return once everything was seen through, and nothing is owed to a destination, on its way or to be filled."""
        kept = [own.database.at(name) for own in self.shards for name in self.names]
        for _ in range(2):
            for run in runs:
                await run.until_done()
            await until(lambda: not any(each.owed or each.batches for each in kept))
            await until(lambda: all(job.is_done for own in self.shards for job in own.database.jobs.values()))

    def _begin(self) -> None:
        number = len(self.chats)
        own = {"conversationId": f"c{number}", "endpoint": TEAM if number % 2 else "openAI"}
        (conversation,) = self.scene.librechat.insert(
            "conversations", {"_id": ObjectId(), "user": ALICE, "title": "New Chat", **own}
        )
        text, is_unfinished = f"first answer {number}", self.random.random() < 0.3
        fields = HALF if is_unfinished else {"text": text}
        asked, said = self.scene.librechat.insert(
            "messages",
            question(asked_id(number), None, **own),
            answer(said_id(number), asked_id(number), **own, **fields),
        )
        chat = Chat(number, asked, said, conversation, text, is_unfinished)
        self.chats.append(chat)
        if not is_unfinished and self.random.random() < 0.4:
            # Quicker than the turn is sent.
            self._rate(chat)

    def _finish(self, chat: Chat) -> None:
        chat.is_unfinished = False
        done = {"unfinished": False, "content": [{"type": "text", "text": chat.text}], "text": chat.text}
        self.scene.librechat.update("messages", chat.answer, done)

    def _spend(self) -> None:
        reference = f"call-{self.random.randrange(5)}"
        self.calls.append(reference)
        self.scene.librechat.insert("transactions", transaction(conversationId="api", messageId=reference))

    def _fill(self) -> None:
        """An operator asks for a backfill, as one asks for it of every shard."""
        destination = self.random.choice((None, *self.names))
        for own in self.shards:
            job = Job(f"job {len(own.database.jobs)}", JobReason.ASKED, destination=destination)
            own.database.jobs[job.job_id] = job

    def _edit(self, chat: Chat) -> None:
        chat.text = f"answer {chat.number} of {self.random.random()}"
        content = [{"type": "text", "text": chat.text}]
        self.scene.librechat.update("messages", chat.answer, {"text": chat.text, "content": content})

    def _edit_question(self, chat: Chat) -> None:
        self.scene.librechat.update("messages", chat.question, {"text": f"asked {self.random.random()}"})

    def _rate(self, chat: Chat) -> None:
        chat.rating = self.random.choice((None, "thumbsUp", "thumbsDown"))
        if chat.rating is None:
            self.scene.librechat.update("messages", chat.answer, {}, removed=["feedback"])
        else:
            self.scene.librechat.update("messages", chat.answer, {"feedback": {"rating": chat.rating}})

    def _entitle(self, chat: Chat) -> None:
        if not chat.is_titled:
            chat.is_titled = True
            bill = transaction(
                conversationId=f"c{chat.number}", messageId=said_id(chat.number), context="title"
            )
            self.scene.librechat.insert("transactions", bill)
            self.scene.librechat.update("conversations", chat.conversation, {"title": f"About {chat.number}"})

    def _delete(self, chat: Chat) -> None:
        chat.is_deleted = True
        self.scene.librechat.delete("messages", chat.answer)

    def check(self) -> None:
        """What each destination shows is what LibreChat holds."""
        for name in self.names:
            held = self.scene.at(name)
            chats = [chat for chat in self.chats if not chat.is_deleted and chat.is_for(name)]
            turns = {turn_trace_id(said_id(chat.number)) for chat in chats}
            titles = {title_trace_id(said_id(chat.number)) for chat in chats if chat.is_titled}
            calls = {spending_trace_id(reference) for reference in self.calls if name != SEVERAL[2]}
            assert set(held.trace_ids()) == turns | titles | calls, name
            assert held.duplicates() == [] or name in self.doubted or None in self.doubted
            for chat in chats:
                _check_turn(chat, held)
            for position, (kind, record) in enumerate(held.history):
                if kind == "trace" and ":edit:" in record:
                    assert ("trace", record.partition(":")[0]) in held.history[:position]
            for own in self.shards:
                assert own.database.at(name).letters == {}
                assert own.database.at(name).batches == {}


def _check_turn(chat: Chat, held: MemoryDestination) -> None:
    trace_id = turn_trace_id(said_id(chat.number))
    texts = [str(item["output"]) for item in held.observations_of(trace_id)]
    assert any(chat.text in text for text in texts)
    score = held.scores.get(f"feedback-{trace_id}")
    expected = {None: None, "thumbsUp": 1, "thumbsDown": 0}[chat.rating]
    assert (None if score is None else score.value) == expected


async def live(world: World, runs: Sequence[Run]) -> None:
    """A part of the hour, with runs or without one."""
    for _ in range(world.random.randrange(1, STEPS // 4)):
        for _ in range(world.random.choice((0, 1, 1, 3))):
            world.write()
        if world.random.random() < 0.3:
            world.fail()
        await asyncio.sleep(world.random.choice((0, 0.01, 1, 4, 30)))
        if any(run.task.done() for run in runs):
            return


def parts(random: Random) -> Iterator[str]:
    """How the runs of one schedule end."""
    yield from (random.choice(("killed", "stopped", "away")) for _ in range(random.randrange(1, 5)))


@pytest.fixture
def destinations(tmp_path: Path) -> Path:
    """The third gets the chats of one team only, and no calls."""
    path = tmp_path / "destinations.toml"
    return write_destinations(path, SEVERAL, otherwise=SEVERAL[:2], routes={TEAM: SEVERAL})


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_everything_is_there_once_in_the_end(scene: Scene, seed: int) -> None:
    await _go_through(World(scene, Random(seed), ALONE, [scene]), OPTIONS)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_to_any_of_several_destinations_each_has_everything_once_in_the_end(
    scene: Scene, destinations: Path, seed: int
) -> None:
    world = World(scene, Random(seed), SEVERAL, [scene])
    await _go_through(world, {**OPTIONS, "destinations_file": destinations})


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_to_any_of_three_shards_everything_is_there_once_in_the_end(
    scene: Scene, destinations: Path, seed: int
) -> None:
    """With several destinations, too."""
    world = World(scene, Random(seed), SEVERAL, scene.share(3, SEVERAL))
    await _go_through(world, {**OPTIONS, "destinations_file": destinations})


async def _go_through(world: World, options: dict[str, Any]) -> None:
    # Pauses between tries are random too.
    seed_jitter(world.random.random())
    async with at_work(world.shards, world.shards, options) as first:
        await world.until_done(first)
    for end in parts(world.random):
        present = [own for own in world.shards if world.random.random() < 0.8] or world.shards
        if end == "away":
            await live(world, ())
            continue
        async with at_work(world.shards, present, options) as runs:
            await live(world, runs)
            if end == "stopped":
                await world.random.choice(runs).stop()
        world.note(runs)
    world.end()
    world.heal()
    async with at_work(world.shards, world.shards, options) as last:
        await world.until_done(last)
    world.note(last)

    world.check()


@asynccontextmanager
async def at_work(
    shards: Sequence[Scene], present: Sequence[Scene], options: dict[str, Any]
) -> AsyncIterator[list[Run]]:
    """A run of each shard that is present."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running(own, total_shards=len(shards), shard_ordinal=Ordinal(shards.index(own)), **options)
            )
            for own in present
        ]
