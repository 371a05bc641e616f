"""Nothing of a temporary chat is sent, whatever happens to its rows."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import turn_trace_id
from tailer.core.policy.policies import TemporaryPolicy
from tests.rows import ALICE, answer, question, transaction
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene

TURN = turn_trace_id("a1")
EXPIRY: dict[str, Any] = {"expiredAt": datetime(2100, 1, 1, tzinfo=UTC)}
SECRET = "known to nobody else"


def store_conversation(scene: Scene, **fields: Any) -> None:
    scene.librechat.insert(
        "conversations", {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, **fields}
    )


async def test_an_artifact_that_is_edited_does_not_make_a_temporary_chat_a_lasting_one(scene: Scene) -> None:
    """Until 0.8.4 the edit takes the expiry date away."""
    async with running(scene) as run:
        store_conversation(scene, **EXPIRY)
        _, said = scene.librechat.insert(
            "messages", question("q1", None, **EXPIRY), answer("a1", "q1", **EXPIRY)
        )
        await run.until_done()
        scene.librechat.update("messages", said, {"text": SECRET, "expiredAt": None})
        await run.until_done()
        outcomes = run.outcomes()

    assert outcomes == ["temporary", "temporary"]
    assert scene.destination.record_ids() == []


async def test_a_stopped_answer_of_a_temporary_chat_is_not_sent_whenever_its_conversation_is_stored(
    scene: Scene,
) -> None:
    """Until 0.8.7 Stop stores the answer without the flag. A pause before it was parked."""
    flagged = {"isTemporary": True, **EXPIRY}
    async with running(scene) as run:
        scene.librechat.insert("messages", question("q1", None, **flagged))
        (said,) = scene.librechat.insert("messages", answer("a1", "q1", unfinished=True, isTemporary=False))
        store_conversation(scene, **flagged)
        scene.librechat.update("messages", said, {"text": SECRET, "finish_reason": "incomplete"})
        await run.until_done()

        assert run.outcomes() == ["temporary"]
    assert scene.destination.record_ids() == []


async def test_an_unanswered_question_to_an_assistant_in_a_temporary_chat_is_not_sent(scene: Scene) -> None:
    """Its row does not say what the chat is, and it is parked before its deadline has passed."""
    async with running(scene, unanswered_after=timedelta(minutes=5)) as run:
        scene.librechat.insert(
            "messages", question("q1", None, text=SECRET, endpoint="assistants", isTemporary=False)
        )
        store_conversation(scene, endpoint="assistants", isTemporary=True, **EXPIRY)
        await asyncio.sleep(900)
        await run.until_done()

        assert run.outcomes()[-1] == "temporary"
    assert scene.destination.record_ids() == []


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [(TemporaryPolicy.SKIP, "temporary"), (TemporaryPolicy.METADATA, "edited")],
)
@pytest.mark.parametrize("row", ["answer", "question"])
async def test_an_edit_sends_no_content_of_a_chat_that_turned_out_to_be_temporary(
    scene: Scene, row: str, policy: TemporaryPolicy, outcome: str
) -> None:
    """Its turn was sent as a lasting one, by an earlier release for example."""
    async with running(scene, temporary=policy) as run:
        asked, said = scene.librechat.insert("messages", question("q1", None), answer("a1", "q1"))
        await run.until_done()
        store_conversation(scene, isTemporary=True, **EXPIRY)
        changes = {"text": SECRET, "feedback": {"rating": "thumbsDown", "text": SECRET}}
        scene.librechat.update("messages", said if row == "answer" else asked, changes)
        await run.until_done()

        assert run.outcomes() == ["complete", outcome]
    assert SECRET.encode() not in b"".join(scene.destination.payloads)
    assert SECRET not in str(scene.destination.scores)
    assert len(scene.destination.record_ids()) == (2 if outcome == "edited" else 1)


@pytest.mark.parametrize(
    ("fields", "chat", "is_sent"),
    [
        ({}, None, True),
        ({}, {"isTemporary": True}, False),
        ({}, EXPIRY, False),
        ({}, {"isTemporary": False, **EXPIRY}, True),
        ({"unfinished": True, "text": "Par"}, None, False),
        ({"endpoint": "azureAssistants"}, None, False),
    ],
)
async def test_a_deleted_answer_that_may_be_of_a_temporary_chat_leaves_no_tokens(
    scene: Scene, fields: dict[str, Any], chat: dict[str, Any] | None, *, is_sent: bool
) -> None:
    """Its own row says nothing, or says by default that the chat is to last."""
    async with running(scene) as run:
        scene.librechat.insert("transactions", transaction(messageId="a1"))
        (said,) = scene.librechat.insert("messages", answer("a1", "q1", isTemporary=False, **fields))
        if chat is not None:
            store_conversation(scene, **chat)
        scene.librechat.delete("messages", said)
        await run.until_done()

    assert scene.destination.record_ids() == ([TURN] if is_sent else [])
