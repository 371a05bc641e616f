"""What all tests share: a limit of time for each; and, where they ask for it, a real MongoDB with fresh databases."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.databases import Databases, open_databases


def pytest_addoption(parser: pytest.Parser) -> None:
    """The limits stand in pyproject.toml, a folder a line."""
    parser.addini(
        "time_limits", "Seconds that a test of a folder may take: `<folder> <seconds>`.", "linelist"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Without pytest-timeout tests run all the same, without limits."""
    config.addinivalue_line("markers", "timeout(seconds): how long a test may take, its fixtures included")


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Give every test the limit of its folder, unless it or the command line names another one."""
    if config.getoption("timeout", None) is not None:
        return
    limits = {config.rootpath / folder: float(seconds) for folder, seconds in _read_limits(config)}
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_find_limit(item.path, limits)))


def _read_limits(config: pytest.Config) -> list[tuple[str, str]]:
    lines: list[str] = config.getini("time_limits")
    return [(folder, seconds) for folder, _, seconds in (line.partition(" ") for line in lines)]


def _find_limit(path: Path, limits: dict[Path, float]) -> float:
    """The limit of the folder; a folder without one is a mistake in pyproject.toml."""
    found = [limits[folder] for folder in path.parents if folder in limits]
    if not found:
        raise pytest.UsageError(f"pyproject.toml: time_limits names no folder of {path}")
    return found[0]


@pytest.fixture(scope="session")
def replica_set() -> Iterator[ReplicaSet]:
    """A replica set of one node."""
    with ReplicaSet() as running:
        yield running


@pytest.fixture
async def databases(replica_set: ReplicaSet) -> AsyncIterator[Databases]:
    """LibreChat's database and the tailer's, both empty, both dropped after the test."""
    async with open_databases(replica_set) as pair:
        yield pair
