"""Whatever is written, fails and ends in whatever order: in the end Langfuse shows what LibreChat holds, each thing once.

A seed gives a schedule of an hour: chats that are begun, edited, rated, given titles and deleted; a Langfuse that is
slow, away, refuses keys and loses answers; runs that are killed and stopped, and times without one.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from bson import ObjectId

from tailer.core.identity import DocumentKey, title_trace_id, turn_trace_id
from tailer.core.policy.policies import DeletionPolicy
from tailer.flow.sending.outcomes import Retry, Unknown
from tests.memory import Answer
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene

SEEDS = range(40)
STEPS = 60


@dataclass(slots=True)
class Chat:
    """A turn as its user sees it."""

    number: int
    question: DocumentKey
    answer: DocumentKey
    conversation: DocumentKey
    text: str
    rating: str | None = None
    is_titled: bool = False
    is_deleted: bool = False


@dataclass(slots=True)
class World:
    """Who writes, what fails, and what should be seen in the end."""

    scene: Scene
    random: Random
    chats: list[Chat] = field(default_factory=list)

    def write(self) -> None:
        """One thing that a user, or LibreChat, does."""
        alive = [chat for chat in self.chats if not chat.is_deleted]
        if not alive or self.random.random() < 0.4:
            self._begin()
            return
        chat = self.random.choice(alive)
        self.random.choice((self._edit, self._edit_question, self._rate, self._entitle, self._delete))(chat)

    def fail(self) -> None:
        """One thing that happens to Langfuse, and the end of another."""
        held = self.scene.destination
        held.latency_seconds = self.random.choice((0, 0.1, 5, 20))
        held.is_away = self.random.random() < 0.2
        held.refuses_keys = self.random.random() < 0.1
        for _ in range(self.random.randrange(3)):
            outcome = self.random.choice((Retry("http_500"), Retry("http_429", 7.0), Unknown("lost")))
            taken = isinstance(outcome, Unknown) and self.random.random() < 0.5
            held.answers.append(Answer(outcome, taken=taken))
        if self.random.random() < 0.3:
            held.score_answers.append(Retry("http_503"))

    def heal(self) -> None:
        """Nothing fails any more."""
        held = self.scene.destination
        held.latency_seconds, held.is_away, held.refuses_keys = 0, False, False
        held.answers.clear()
        held.score_answers.clear()

    def _begin(self) -> None:
        number = len(self.chats)
        own = {"conversationId": f"c{number}"}
        (conversation,) = self.scene.librechat.insert(
            "conversations", {"_id": ObjectId(), "user": ALICE, "title": "New Chat", **own}
        )
        asked, said = self.scene.librechat.insert(
            "messages",
            question(f"q{number}", None, **own),
            answer(f"a{number}", f"q{number}", text=f"first answer {number}", **own),
        )
        self.chats.append(Chat(number, asked, said, conversation, f"first answer {number}"))

    def _edit(self, chat: Chat) -> None:
        chat.text = f"answer {chat.number} of {self.random.random()}"
        self.scene.librechat.update("messages", chat.answer, {"text": chat.text})

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
            bill = transaction(conversationId=f"c{chat.number}", messageId=f"a{chat.number}", context="title")
            self.scene.librechat.insert("transactions", bill)
            self.scene.librechat.update("conversations", chat.conversation, {"title": f"About {chat.number}"})

    def _delete(self, chat: Chat) -> None:
        chat.is_deleted = True
        self.scene.librechat.delete("messages", chat.answer)

    def check(self) -> None:
        """What Langfuse shows is what LibreChat holds."""
        held = self.scene.destination
        expected = {turn_trace_id(f"a{chat.number}") for chat in self.chats if not chat.is_deleted}
        titles = {
            title_trace_id(f"a{chat.number}") for chat in self.chats if not chat.is_deleted and chat.is_titled
        }
        assert set(held.trace_ids()) == expected | titles
        assert held.duplicates() == []
        for chat in self.chats:
            if not chat.is_deleted:
                self._check_turn(chat)
        for position, (kind, name) in enumerate(held.history):
            if kind == "trace" and ":edit:" in name:
                assert ("trace", name.partition(":")[0]) in held.history[:position]
        assert self.scene.database.letters == {}
        assert self.scene.database.batches == {}

    def _check_turn(self, chat: Chat) -> None:
        held, trace_id = self.scene.destination, turn_trace_id(f"a{chat.number}")
        texts = [str(item["output"]) for item in held.observations_of(trace_id)]
        assert any(chat.text in text for text in texts)
        score = held.scores.get(f"feedback-{trace_id}")
        expected = {None: None, "thumbsUp": 1, "thumbsDown": 0}[chat.rating]
        assert (None if score is None else score.value) == expected


async def live(world: World, run: Run | None) -> None:
    """A part of the hour, with a run or without one."""
    for _ in range(world.random.randrange(1, STEPS // 4)):
        if world.random.random() < 0.7:
            world.write()
        if world.random.random() < 0.3:
            world.fail()
        await asyncio.sleep(world.random.choice((0, 0.01, 1, 4, 30)))
        if run is not None and run.task.done():
            return


def parts(random: Random) -> Iterator[str]:
    """How the runs of one schedule end."""
    yield from (random.choice(("killed", "stopped", "away")) for _ in range(random.randrange(1, 5)))


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_everything_is_there_once_in_the_end(scene: Scene, seed: int) -> None:
    world = World(scene, Random(seed))
    async with running(scene, deletions=DeletionPolicy.DELETE) as first:
        await first.until_done()
    for end in parts(world.random):
        if end == "away":
            await live(world, None)
            continue
        async with running(scene, deletions=DeletionPolicy.DELETE) as run:
            await live(world, run)
            if end == "stopped":
                await run.stop()
    world.heal()
    async with running(scene, deletions=DeletionPolicy.DELETE) as last:
        await last.until_done()

    world.check()
