"""Several shards on one state database: each has its own lease and standby, and their number can be changed."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from tailer.core.stream.shard import Shard
from tailer.mongo.state.names import names_of
from tailer.mongo.state.positions import find_positions
from tests.e2e.daemon import langfuse_settings, start
from tests.e2e.databases import STREAMS, Databases, token_time
from tests.fakes.langfuse import FakeLangfuse, cut, hang
from tests.oracle.world import Replica
from tests.oracle.writer import Writer

SETTINGS = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_PARK_SECONDS": "1",
    "TAILER_LOOKUP_SECONDS": "1",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_REQUEST_TIMEOUT_SECONDS": "1",
    "TAILER_BATCH_TRACES": "8",
    "TAILER_LEASE_SECONDS": "1",
}


def settings_of(databases: Databases, fake: FakeLangfuse, shard: Shard) -> dict[str, str]:
    sharding = {"TAILER_SHARD": str(shard.index), "TAILER_TOTAL_SHARDS": str(shard.total)}
    return {**databases.settings, **SETTINGS, **langfuse_settings(fake.url), **sharding}


@dataclass(slots=True)
class Fleet:
    """One instance of each shard, each started again whenever it ends."""

    databases: Databases
    fake: FakeLangfuse
    directory: Path
    replicas: list[Replica] = field(default_factory=list)
    tasks: "list[asyncio.Task[None]]" = field(default_factory=list)

    def begin(self, total: int) -> None:
        for shard in Shard(0, total).all():
            replica = Replica(str(shard), settings_of(self.databases, self.fake, shard), self.directory)
            self.replicas.append(replica)
            self.tasks.append(asyncio.create_task(replica.run(), name=str(shard)))

    async def end(self) -> None:
        """SIGKILL of all, and no other start."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.replicas.clear()
        self.tasks.clear()

    async def end_in_order(self) -> None:
        """SIGTERM of all; those that start again meanwhile are killed."""
        living = [replica.daemon for replica in self.replicas if replica.send(signal.SIGTERM)]
        for daemon in living:
            assert daemon is not None
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await daemon.process.wait()
        await self.end()

    def describe(self) -> str:
        return "\n".join(
            f"{replica.name} {number}: {line}"
            for replica in self.replicas
            for number, daemon in enumerate(replica.lives, start=1)
            for line in daemon.output.splitlines()
        )


async def until_done(databases: Databases, total: int, *, timeout_seconds: float = 60) -> None:
    """Return once every shard has seen through everything written so far."""
    written = await databases.last_write()
    seen: object = None
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                batches = await databases.pending_batches()
                found = [await find_positions(databases.state, names_of(s)) for s in Shard(0, total).all()]
                seen = [
                    {stream.value: stored.position for stream, stored in positions.items()}
                    for positions in found
                ]
                tokens = [stored.position.token for positions in found for stored in positions.values()]
                all_there = all(len(positions) == len(STREAMS) for positions in found)
                if not batches and all_there and all(each and token_time(each) >= written for each in tokens):
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise TimeoutError(f"not done after the last write at {written}: {seen}") from None


@asynccontextmanager
async def writing(databases: Databases, seed: str, turns_a_second: float) -> AsyncIterator[Writer]:
    client: AsyncIOMotorClient[dict[str, Any]] = databases.source.client
    writer = Writer(client, databases.source.name, random.Random(f"turns {seed}"), turns_a_second)
    task = asyncio.create_task(writer.run(), name="write")
    yield writer
    writer.end()
    await task


async def test_shards_share_the_turns_and_each_arrives_once(databases: Databases, tmp_path: Path) -> None:
    """Both send some; what was written before the second one ever ran arrives too."""
    async with FakeLangfuse() as fake:
        first, second = (settings_of(databases, fake, shard) for shard in Shard(0, 2).all())
        async with start(first, directory=tmp_path) as one:
            await one.wait_until_ready()
            async with writing(databases, "share", 20) as writer:
                await asyncio.sleep(3)
            async with start(second, directory=tmp_path) as other:
                await other.wait_until_ready()
                await until_done(databases, 2)
                sent = [(await each.metrics()).total("tailer_export_traces_total") for each in (one, other)]

        assert set(fake.trace_ids()) == set(writer.written)
        assert fake.duplicates() == []
        assert all(count > 0 for count in sent)
        assert sum(sent) >= len(writer.written)


