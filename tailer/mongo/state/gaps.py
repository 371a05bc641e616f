"""`gaps`: stretches of a stream that were never read."""

from datetime import UTC, datetime

from tailer.events import StateOperation
from tailer.flow.records import Gap
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence


class Gaps:
    """A `GapStore`."""

    def __init__(self, database: StateDatabase, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def add_gap(self, gap: Gap) -> None:
        """Store a stretch of a stream that was never read. Declared again, it is the same gap."""
        marks = self._fence.names.marks
        gap_id = f"{gap.stream.value}-{gap.from_seconds}-{gap.to_seconds}"
        if marks:
            # Only the rows of this shard were missed.
            gap_id = f"{gap_id}-{self._fence.names.shard}"
        fields = {
            "stream": gap.stream.value,
            "from_seconds": gap.from_seconds,
            "to_seconds": gap.to_seconds,
            "reason": gap.reason,
            "filled": False,
            "found_at": datetime.now(UTC),
            **marks,
        }
        await self._fence.write(
            StateOperation.ADD_GAP,
            lambda transaction: transaction["gaps"].replace_one(
                {"_id": gap_id}, fields, upsert=True, session=transaction.session
            ),
        )
