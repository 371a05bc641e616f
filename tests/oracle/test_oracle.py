"""Two tailers on three mongods while everything fails: every acknowledged turn arrives exactly once.

The seed decides which fault comes when; it is printed, and `TAILER_TEST_SEED` repeats it. `make soak` runs more rounds.
Time decides nothing: the end is reached when the stored position is behind the last write.
"""

import asyncio
import os
import random
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import langfuse_settings
from tests.e2e.databases import open_databases
from tests.oracle.schedule import make_schedule
from tests.oracle.watcher import Watcher, find_passed
from tests.oracle.world import Certificates, World, open_world
from tests.oracle.writer import Writer

ROUNDS = int(os.environ.get("TAILER_ORACLE_ROUNDS", "25"))
TURNS_A_SECOND = 15.0
PEAK_BYTES = 150_000_000
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong at the end; all of it must be empty."""

    lost: list[str]
    invented: list[str]
    duplicates: list[Any]
    violations: list[str]
    passed: list[str]
    dead_letters: int


@pytest.mark.timeout(600 + 60 * ROUNDS)
async def test_every_acknowledged_turn_arrives_once_whatever_fails(tmp_path: Path) -> None:
    """25 rounds of SIGKILL, SIGTERM and SIGSTOP of tailers, mongods and Langfuse, refusals, hangs, lost answers,
    limited reads, refused scores and renewed certificates, beside a LibreChat whose clock is minutes off."""
    seed = os.environ.get("TAILER_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"TAILER_TEST_SEED={seed} TAILER_ORACLE_ROUNDS={ROUNDS}")
    certificates = Certificates(tmp_path)
    async with (
        ReplicaSet(size=3, mongod_arguments=certificates.mongod_arguments) as replica_set,
        open_databases(replica_set) as databases,
    ):
        client: AsyncIOMotorClient[dict[str, Any]] = databases.source.client
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(""),
            # As LibreChat's own URI may say: the tailers read from the primary all the same.
            "TAILER_MONGO_URI": f"{databases.uri}&readPreference=secondaryPreferred&tls=true"
            f"&tlsCAFile={certificates.authority}",
        }
        skew = timedelta(seconds=random.Random(f"clock {seed}").choice((-600, -90, 0, 90, 600)))
        writer = Writer(client, databases.source.name, random.Random(f"turns {seed}"), TURNS_A_SECOND, skew)
        watcher = Watcher(client, databases.state.name)
        async with open_world(replica_set, certificates, settings, tmp_path) as world:
            # The first position decides what belongs to the tailer at all.
            while await databases.checkpoint("messages") is None:  # noqa: ASYNC110 - asked of MongoDB
                await asyncio.sleep(0.1)
            writing = asyncio.create_task(writer.run(), name="write")
            watching = asyncio.create_task(watcher.run(), name="watch")
            await suffer_all(world, seed)
            writer.end()
            await writing
            await databases.wait_until_done(lambda: None, timeout_seconds=END_SECONDS)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            state = await asyncio.to_thread(world.langfuse.control.state)
            arrivals = await asyncio.to_thread(world.langfuse.control.arrivals)
        peak = max(replica.peak_bytes for replica in world.replicas)
        verdict = Verdict(
            lost=sorted(writer.written.keys() - arrivals.keys()),
            invented=sorted(arrivals.keys() - writer.written.keys()),
            duplicates=state["duplicates"],
            violations=state["violations"],
            passed=find_passed(watcher.sightings, writer.written, arrivals),
            dead_letters=await databases.state["dead_letters"].count_documents({}),
        )
    exits = [dict(replica.exits) for replica in world.replicas]
    print(
        f"{len(writer.written)} turns, {writer.failures} failed writes, {len(watcher.sightings)} positions seen, "
        f"peak {peak / 1e6:.0f} MB, lives {[len(replica.lives) for replica in world.replicas]}, exits {exits}\n"
        f"{ {blow.value: count for blow, count in world.done.items()} }"
    )
    assert len(writer.written) > ROUNDS
    # On a machine that is busy with more, lives are over before they have stored many.
    assert len(watcher.sightings) > ROUNDS / 2
    assert verdict == Verdict([], [], [], [], [], 0), world.describe_logs()
    assert peak < PEAK_BYTES


async def suffer_all(world: World, seed: str) -> None:
    """One round after another; the faults of a round happen together."""
    for each in make_schedule(seed, ROUNDS):
        print(
            f"round {each.number}: {', '.join(f'{fault.blow} {fault.hold_seconds} s' for fault in each.faults)}"
        )
        async with asyncio.TaskGroup() as group:
            for fault in each.faults:
                group.create_task(world.suffer(fault), name=fault.blow.value)
        await asyncio.sleep(each.calm_seconds)