async def test_an_instance_with_another_number_of_shards_stands_by(
    databases: Databases, tmp_path: Path
) -> None:
    """As long as one with the old number is active; then it divides the state and goes on."""
    async with FakeLangfuse() as fake:
        whole, half = settings_of(databases, fake, Shard()), settings_of(databases, fake, Shard(1, 2))
        async with start(whole, directory=tmp_path) as old:
            await old.wait_until_ready()
            async with start(half, directory=tmp_path) as new:
                awaited = await new.wait_for_line("layout_awaited")
                await new.wait_until_ready(state="standby")
                assert (awaited["shards_in_force"], awaited["own_shards"]) == (1, 2)
                assert old.process.returncode is None
                old.terminate()
                assert await old.exit_code() == 0
                await new.wait_for_line("layout_changed")
                await new.wait_until_ready()
            async with start(whole, directory=tmp_path) as back:
                await back.wait_until_ready()
                assert (await databases.state["lease"].find_one({"_id": "layout"}) or {})["total"] == 1


async def test_a_standby_of_an_old_division_that_was_asleep_changes_nothing(
    databases: Databases, tmp_path: Path
) -> None:
    """It takes the lease that it waited for, sees that the state is divided anew, and gives it back."""
    async with FakeLangfuse() as fake:
        whole, halves = settings_of(databases, fake, Shard()), Shard(0, 2).all()
        async with start(whole, directory=tmp_path) as old, AsyncExitStack() as stack:
            await old.wait_until_ready()
            asleep = await stack.enter_async_context(start(whole, directory=tmp_path))
            await asleep.wait_until_ready(state="standby")
            asleep.stop()
            old.terminate()
            await old.exit_code()
            async with (
                start(settings_of(databases, fake, halves[0]), directory=tmp_path) as first,
                start(settings_of(databases, fake, halves[1]), directory=tmp_path) as second,
            ):
                await asyncio.gather(first.wait_until_ready(), second.wait_until_ready())
                asleep.resume()
                awaited = await asleep.wait_for_line("layout_awaited")
                await asleep.wait_until_ready(state="standby")
                async with writing(databases, "asleep", 20) as writer:
                    await asyncio.sleep(1)
                await until_done(databases, 2)
                assert awaited["shards_in_force"] == 2
                assert asleep.lines("started") == []
                first.must_run()
                second.must_run()
        assert set(fake.trace_ids()) == set(writer.written)
        assert fake.duplicates() == []


@pytest.mark.timeout(400)
async def test_the_number_of_shards_is_changed_under_way_and_nothing_is_lost_or_doubled(
    databases: Databases, tmp_path: Path
) -> None:
    """1, 2, 4, 1, 3 and 2 shards, with writers at work, instances killed, and answers of Langfuse lost."""
    seed = os.environ.get("TAILER_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"TAILER_TEST_SEED={seed}")
    dice = random.Random(seed)
    totals = (1, 2, 4, 1, 3, 2)
    async with FakeLangfuse(visible_after_seconds=0.2) as fake:
        fleet = Fleet(databases, fake, tmp_path)
        fleet.begin(totals[0])
        while await databases.checkpoint("messages") is None:  # noqa: ASYNC110 - asked of MongoDB
            await asyncio.sleep(0.1)
        try:
            async with writing(databases, seed, 12) as writer:
                for total, following in zip(totals, (*totals[1:], 0), strict=True):
                    await asyncio.sleep(dice.uniform(3, 5) + total)
                    dice.choice(fleet.replicas).send(signal.SIGKILL)
                    await asyncio.sleep(dice.uniform(0, 2))
                    fake.faults.add(hang(stored=True, times=2), cut(stored=dice.random() < 0.5, times=2))
                    await asyncio.sleep(dice.uniform(0, 1))
                    if not following:
                        break
                    await (fleet.end() if dice.random() < 0.7 else fleet.end_in_order())
                    # Of the next layout one instance comes first, and may die before the others are there.
                    fleet.begin(following)
                    await asyncio.sleep(dice.uniform(0, 3))
                    dice.choice(fleet.replicas).send(signal.SIGKILL)
            fake.faults.clear()
            fake.release()
            await until_done(databases, totals[-1])
        except BaseException:
            print(fleet.describe())
            raise
        finally:
            await fleet.end()
        assert len(writer.written) > 100
        assert sorted(writer.written.keys() - set(fake.trace_ids())) == []
        assert sorted(set(fake.trace_ids()) - writer.written.keys()) == []
        assert fake.duplicates() == []
        assert await databases.state["dead_letters"].count_documents({}) == 0
