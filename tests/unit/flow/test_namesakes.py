"""Two rows with the same message id: recent LibreChats keep ids apart by user, and a client may choose one."""

import pytest
from bson import ObjectId

from tailer.core.identity import DocumentKey, turn_trace_id
from tailer.events import TurnFailed
from tests.rows import ALICE, BOB, answer, question
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene


def store_turn(scene: Scene, user: str, conversation_id: str = "c1") -> DocumentKey:
    """A turn whose ids are those of everyone's; gives the `_id` of its answer."""
    own = {"conversationId": conversation_id}
    scene.librechat.insert("messages", question("q1", None, user, **own))
    (key,) = scene.librechat.insert("messages", answer("a1", "q1", user, **own))
    return key


@pytest.mark.parametrize("is_later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("conversation_id", ["c1", "c2"])
async def test_a_turn_with_the_message_id_of_another_user_is_not_lost_in_silence(
    scene: Scene, conversation_id: str, *, is_later: bool
) -> None:
    """Who comes first has the trace. The other turn becomes a dead letter that names its row."""
    async with running(scene) as run:
        first = store_turn(scene, ALICE)
        if is_later:
            await run.until_done()
        second = store_turn(scene, BOB, conversation_id)
        await run.until_done()
        failed, outcomes = run.events.of(TurnFailed), run.outcomes()

    assert scene.destination.record_ids() == [turn_trace_id("a1")]
    assert scene.database.exports[turn_trace_id("a1")].document_key == first
    (stored,) = scene.database.letters.values()
    assert stored.letter.document_key == second
    assert stored.letter.record_id != turn_trace_id("a1")
    assert str(stored.letter.reason) == "build_failed: message_id_of_another_row"
    assert [event.message_id for event in failed] == ["a1"]
    assert sorted(outcomes) == ["complete", "dead_letter"]


@pytest.mark.parametrize("is_gone", [True, False], ids=["anew", "twice"])
async def test_a_turn_that_is_stored_anew_or_twice_under_its_id_is_the_same_turn(
    scene: Scene, *, is_gone: bool
) -> None:
    """Without a unique index, two writes at once may store a message twice."""
    async with running(scene) as run:
        key = store_turn(scene, ALICE)
        await run.until_done()
        if is_gone:
            scene.librechat.delete("messages", key)
        await run.until_done()
        scene.librechat.insert("messages", answer("a1", "q1", _id=ObjectId(), conversationId="c1"))
        await run.until_done()
        outcomes = run.outcomes()

    assert scene.destination.record_ids() == [turn_trace_id("a1")]
    assert scene.database.letters == {}
    assert outcomes[-1] == "sent_before"
