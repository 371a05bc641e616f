"""What several of these tests share."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.langfuse import FakeLangfuse


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    """A stand-in that at the end was sent nothing against the rules, and nothing twice."""
    async with FakeLangfuse() as server:
        yield server
        assert server.violations == []
        assert server.duplicates() == []
