"""Three destinations while one is down, one refuses its keys and the tailer is killed: each gets its own turns, once.

`default` is a project of a Langfuse and gets everything; `team-a` another one, which gets what comes over its endpoint;
`collector` takes OTLP, gets everything, and is shown no content. OTLP has no look-up, so what was sent twice to the
collector is counted, and nothing more is asked of it. The seed decides what happens when; `TAILER_TEST_SEED` repeats
it, and `make soak-destinations` runs more rounds.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import PUBLIC_KEY, SECRET_KEY
from tests.e2e.databases import Databases, open_databases
from tests.fakes.langfuse import cut, hang
from tests.fakes.otlp import FakeReceiver, Reply
from tests.oracle.world import Langfuse, Replica
from tests.oracle.writer import Writer, WrittenTurn

ROUNDS = int(os.environ.get("TAILER_ORACLE_ROUNDS", "3"))
TURNS_A_SECOND = 8.0
PEAK_BYTES = 150_000_000
RIGHT, WRONG = "Bearer right", "Bearer another"
SETTINGS = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_PARK_SECONDS": "1",
    "TAILER_LOOKUP_SECONDS": "1",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_REQUEST_TIMEOUT_SECONDS": "1",
    "TAILER_BATCH_TRACES": "8",
    "TAILER_LEASE_SECONDS": "1",
}
END_SECONDS = 120.0


@dataclass(slots=True)
class Stage:
    """The destinations and the tailer, and what was done to them."""

    langfuse: Langfuse
    team: Langfuse
    collector: FakeReceiver
    tailer: Replica
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)

    async def suffer_round(self) -> None:
        """One destination is down, another refuses its keys, or answers get lost, while the tailer is killed."""
        async with asyncio.TaskGroup() as group:
            for fault in self.dice.sample((self._end_team, self._refuse_keys, self._lose_answers), k=2):
                group.create_task(fault())
            group.create_task(self._kill_tailer())

    async def _end_team(self) -> None:
        self.done["team-a down"] += 1
        await self.team.kill()
        await asyncio.sleep(self.dice.uniform(8, 20))
        await self.team.start()

    async def _refuse_keys(self) -> None:
        self.done["keys refused"] += 1
        self.collector.keys = {"authorization": WRONG}
        await asyncio.sleep(self.dice.uniform(8, 20))
        self.collector.keys = {"authorization": RIGHT}

    async def _lose_answers(self) -> None:
        for _ in range(4):
            self.done["answers lost"] += 1
            self.collector.replies.append(Reply(taken=True, cut=True))
            with suppress(OSError):
                await self.langfuse.misbehave(hang(stored=True, times=2), cut(stored=True, times=1))
            await asyncio.sleep(self.dice.uniform(2, 4))
        with suppress(OSError):
            await self.langfuse.behave()

    async def _kill_tailer(self) -> None:
        for _ in range(self.dice.randint(2, 4)):
            await asyncio.sleep(self.dice.uniform(1, 9))
            self.done["tailer killed"] += self.tailer.send(signal.SIGKILL)


@asynccontextmanager
async def open_stage(databases: Databases, directory: Path, seed: str) -> AsyncIterator[Stage]:
    """Everything at work."""
    langfuse, team = Langfuse(directory / "langfuse"), Langfuse(directory / "team-a")
    for each in (langfuse, team):
        each.directory.mkdir()
        await each.start()
    async with FakeReceiver(keys={"authorization": RIGHT}) as collector:
        path = directory / "destinations.toml"
        path.write_text(describe(langfuse.url, team.url, collector.url))
        settings = {**databases.settings, **SETTINGS, "TAILER_DESTINATIONS": str(path)}
        tailer = Replica("tailer", settings, directory)
        stage = Stage(langfuse, team, collector, tailer, random.Random(f"faults {seed}"))
        running = asyncio.create_task(tailer.run(), name="tailer")
        try:
            yield stage
        finally:
            running.cancel()
            (ended,) = await asyncio.gather(running, return_exceptions=True)
            for each in (langfuse, team):
                if each.process is not None and each.process.returncode is None:
                    await each.kill()
        if isinstance(ended, Exception):
            raise ended


def describe(langfuse: str, team: str, collector: str) -> str:
    """The file of destinations."""
    keys = f'public_key = "{PUBLIC_KEY}"\nsecret_key = "{SECRET_KEY}"'
    return f"""
