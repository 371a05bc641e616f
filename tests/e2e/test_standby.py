"""Several daemons on one state database: one is active, the others stand by, and nothing is lost or doubled between
them."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailer.demo.stage.player import play
from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.daemon import Daemon, langfuse_settings, start
from tests.e2e.databases import Databases, open_databases
from tests.e2e.expectations import Traffic, place
from tests.fakes.langfuse import FakeLangfuse, Route, hang

SETTINGS = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_LOOKUP_SECONDS": "1",
    "TAILER_REQUEST_TIMEOUT_SECONDS": "60",
}
LEASE_SECONDS = 2
AS_DELIVERED = {"TAILER_LEASE_SECONDS": "8"}
REPLACED_SECONDS = 15


def settings_of(databases: Databases, fake: FakeLangfuse) -> dict[str, str]:
    """A lease that is short, and still longer than a busy machine's pauses."""
    lease = {"TAILER_LEASE_SECONDS": str(LEASE_SECONDS)}
    return {**databases.settings, **SETTINGS, **langfuse_settings(fake.url), **lease}


def check_arrived_once(fake: FakeLangfuse, *played: Traffic) -> None:
    turns = {turn.trace_id for traffic in played for turn in traffic.turns()}
    titles = {title for traffic in played for title in traffic.titles()}
    assert set(fake.trace_ids()) == turns | titles
    assert fake.duplicates() == []
    assert fake.unresolved_parents() == []


def traffic_of(number: int) -> Traffic:
    return place("02-multi-turn", datetime.now(UTC), salt=str(number))


async def test_a_second_daemon_stands_by_and_goes_on_as_soon_as_the_first_is_asked_to_end(
    databases: Databases, tmp_path: Path
) -> None:
    """The standby is alive and ready; the hand-over takes no patience, and each turn arrives once."""
    before, after = traffic_of(1), traffic_of(2)
    async with FakeLangfuse() as fake:
        settings = {**settings_of(databases, fake), **AS_DELIVERED}
        async with start(settings, directory=tmp_path) as leader:
            await leader.wait_until_ready()
            async with start(settings, directory=tmp_path) as standby:
                await standby.wait_until_ready(state="standby")
                assert (await standby.ask("/livez"))[0] == 200
                metrics = await standby.wait_for_metrics(
                    lambda metrics: metrics.value("tailer_state", state="standby") == 1
                )
                assert metrics.value("tailer_leader") == 0
                assert (await leader.metrics()).value("tailer_leader") == 1
                await play(before.recording, databases.source, speed=None)
                await databases.wait_until_done(leader.must_run)
                assert standby.lines("stream_opened") == []

                leader.terminate()
                released = await leader.wait_for_line("lease_released")
                taken = await standby.wait_for_line("lease_taken")
                assert await leader.exit_code() == 0
                await play(after.recording, databases.source, speed=None)
                await standby.wait_until_ready()
                await databases.wait_until_done(standby.must_run)
                print(f"hand-over: {seconds_between(released, taken)} s")

        check_arrived_once(fake, before, after)
        assert taken["after_release"] is True
        # A look of the standby is every second.
        assert seconds_between(released, taken) < 3
        assert standby.lines("started")[0]["resumes_from"].startswith("the checkpoint of ")
        assert leader.errors == standby.errors == []


def seconds_between(earlier: dict[str, str], later: dict[str, str]) -> float:
    """By the time of two log lines."""
    moments = [datetime.fromisoformat(line["time"]) for line in (earlier, later)]
    return (moments[1] - moments[0]).total_seconds()


async def test_a_killed_leader_is_replaced_within_fifteen_seconds(
    databases: Databases, tmp_path: Path
) -> None:
    """With the settings as they come; what it had sent without recording it is looked up, not sent again."""
    traffic = traffic_of(1)
    async with FakeLangfuse() as fake:
        settings = {**settings_of(databases, fake), **AS_DELIVERED}
        async with start(settings, directory=tmp_path) as leader:
            await leader.wait_until_ready()
            async with start(settings, directory=tmp_path) as standby:
                await standby.wait_until_ready(state="standby")
                fake.faults.add(hang(stored=True))
                await play(traffic.recording, databases.source, speed=None)
                await fake.wait_until(lambda: is_hanging(fake), timeout_seconds=30)
                await leader.kill()
                killed = time.monotonic()
                await standby.wait_until_ready()
                seconds = time.monotonic() - killed
                fake.release()
                await databases.wait_until_done(standby.must_run)
        print(f"replaced after {seconds:.1f} s")
        assert seconds < REPLACED_SECONDS
        check_arrived_once(fake, traffic)
        assert standby.lines("lease_taken")[0]["after_release"] is False
        assert [line["verdict"] for line in standby.lines("batch_settled")] == ["found"]


