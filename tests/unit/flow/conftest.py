"""Every test here runs on a loop with virtual time."""

from collections.abc import Callable, Mapping

import pytest

from tailer.daemon import gauges, outlets, wiring
from tests.memory import VirtualLoop
from tests.unit.flow.run import VirtualClocks
from tests.unit.flow.scene import Scene


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], VirtualLoop]]:
    """One loop, and its clock jumps."""
    del config, item
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def virtual_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The composition root gives every part the clock of the loop."""
    for module in (wiring, outlets, gauges):
        monkeypatch.setattr(module, "time", VirtualClocks())
    # No test here looks at gauges, and an hour has many seconds.
    monkeypatch.setattr(gauges, "BEAT_SECONDS", 60.0)


@pytest.fixture
async def scene() -> Scene:
    return Scene()
