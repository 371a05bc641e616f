"""What one item does to the code, or to the destination, concerns that item alone."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from bson import ObjectId

from tailer.core.identity import DocumentKey, spending_trace_id, title_trace_id, turn_trace_id
from tailer.core.librechat.messages import Message
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.trace.followup import FollowupOperation
from tailer.events import FollowupFailed, FollowupRetried, TurnFailed
from tailer.flow.sending.outcomes import DeliveryOutcome, Rejected, Retry
from tests.evidence import trace_ids
from tests.memory import MemoryMedia, MemoryReader
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene, until


def store_chats(scene: Scene, *numbers: int) -> Mapping[int, DocumentKey]:
    """Chats of one turn each; gives the `_id`s of the answers."""
    keys = {}
    for number in numbers:
        own = {"conversationId": f"c{number}"}
        scene.librechat.insert("messages", question(f"q{number}", None, **own))
        (keys[number],) = scene.librechat.insert("messages", answer(f"a{number}", f"q{number}", **own))
    return keys


def turns(*numbers: int) -> list[str]:
    return [str(trace_id) for trace_id in trace_ids(*(f"a{number}" for number in numbers))]


async def until_sent(scene: Scene, number: int) -> None:
    """Return once a turn has arrived, within a minute."""
    (turn,) = turns(number)
    await until(lambda: turn in scene.destination.record_ids(), seconds=60)


@pytest.mark.parametrize("bad", [0, 4, 8])
async def test_a_turn_that_breaks_the_code_is_buried_alone(scene: Scene, bad: int) -> None:
    """With its id and its reason; the others of its round are sent, each once."""
    scene.sink.breaks_on = frozenset({f"a{bad}"})
    async with running(scene) as run:
        store_chats(scene, *range(9))
        await run.until_done()
        outcomes, failed = run.outcomes(), run.events.of(TurnFailed)

    assert sorted(scene.destination.record_ids()) == sorted(turns(*(set(range(9)) - {bad})))
    (stored,) = scene.database.letters.values()
    assert stored.letter.record_id == turn_trace_id(f"a{bad}")
    assert str(stored.letter.reason) == "build_failed: ArithmeticError"
    assert [event.message_id for event in failed] == [f"a{bad}"]
    assert sorted(outcomes) == ["complete"] * 8 + ["dead_letter"]


async def test_an_edit_that_breaks_the_code_is_buried_alone(scene: Scene) -> None:
    """Its turn was sent and stays; edits and ratings of others are followed."""
    async with running(scene) as run:
        keys = store_chats(scene, 1, 2, 3)
        await run.until_done()
        scene.sink.breaks_on = frozenset({"a2"})
        for key in keys.values():
            scene.librechat.update("messages", key, {"text": "edited"})
        await run.until_done()

    edits = [record for record in scene.destination.record_ids() if ":edit:" in record]
    assert sorted(edits) == sorted(f"{turn}:edit:0" for turn in turns(1, 3))
    (stored,) = scene.database.letters.values()
    assert stored.letter.message_id == "a2"
    assert stored.letter.record_id != turn_trace_id("a2")


async def test_a_title_that_breaks_the_code_is_buried_under_its_own_id(scene: Scene) -> None:
    """The turn that it names was sent: a replay of the letter must not find that and call it done."""
    async with running(scene) as run:
        (conversation,) = scene.librechat.insert(
            "conversations", {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "New Chat"}
        )
        store_chats(scene, 1)
        await run.until_done()
        scene.sink.breaks_on = frozenset({"a1"})
        scene.librechat.insert("transactions", transaction(messageId="a1", context="title"))
        scene.librechat.update("conversations", conversation, {"title": "Clocks"})
        await run.until_done()

    assert list(scene.database.letters) == [title_trace_id("a1")]


async def test_spending_that_breaks_the_code_is_buried_alone(scene: Scene) -> None:
    scene.sink.breaks_on = frozenset({"r2"})
    async with running(scene, stream_transactions=True) as run:
        for reference in ("r1", "r2", "r3"):
            scene.librechat.insert("transactions", transaction(conversationId="api", messageId=reference))
        await run.until_done()

    assert scene.destination.record_ids() == [spending_trace_id("r1"), spending_trace_id("r3")]
    assert list(scene.database.letters) == [spending_trace_id("r2")]


async def test_a_reader_that_breaks_on_one_row_costs_that_row_alone(scene: Scene) -> None:
    """The query itself fails for a round that holds it."""

    class Breaking(MemoryReader):
        async def read_messages(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, Message]:
            if bad in keys:
                raise ZeroDivisionError
            return await super().read_messages(keys)

    bad: DocumentKey | None = None
    async with running(scene, reader=Breaking(scene.librechat)) as run:
        bad = store_chats(scene, *range(5))[3]
        await run.until_done()

    assert sorted(scene.destination.record_ids()) == sorted(turns(0, 1, 2, 4))
    assert list(scene.database.letters) == turns(3)


@pytest.mark.parametrize("answer_of_scores", [Retry("http_503"), Rejected("http_400")])
async def test_scores_that_are_not_taken_stop_no_turn(
    scene: Scene, answer_of_scores: DeliveryOutcome
) -> None:
    """For half an hour; turns that come meanwhile arrive within the minute."""
    scene.destination.score_answers.extend([answer_of_scores] * 5000)
    async with running(scene) as run:
        keys = store_chats(scene, 0)
        await run.until_done()
        scene.librechat.update("messages", keys[0], {"feedback": {"rating": "thumbsUp"}})
        for number in range(1, 7):
            await asyncio.sleep(300)
            store_chats(scene, number)
            await until_sent(scene, number)
        scene.destination.score_answers.clear()
        await run.until_done()
        failed = len(run.events.of(FollowupFailed))

    assert (len(scene.destination.scores), failed) == (
        (1, 0) if isinstance(answer_of_scores, Retry) else (0, 1)
    )


async def test_deletions_that_are_not_taken_stop_no_turn_and_no_score(scene: Scene) -> None:
    scene.destination.score_answers.extend([Retry("http_503")] * 5)
    async with running(scene, deletions=DeletionPolicy.DELETE) as run:
        keys = store_chats(scene, 1, 2)
        await run.until_done()
        scene.librechat.delete("messages", keys[1])
        await asyncio.sleep(1)
        store_chats(scene, 3)
        await until_sent(scene, 3)
        await run.until_done()

    assert sorted(scene.destination.trace_ids()) == sorted(turns(2, 3))


async def test_a_deletion_that_is_refused_for_good_is_not_recorded_as_done(scene: Scene) -> None:
    """The trace stays, and so does its record."""
    scene.destination.score_answers.append(Rejected("http_400"))
    async with running(scene, deletions=DeletionPolicy.DELETE) as run:
        keys = store_chats(scene, 1)
        await run.until_done()
        scene.librechat.delete("messages", keys[1])
        await run.until_done()
        outcomes, failed = run.outcomes(), run.events.of(FollowupFailed)

    assert outcomes[-1] == "deletion_refused"
    assert [event.operation for event in failed] == [FollowupOperation.DELETE_TRACES]
    assert scene.destination.record_ids() == turns(1)
    assert set(await scene.state.load_sent(trace_ids("a1"))) == set(trace_ids("a1"))


async def test_what_keeps_a_score_from_being_taken_is_said_with_its_remedy(scene: Scene) -> None:
    scene.destination.score_answers.append(Retry("ConnectError", remedy="nothing listens there"))
    async with running(scene) as run:
        keys = store_chats(scene, 1)
        await run.until_done()
        scene.librechat.update("messages", keys[1], {"feedback": {"rating": "thumbsUp"}})
        await run.until_done()
        retried = run.events.of(FollowupRetried)

    assert [event.reason for event in retried] == ["ConnectError: nothing listens there"]


async def test_scores_that_are_to_wait_for_nothing_are_no_flood(scene: Scene) -> None:
    """`Retry-After: 0`: the own pauses grow all the same."""
    scene.destination.score_answers.extend([Retry("http_429", 0.0)] * 6)
    async with running(scene) as run:
        keys = store_chats(scene, 1)
        await run.until_done()
        scene.librechat.update("messages", keys[1], {"feedback": {"rating": "thumbsUp"}})
        await run.until_done()
        pauses = [event.wait_seconds for event in run.events.of(FollowupRetried)]

    assert len(pauses) == 6
    assert pauses[5] >= 0.2 * 2**5


async def test_files_that_cannot_be_uploaded_hold_their_own_turn_back_and_no_other(scene: Scene) -> None:
    """For a passing failure it waits; the files are there when the trace is."""
    media = MemoryMedia()
    media.trouble = Retry("http_503")
    file = {"file_id": "f1", "filename": "cat.png", "type": "image/png", "filepath": "/images/cat.png"}
    async with running(scene, media=media) as run:
        scene.librechat.insert("messages", question("q1", None, files=[file]), answer("a1", "q1"))
        await asyncio.sleep(30)
        assert scene.destination.record_ids() == []
        media.trouble = None
        await run.until_done()

    assert scene.destination.record_ids() == turns(1)
    assert media.published == [(turn_trace_id("a1"), ("memory:/images/cat.png",))]