def is_hanging(fake: FakeLangfuse) -> bool:
    """Whether a request of spans is held without an answer."""
    return any(
        count and route is Route.SPANS and outcome.startswith("hang")
        for (route, outcome), count in fake.requests.items()
    )


@pytest.mark.parametrize("stored", [True, False])
async def test_a_stopped_leader_that_comes_back_writes_and_sends_nothing_and_stands_by(
    *, stored: bool, databases: Databases, tmp_path: Path
) -> None:
    """SIGSTOP in the middle of a request: the next one settles the batch; the state is as that one left it."""
    before, after = traffic_of(1), traffic_of(2)
    async with FakeLangfuse() as fake:
        settings = settings_of(databases, fake)
        async with start(settings, directory=tmp_path) as stopped:
            await stopped.wait_until_ready()
            async with start(settings, directory=tmp_path) as standby:
                await standby.wait_until_ready(state="standby")
                fake.faults.add(hang(stored=stored))
                await play(before.recording, databases.source, speed=None)
                await fake.wait_until(lambda: is_hanging(fake), timeout_seconds=30)
                stopped.stop()
                await standby.wait_until_ready()
                await play(after.recording, databases.source, speed=None)
                await databases.wait_until_done(standby.must_run)
                epoch = standby.lines("lease_taken")[0]["epoch"]
                sent = len(fake.spans)
                # The answer to the request of before the stop: now it would be recorded, and the next one be sent.
                fake.release()
                stopped.resume()
                await stopped.wait_for_line("leadership_lost")
                await stopped.wait_until_ready(state="standby")
                metrics = await stopped.metrics()
                assert (metrics.value("tailer_leader"), metrics.total("tailer_stream_connected")) == (0, 0)

                assert {found.epoch for found in (await databases.positions()).values()} == {epoch}
                assert len(fake.spans) == sent
                assert await databases.pending_batches() == frozenset()
                check_arrived_once(fake, before, after)

                # It is a good standby again.
                standby.terminate()
                assert await standby.exit_code() == 0
                await stopped.wait_until_ready()
                stopped.terminate()
                assert await stopped.exit_code() == 0
        assert stopped.errors == standby.errors == []


async def test_sigterm_ends_a_standby_at_once_and_leaves_the_leader_alone(
    databases: Databases, tmp_path: Path
) -> None:
    """Nothing to drain and nothing to give up."""
    async with FakeLangfuse() as fake:
        settings = settings_of(databases, fake)
        async with start(settings, directory=tmp_path) as leader:
            await leader.wait_until_ready()
            async with start(settings, directory=tmp_path) as standby:
                await standby.wait_until_ready(state="standby")
                standby.terminate()
                assert await standby.exit_code(timeout_seconds=5) == 0
            await leader.wait_until_ready()
            assert leader.lines("leadership_lost") == standby.lines("lease_taken") == []


async def test_over_the_death_of_a_primary_and_of_the_leader_every_turn_arrives_once(tmp_path: Path) -> None:
    """Three nodes, two daemons: the election puts the lease in doubt, the death of the leader ends it."""
    played = [traffic_of(number) for number in range(6)]
    async with (
        ReplicaSet(size=3) as three_nodes,
        open_databases(three_nodes) as databases,
        FakeLangfuse(visible_after_seconds=0.2) as fake,
    ):
        settings = settings_of(databases, fake)
        async with start(settings, directory=tmp_path) as first:
            await first.wait_until_ready()
            async with start(settings, directory=tmp_path) as second:
                await second.wait_until_ready(state="standby")
                await play_all(played[:2], databases)
                primary = await three_nodes.primary()
                await primary.kill()
                await three_nodes.primary()
                await play_all(played[2:4], databases)
                await databases.wait_until_done(first.must_run, timeout_seconds=60)
                await primary.restart()
                leader, standby = (second, first) if is_leading(second) else (first, second)
                await play_all(played[4:], databases)
                await leader.kill()
                await databases.wait_until_done(standby.must_run, timeout_seconds=60)
                check_arrived_once(fake, *played)
                assert standby.errors == []


async def play_all(played: list[Traffic], databases: Databases) -> None:
    """One recording after another, as fast as they are written."""
    for traffic in played:
        await play(traffic.recording, databases.source, speed=None)


def is_leading(daemon: Daemon) -> bool:
    """Whether the daemon took the lease more often than it lost it."""
    return len(daemon.lines("lease_taken")) > len(daemon.lines("leadership_lost"))