otherwise = ["default", "collector"]

[destinations.default]
kind = "langfuse"
host = "{langfuse}"
{keys}

[destinations.team-a]
kind = "langfuse"
host = "{team}"
{keys}

[destinations.collector]
kind = "otlp"
endpoint = "{collector}"
headers = {{ authorization = "{RIGHT}" }}
content = "none"

[[routes]]
when = {{ endpoint = ["team-a"] }}
to = ["default", "team-a", "collector"]
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with one destination at the end; all of it must be empty."""

    lost: list[str]
    of_others: list[str]
    duplicates: list[Any]
    violations: list[str]


async def judge(langfuse: Langfuse, expected: Mapping[str, WrittenTurn]) -> Verdict:
    """Compare what a Langfuse has with what it is to have."""
    state = await asyncio.to_thread(langfuse.control.state)
    arrivals = await asyncio.to_thread(langfuse.control.arrivals)
    return Verdict(
        sorted(expected.keys() - arrivals.keys()),
        sorted(arrivals.keys() - expected.keys()),
        state["duplicates"],
        state["violations"],
    )


async def until_nothing_is_owed(databases: Databases) -> None:
    """Return once no batch is on its way and nothing is owed, for a while."""
    calm = 0
    async with asyncio.timeout(END_SECONDS):
        while calm < 20:
            owed = await databases.state["owed"].count_documents({})
            calm = 0 if owed or await databases.pending_batches() else calm + 1
            await asyncio.sleep(0.1)


@pytest.mark.timeout(600 + 90 * ROUNDS)
async def test_each_destination_gets_its_own_turns_once_whatever_fails(tmp_path: Path) -> None:
    """None gets another's; the text that is withheld from one is nowhere in its bytes."""
    seed = os.environ.get("TAILER_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"TAILER_TEST_SEED={seed} TAILER_ORACLE_ROUNDS={ROUNDS}")
    async with ReplicaSet() as replica_set, open_databases(replica_set) as databases:
        client: AsyncIOMotorClient[dict[str, Any]] = databases.source.client
        writer = Writer(
            client,
            databases.source.name,
            random.Random(f"turns {seed}"),
            TURNS_A_SECOND,
            endpoints=("openAI", "team-a"),
        )
        async with open_stage(databases, tmp_path, seed) as stage:
            while await databases.checkpoint("messages") is None:  # noqa: ASYNC110 - asked of MongoDB
                await asyncio.sleep(0.1)
            writing = asyncio.create_task(writer.run(), name="write")
            for _ in range(ROUNDS):
                await stage.suffer_round()
                await asyncio.sleep(stage.dice.uniform(0.5, 4))
            writer.end()
            await writing
            try:
                await databases.wait_until_done(lambda: None, timeout_seconds=END_SECONDS)
                await until_nothing_is_owed(databases)
            except TimeoutError as late:
                raise TimeoutError(stage.tailer.lives[-1].output[-20_000:]) from late
            written = writer.written
            of_team = {key: turn for key, turn in written.items() if turn.endpoint == "team-a"}
            verdicts = {
                "default": await judge(stage.langfuse, written),
                "team-a": await judge(stage.team, of_team),
            }
            spans = Counter((span.trace_id, span.span_id) for span in stage.collector.spans)
            bodies = [body for _, _, body in stage.collector.requests]
            said = stage.tailer.lives[-1].output[-20_000:]
            letters = await databases.state["dead_letters"].count_documents({})
    doubles = sum(times - 1 for times in spans.values())
    print(
        f"{len(written)} turns, {len(of_team)} of team-a; {len(stage.tailer.lives)} lives, peak "
        f"{stage.tailer.peak_bytes / 1e6:.0f} MB; the collector took {doubles} of {spans.total()} spans twice\n"
        f"{dict(stage.done)}"
    )
    nothing_wrong = Verdict([], [], [], [])
    assert verdicts == {"default": nothing_wrong, "team-a": nothing_wrong}, said
    assert {trace_id for trace_id, _ in spans} == written.keys(), f"{letters} dead letters\n{said}"
    assert stage.collector.violations == []
    texts = [text.encode() for turn in written.values() for text in (turn.question, turn.answer)]
    assert not any(text in body for body in bodies for text in texts)
    assert letters == 0
    assert stage.tailer.peak_bytes < PEAK_BYTES
