"""Which records the looks at late billing load, and how many at once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tailer.core.identity import turn_trace_id
from tailer.core.policy.routes import DEFAULT_NAME
from tailer.flow.late_looks import DELAYS, LateLooks
from tests.memory.database import ExportRecord
from tests.memory.reader import MemoryReader
from tests.sent import make_sent
from tests.unit.flow.scene import Scene

BURST = 5_000
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def remember(scene: Scene, message_id: str, *, ended: datetime, sent_at: datetime) -> None:
    """The record of a turn that was sent."""
    turn = replace(make_sent(message_id), end_milliseconds=int(ended.timestamp() * 1000))
    trace_id = turn_trace_id(message_id)
    scene.database.exports[trace_id] = ExportRecord(trace_id, turn.document_key, turn, sent_at=sent_at)


def make_looks(scene: Scene) -> LateLooks:
    reader = MemoryReader(scene.librechat)
    return LateLooks(DEFAULT_NAME, scene.backlog, reader, scene.state, wall_clock=NOW.timestamp)


async def test_a_burst_after_a_quiet_time_is_looked_at_a_part_at_a_time(scene: Scene) -> None:
    """A restart looks back over an hour: nothing, and then a whole backlog that was sent within some seconds."""
    sent_at = NOW - DELAYS[-1] - timedelta(minutes=20)
    for number in range(BURST):
        remember(scene, f"m{number}", ended=sent_at, sent_at=sent_at + timedelta(milliseconds=number))

    await make_looks(scene).sweep()

    assert sum(scene.state.sent_loaded) == BURST
    assert max(scene.state.sent_loaded) <= 1_000


async def test_a_turn_that_an_outage_held_up_has_its_last_look_too(scene: Scene) -> None:
    """Only old turns, which a backfill sent with their whole ledger, are left out."""
    sent_at = NOW - DELAYS[-1] - timedelta(minutes=5)
    remember(scene, "held-up", ended=sent_at - timedelta(minutes=50), sent_at=sent_at)
    remember(scene, "backfilled", ended=sent_at - timedelta(hours=2), sent_at=sent_at)

    await make_looks(scene).sweep()

    assert sum(scene.state.sent_loaded) == 1
