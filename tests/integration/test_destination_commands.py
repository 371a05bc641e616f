"""The commands beside a daemon with several destinations: each acts on the one that it was asked for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tailer.core.identity import turn_trace_id
from tailer.daemon import pipeline
from tailer.errors import RequestRefused
from tailer.flow import backfilling
from tailer.operations.backfill import Request, open_backfills
from tailer.operations.dead_letters import open_letters
from tailer.operations.reconcile import open_reconciliation
from tailer.settings import Settings
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, bad_span
from tests.integration.running import Run, running, settings_for
from tests.rows import answer, question

PATIENCE = timedelta(seconds=20)
NO_WAIT: dict[str, Any] = {"lookup_time": timedelta(), "backfill_rate": 10_000.0}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(backfilling, "_LOOK_SECONDS", 0.02)


@pytest.fixture
async def fakes() -> AsyncIterator[dict[str, FakeLangfuse]]:
    """Two projects: `default` gets everything, `team-a` what comes over its endpoint."""
    async with FakeLangfuse() as everything, FakeLangfuse() as team:
        yield {"default": everything, "team-a": team}
        assert everything.violations == team.violations == []
        assert everything.duplicates() == team.duplicates() == []


class Deployment:
    """A daemon and commands with the same file of destinations, which may change between two runs."""

    def __init__(self, databases: Databases, fakes: dict[str, FakeLangfuse], folder: Path) -> None:
        self.databases = databases
        self.fakes = fakes
        self._file = folder / "destinations.toml"

    def name(self, *names: str) -> None:
        """Write the file anew."""
        tables = [
            f'[destinations.{name}]\nkind = "langfuse"\nhost = "{self.fakes[name].url}"\n'
            f'public_key = "pk-{name}"\nsecret_key = "{self.fakes[name].secret_key}"\n'.replace(
                f"pk-{name}", self.fakes[name].public_key
            )
            for name in names
        ]
        routes = f'[[routes]]\nwhen = {{ endpoint = ["team-a"] }}\nto = {list(names)}\n'
        self._file.write_text('otherwise = ["default"]\n' + "".join(tables) + routes, encoding="utf-8")

    def settings(self) -> Settings:
        return settings_for(self.databases, None, destinations_file=self._file, **NO_WAIT)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Run]:
        async with running(self.databases, None, destinations_file=self._file, **NO_WAIT) as run:
            yield run

    async def chat(self, *numbers: int) -> None:
        """Turns; the odd ones are of team a."""
        for number in numbers:
            own = {"conversationId": f"c{number}", "endpoint": "team-a" if number % 2 else "openAI"}
            await self.databases.source["messages"].insert_many(
                [question(f"q{number}", None, **own), answer(f"a{number}", f"q{number}", **own)]
            )

    def has(self, name: str) -> set[str]:
        return set(self.fakes[name].trace_ids())


@pytest.fixture
def deployment(databases: Databases, fakes: dict[str, FakeLangfuse], tmp_path: Path) -> Deployment:
    return Deployment(databases, fakes, tmp_path)


def turns(*numbers: int) -> set[str]:
    return {turn_trace_id(f"a{number}") for number in numbers}


async def test_a_backfill_fills_the_destination_that_it_names(deployment: Deployment) -> None:
    """Its estimate counts what that one has, and its job is not that of a backfill for all."""
    deployment.name("default")
    async with deployment.running() as run:
        await deployment.chat(*range(4))
        await run.until_done()
    deployment.name("default", "team-a")
    request = Request(destination="team-a")

    async with open_backfills(deployment.settings()) as desk:
        estimates = [await desk.estimate(each) for each in (request, Request(destination="default"))]
        async with deployment.running() as run:
            job = await desk.ask(request)
            for_all = await desk.ask(Request())
            assert (await desk.ask(request)).job_id == job.job_id != for_all.job_id
            await run.until(lambda: deployment.has("team-a") == turns(1, 3))
            await run.until_done()

    assert [(each.responses, each.known) for each in estimates] == [(4, 0), (4, 4)]
    assert deployment.has("default") == turns(*range(4))


async def test_a_destination_that_nothing_names_is_refused_with_those_that_exist(
    deployment: Deployment,
) -> None:
    deployment.name("default", "team-a")
    async with open_backfills(deployment.settings()) as desk:
        with pytest.raises(RequestRefused, match="the settings name default, team-a"):
            await desk.ask(Request(destination="team-b"))
        with pytest.raises(RequestRefused, match="the settings name default, team-a"):
            await desk.estimate(Request(destination="team-b"))


async def test_a_comparison_is_with_the_project_that_it_names_and_repairs_that_one(
    deployment: Deployment,
) -> None:
    deployment.name("default", "team-a")
    async with deployment.running() as run:
        await deployment.chat(*range(4))
        await run.until_done()
        deployment.fakes["team-a"].state.spans.delete_traces([turn_trace_id("a3")])
        request = Request(since=datetime.now(UTC) - timedelta(hours=1))
        with pytest.raises(RequestRefused, match="--destination"):
            async with open_reconciliation(deployment.settings()):
                pass
        async with open_reconciliation(deployment.settings(), "team-a") as (reconciliation, now):
            found = await reconciliation.compare(request, now)
            await reconciliation.repair(found.missing)
        await run.until(lambda: deployment.has("team-a") == turns(1, 3))

    assert (found.expected, [each.message_id for each in found.missing]) == (2, ["a3"])
    assert found.left_out["not_routed"] == 2
    assert deployment.has("default") == turns(*range(4))


async def test_a_dead_letter_is_of_one_destination_and_goes_there_again(deployment: Deployment) -> None:
    deployment.name("default", "team-a")
    async with deployment.running() as run:
        for fake in deployment.fakes.values():
            fake.faults.add(bad_span("text of q1"))
        await deployment.chat(0, 1)
        await run.until_done()
        for fake in deployment.fakes.values():
            fake.faults.clear()
        async with open_letters(deployment.settings()) as desk:
            letters = await desk.list_letters()
            with pytest.raises(RequestRefused, match="--destination chooses one of default, team-a"):
                await desk.choose(["a1"])
            chosen = await desk.choose(["a1"], "team-a")
            await desk.ask(chosen)
            replayed = await desk.follow(chosen, PATIENCE)
            left = await desk.list_letters()

    assert sorted(letter.destination for letter in letters) == ["default", "team-a"]
    assert {letter.record_id for letter in letters} == turns(1)
    assert (replayed.sent, [letter.destination for letter in left]) == (1, ["default"])
    assert deployment.has("team-a") == turns(1)
    assert deployment.has("default") == turns(0)
