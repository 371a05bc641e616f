"""Turns that are masked: what else is to be done comes in between two of them."""

import asyncio

import pytest

from tailer.core.masking.masker import Masker
from tailer.core.policy.policies import ContentChoice
from tests.rows import answer, question
from tests.unit.flow.run import running
from tests.unit.flow.scene import Scene


async def test_between_two_turns_that_are_masked_others_have_their_turn(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take a second or two, and probes and the lease do not wait for all that were read together."""
    order: list[str] = []

    class NotingMasker(Masker):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            order.append("turn")
            asyncio.get_running_loop().call_soon(order.append, "others")

    monkeypatch.setattr("tailer.daemon.options.Masker", NotingMasker)
    async with running(scene, content=ContentChoice.MASKED) as run:
        rows = [
            row
            for number in range(4)
            for row in (question(f"q{number}", None), answer(f"a{number}", f"q{number}"))
        ]
        scene.librechat.insert("messages", *rows)
        await run.until_done()

    assert order == ["turn", "others"] * 4
