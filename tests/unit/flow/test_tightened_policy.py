"""What comes after a turn that was sent in full, once a later run shows less."""

from typing import Any

import pytest

from tailer.core.identity import DocumentKey, turn_trace_id
from tailer.core.policy.policies import ContentChoice, parse_content_rule
from tailer.core.trace.followup import feedback_score_id
from tests.rows import answer, question
from tests.unit.documents import tool_part
from tests.unit.flow.run import Run, running
from tests.unit.flow.scene import Scene

TURN = turn_trace_id("a1")
WORD = "xylophonquartz"


async def send(scene: Scene, run: Run) -> tuple[DocumentKey, DocumentKey]:
    """Send a turn; gives the `_id`s of its question and answer."""
    (asked,) = scene.librechat.insert("messages", question("q1", None))
    (said,) = scene.librechat.insert("messages", answer("a1", "q1"))
    await run.until_done()
    return asked, said


async def change(scene: Scene, run: Run, asked: DocumentKey, said: DocumentKey) -> None:
    """Edit both rows, rate the answer and add a tool's result to it."""
    rated = {"rating": "thumbsDown", "tag": WORD, "text": WORD}
    late = tool_part(f"lc_transfer_to_{WORD}", output=WORD)
    scene.librechat.update("messages", said, {"text": WORD, "feedback": rated, "content": [late]})
    scene.librechat.update("messages", asked, {"text": WORD})
    await run.until_done()


def shown(scene: Scene) -> str:
    """All that was sent of the turn, and in its scores."""
    return f"{scene.destination.payloads} {scene.destination.scores}"


@pytest.mark.parametrize(
    "tightened",
    [
        {"content": ContentChoice.NONE},
        {"content_rules": (parse_content_rule("user=*:none"),)},
        {"content_rules": (parse_content_rule("role=ADMIN:none"),)},
    ],
    ids=["all", "a rule on a fact of the row", "a rule on a fact that is not known then"],
)
async def test_a_turn_that_was_sent_in_full_shows_no_more_text_once_the_policy_says_so(
    scene: Scene, tightened: dict[str, Any]
) -> None:
    """Its edits are still told, and the thumb is still a score."""
    async with running(scene) as run:
        rows = await send(scene, run)
        await run.stop()
    later = scene.restart()
    async with running(later, **tightened) as run:
        await change(later, run, *rows)

    assert WORD not in shown(later)
    names = [item["name"] for item in later.destination.observations_of(TURN)]
    assert sorted(names[-3:]) == ["edit", "edit", "tool-result"]
    score = later.destination.scores[feedback_score_id(TURN)]
    assert (score.value, score.comment) == (0, None)


async def test_a_turn_shows_its_changes_as_long_as_the_policy_stays(scene: Scene) -> None:
    """Else the test before would show nothing."""
    async with running(scene) as run:
        rows = await send(scene, run)
        await run.stop()
    later = scene.restart()
    async with running(later) as run:
        await change(later, run, *rows)

    assert later.destination.scores[feedback_score_id(TURN)].comment == f"{WORD} — {WORD}"
    outputs = [item["output"] for item in later.destination.observations_of(TURN)]
    assert outputs.count(WORD) == 3
