"""The daemon is killed again and again while LibreChat goes on and Langfuse misbehaves; nothing is lost or doubled.

The seed decides what is played, when the daemon dies and how Langfuse fails. Time decides nothing: at the end the
stored checkpoints say that everything was seen through. `TAILER_TEST_SEED` repeats a run.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tailer.demo.stage.player import play
from tailer.demo.stage.recording import RecordedEvent
from tests.e2e.daemon import Daemon, langfuse_settings, start
from tests.e2e.databases import Databases
from tests.e2e.expectations import TITLE, TURN, Traffic, place, sent_spans
from tests.fakes.langfuse import FakeLangfuse, Fault, Route, answer, cut, delay, hang, reset

ROUNDS = 22
NAMES = (
    "01-single-turn",
    "02-multi-turn",
    "03-regenerate",
    "04-edit-resubmit",
    "06-abort",
    "07-errors",
    "09-agent-tools",
    "16-reasoning",
    "20-kill-midstream",
)
SETTINGS = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_PARK_SECONDS": "1",
    "TAILER_LOOKUP_SECONDS": "1",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_REQUEST_TIMEOUT_SECONDS": "1",
    # Small batches: more requests, and so more moments to die in.
    "TAILER_BATCH_TRACES": "4",
}
LONGEST_LIFE_SECONDS = 4.0
"""A daemon that the moment of its death does not find is killed after so long."""


@dataclass(slots=True)
class Scene:
    """One run of the test: the seed's dice, the two ends, and what was played so far."""

    dice: random.Random
    databases: Databases
    fake: FakeLangfuse
    played: list[Traffic] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    _writes: int = 0
    _written: asyncio.Event = field(default_factory=asyncio.Event)

    async def play_round(self, number: int) -> None:
        """Play one or two recordings under ids of their own, faster than they were recorded."""
        names = self.dice.sample(NAMES, k=self.dice.choice((1, 1, 2)))
        now = datetime.now(UTC)
        traffic = [place(name, now, salt=f"round {number}") for name in names]
        self.played += traffic
        await play(
            [each.recording for each in traffic],
            self.databases.source,
            speed=20,
            max_gap=timedelta(seconds=1),
            on_applied=self._count,
        )

    def misbehave(self) -> None:
        """Put a few ways to fail in force, for a few requests each."""
        possible: list[Callable[[], Fault]] = [
            lambda: hang(stored=True),
            lambda: hang(stored=False),
            lambda: cut(stored=True),
            lambda: cut(stored=False),
            lambda: reset(stored=True),
            lambda: answer(500, times=self.dice.randint(1, 3)),
            lambda: answer(502, stored=True),
            lambda: answer(429, retry_after="0"),
            lambda: delay(0.3, times=2),
            lambda: cut(stored=False, route=Route.OBSERVATIONS),
            lambda: answer(500, route=Route.OBSERVATIONS),
        ]
        self.fake.faults.clear()
        self.fake.faults.add(*(make() for make in self.dice.sample(possible, k=self.dice.randint(0, 3))))

    async def wait_for_death(self, daemon: Daemon) -> None:
        """Return at the moment that the dice chose, seen from the outside or just some time after the start."""
        kind = self.dice.choice(("write", "request", "request", "batch", "batch", "instant", "ready"))
        count, instant = self.dice.randint(1, 40), self.dice.uniform(0, 3)
        # What earlier lives left on its way is no sign of this one.
        known = await self.databases.pending_batches()
        moments: dict[str, Callable[[], Awaitable[object]]] = {
            "write": lambda: self._wait_for_writes(count),
            "request": lambda: self._wait_for_requests(1 + count % 3),
            "batch": lambda: self._wait_for_batch(known),
            "instant": lambda: asyncio.sleep(instant),
            "ready": daemon.wait_until_ready,
        }
        try:
            async with asyncio.timeout(LONGEST_LIFE_SECONDS):
                await moments[kind]()
        except TimeoutError:
            kind = "old age"
        self.deaths[kind] += 1

    def _count(self, _event: RecordedEvent) -> None:
        self._writes += 1
        self._written.set()

    async def _wait_for_writes(self, count: int) -> None:
        target = self._writes + count
        while self._writes < target:
            self._written.clear()
            await self._written.wait()

    async def _wait_for_requests(self, count: int) -> None:
        target = self._span_requests() + count
        await self.fake.wait_until(
            lambda: self._span_requests() >= target, timeout_seconds=LONGEST_LIFE_SECONDS
        )

    def _span_requests(self) -> int:
        return sum(count for (route, _), count in self.fake.requests.items() if route is Route.SPANS)

    async def _wait_for_batch(self, known: frozenset[str]) -> None:
        while await self.databases.pending_batches() <= known:  # noqa: ASYNC110 - asked of MongoDB
            await asyncio.sleep(0.01)


async def test_killed_at_any_moment_every_turn_still_arrives_exactly_once(
    databases: Databases, tmp_path: Path
) -> None:
    """22 lives and deaths by SIGKILL, lost answers, errors; then one daemon drains what is left."""
    seed = os.environ.get("TAILER_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
    # Shown by pytest when the test fails.
    print(f"TAILER_TEST_SEED={seed}")
    async with FakeLangfuse(visible_after_seconds=0.2) as fake:
        scene = Scene(random.Random(seed), databases, fake)
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
        for number in range(ROUNDS):
            scene.misbehave()
            playing = asyncio.create_task(scene.play_round(number))
            async with start(settings, directory=tmp_path) as daemon:
                await scene.wait_for_death(daemon)
                await daemon.kill()
            await playing

        fake.faults.clear()
        fake.release()
        async with start(settings, directory=tmp_path) as daemon:
            await databases.wait_until_done(daemon.must_run)
            daemon.terminate()
            assert await daemon.exit_code() == 0
        print(f"deaths: {dict(scene.deaths)}, requests: {dict(fake.requests)}")
        assert fake.requests[Route.PROJECTS, "200"] > ROUNDS / 2, "most daemons died before they had begun"

        check_everything_arrived_once(fake, scene.played)
        assert await databases.state["dead_letters"].count_documents({}) == 0


def check_everything_arrived_once(fake: FakeLangfuse, played: list[Traffic]) -> None:
    """Exactly the expected traces, each of them whole, and no span of them twice."""
    assert fake.duplicates() == []
    assert fake.unresolved_parents() == []
    assert [str(violation) for violation in fake.violations] == []
    arrived = {trace_id: sent_spans(fake.trace(trace_id)) for trace_id in fake.trace_ids()}
    turns = {turn.trace_id: turn for traffic in played for turn in traffic.turns()}
    titles = {trace_id: tokens for traffic in played for trace_id, tokens in traffic.titles().items()}

    assert {trace.trace_id for trace in arrived.values() if trace.name == TURN} == turns.keys()
    assert {trace.trace_id for trace in arrived.values() if trace.name == TITLE} == titles.keys()
    assert len(arrived) == len(turns) + len(titles)
    for turn in turns.values():
        sent = arrived[turn.trace_id]
        assert (sent.root.input, sent.root.output) == (turn.question, turn.answer)
        assert len(sent.of("tool")) == len(turn.tools)
        assert turn.tokens is None or sent.tokens == turn.tokens
