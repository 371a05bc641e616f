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


async def test_a_burst_after_a_quiet_time_is_looked_at_a_part_at_a_time(scene: Scene) -> None:
    """A restart looks back over an hour: nothing, and then a whole backlog that was sent within some seconds."""
    sent_at = NOW - DELAYS[-1] - timedelta(minutes=20)
    for number in range(BURST):
        turn = replace(make_sent(f"m{number}"), end_milliseconds=int(sent_at.timestamp() * 1000))
        trace_id = turn_trace_id(turn.message_id)
        record = ExportRecord(
            trace_id, turn.document_key, turn, sent_at=sent_at + timedelta(milliseconds=number)
        )
        scene.database.exports[trace_id] = record
    reader = MemoryReader(scene.librechat)
    looks = LateLooks(DEFAULT_NAME, scene.backlog, reader, scene.state, wall_clock=NOW.timestamp)

    await looks.sweep()

    assert sum(scene.state.sent_loaded) == BURST
    assert max(scene.state.sent_loaded) <= 1_000
