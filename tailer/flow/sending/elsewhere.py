"""What other shards have on its way. After the number of shards was changed, a batch of before may hold turns of
several shards: one settles it, and the others leave those turns alone until it has."""

import asyncio
from typing import Final

from tailer.flow.in_flight import InFlight
from tailer.flow.stores import BatchStore

_LOOK_SECONDS: Final = 1.0


class Elsewhere:
    """Holds the traces of such batches. What another shard begins later is of its own conversations, unless it is a
    part of one of these batches."""

    def __init__(self, state: BatchStore, in_flight: InFlight) -> None:
        self._state = state
        self._in_flight = in_flight
        self._held: set[str] = set()

    async def hold(self) -> None:
        """Let everything that is on its way elsewhere count as on its way here."""
        found = await self._state.pending_elsewhere()
        for record_id, key in found.items():
            self._in_flight.hold(record_id, key)
        self._held = set(found)

    async def run(self) -> None:
        """Let go of what was settled; never returns."""
        while self._held:
            await asyncio.sleep(_LOOK_SECONDS)
            settled = self._held - (await self._state.pending_elsewhere()).keys()
            self._in_flight.release(settled)
            self._held -= settled
        await asyncio.Event().wait()
