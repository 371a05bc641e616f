"""What the tests on a real MongoDB share: one server for the session, a fresh pair of databases for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tailer.demo.stage.replica_set import ReplicaSet
from tests.e2e.databases import Databases, open_databases


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
