"""What LibreChat bills for an answer after it was sent and deleted: detached sub-agents go on without it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tailer.core.identity import DocumentKey, TraceId, native_copy_trace_id, turn_trace_id
from tailer.core.policy.policies import DeletionPolicy, NativePolicy, TemporaryPolicy
from tests.memory import MemoryDestination
from tests.rows import BOB, answer, question, transaction
from tests.unit.flow.destinations_file import write_destinations
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene

ANSWER = "0d9ab1f6-5f0e-4f0c-9a2b-8f0f6a3f7c11"
TURN = turn_trace_id(ANSWER)
LEDGER: dict[str, Any] = {"stream_transactions": True}


async def send_turn(scene: Scene, run: Run, **fields: Any) -> list[DocumentKey]:
    """A turn that was billed before it was stored, and sent; the `_id`s of its question and answer."""
    scene.librechat.insert("transactions", transaction(messageId=ANSWER))
    keys = scene.librechat.insert("messages", question("q1", None), answer(ANSWER, "q1", **fields))
    await run.until_done()
    return keys


async def bill(scene: Scene, run: Run, **fields: Any) -> None:
    """A sub-agent's call of 5,000 tokens."""
    own = {"messageId": ANSWER, "context": "subagent", "model": "gpt-5-mini", "rawAmount": -5_000}
    scene.librechat.insert("transactions", transaction(**{**own, **fields}))
    await run.until_done()


def tokens(destination: MemoryDestination, trace_id: TraceId = TURN) -> list[int]:
    """What each generation of the turn counts."""
    found = destination.observations_of(trace_id)
    return [item["usage"]["output"] for item in found if item.get("usage")]


@pytest.mark.parametrize("whole", [True, False], ids=["the conversation", "the answer"])
async def test_what_is_billed_after_a_sent_answer_was_deleted_is_counted_once_in_its_trace(
    scene: Scene, *, whole: bool
) -> None:
    async with running(scene, **LEDGER) as run:
        keys = await send_turn(scene, run)
        scene.librechat.delete("messages", *(keys if whole else keys[1:]))
        await run.until_done()
        await bill(scene, run)
        await bill(scene, run, context="memory", rawAmount=-70)

    assert tokens(scene.destination) == [3, 5_000, 70]
    assert scene.destination.record_ids() == [TURN, f"{TURN}:late:0", f"{TURN}:late:1"]
    late = scene.destination.observations_of(TURN)[-1]
    assert (late.get("input"), late.get("output")) == (None, None)


async def test_a_restart_finds_what_was_billed_for_a_deleted_answer_meanwhile(scene: Scene) -> None:
    async with running(scene, **LEDGER) as run:
        keys = await send_turn(scene, run)
        await run.stop()
    scene.librechat.delete("messages", *keys)
    scene.librechat.insert("transactions", transaction(messageId=ANSWER, context="memory", rawAmount=-7))
    later = scene.restart()
    async with running(later, **LEDGER) as run:
        await run.until_done()

    assert tokens(scene.destination) == [3, 7]


async def test_what_is_billed_beside_librechats_own_trace_reaches_the_trace_that_was_sent(
    scene: Scene,
) -> None:
    """The row that says which of the two traces it was is gone."""
    async with running(scene, native=NativePolicy.DUPLICATE, **LEDGER) as run:
        keys = await send_turn(scene, run, langfuseDestinationIds=["own"])
        scene.librechat.delete("messages", *keys)
        await bill(scene, run)

    assert scene.destination.observations_of(TURN) == []
    assert tokens(scene.destination, native_copy_trace_id(ANSWER)) == [3, 5_000]


async def test_who_has_deletions_followed_gets_nothing_of_a_deleted_answer_any_more(scene: Scene) -> None:
    async with running(
        scene, deletions=DeletionPolicy.DELETE, temporary=TemporaryPolicy.FULL, **LEDGER
    ) as run:
        keys = await send_turn(scene, run)
        scene.librechat.insert("transactions", transaction(messageId=ANSWER, context="subagent"))
        await asyncio.sleep(0.1)
        scene.librechat.delete("messages", *keys)
        await run.until_done()
        await bill(scene, run)

    assert scene.destination.record_ids() == []
    assert [subject for kind, subject in scene.destination.history if kind == "trace"] == [TURN]


async def test_what_another_user_was_billed_for_a_message_of_the_same_id_is_not_the_deleted_turns(
    scene: Scene,
) -> None:
    async with running(scene, **LEDGER) as run:
        keys = await send_turn(scene, run)
        scene.librechat.delete("messages", *keys)
        await bill(scene, run, user=BOB)
        await bill(scene, run, rawAmount=-6_000)

    assert tokens(scene.destination) == [3, 6_000]


async def test_only_destinations_that_have_a_turn_get_what_is_billed_after_its_deletion(
    scene: Scene, tmp_path: Path
) -> None:
    names = ("default", "team-a")
    plan = write_destinations(
        tmp_path / "destinations.toml", names, otherwise=("default",), routes={"team-a": names}
    )
    async with running(scene, destinations_file=plan, **LEDGER) as run:
        keys = await send_turn(scene, run, endpoint="openAI")
        scene.librechat.delete("messages", *keys)
        await bill(scene, run)

    assert tokens(scene.at("default")) == [3, 5_000]
    assert scene.at("team-a").record_ids() == []
