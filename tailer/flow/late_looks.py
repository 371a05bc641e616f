"""Looks again at the ledger of turns that were sent a while ago.

Detached sub-agents, memory and summaries are billed after the answer, and no message changes with them. The export
records say which turns were sent when, so nothing is kept in memory and a restart forgets no look. A turn with news
becomes an entry of its response; the lanes do the rest.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.stream.open_turns import EntryKey
from tailer.core.trace.late import find_late_transactions
from tailer.flow.backlog import Backlog
from tailer.flow.ports import DocumentReader
from tailer.flow.stores import ExportStore

DELAYS: Final = (timedelta(seconds=10), timedelta(minutes=2), timedelta(minutes=15))
"""When a turn is looked at again after it was sent: most late billing comes within seconds, a long sub-agent's within
minutes. Three indexed queries for each batch of turns."""
_CATCH_UP: Final = timedelta(hours=1)
"""How far back the first look of a term goes, so that after a restart or a short absence every turn still gets its last
look."""
_SLICE: Final = timedelta(seconds=5)
"""Turns of this much time are read together: a few thousand records at the highest rates."""
_TURNS: Final = 500


class LateLooks:
    """The looks of one term. `wall_clock` is in seconds since 1970, the clock of the export records."""

    def __init__(
        self,
        backlog: Backlog,
        reader: DocumentReader,
        exports: ExportStore,
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        self._backlog = backlog
        self._reader = reader
        self._exports = exports
        self._wall_clock = wall_clock
        began = self._now()
        self._looked = {delay: began - delay for delay in DELAYS}
        self._looked[DELAYS[-1]] -= _CATCH_UP

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await self.sweep()
            await asyncio.sleep(_SLICE.total_seconds())

    async def sweep(self) -> None:
        """Do every look that is due."""
        for delay in DELAYS:
            until = self._now() - delay
            while self._looked[delay] < until:
                since = self._looked[delay]
                end = min(since + _SLICE, until)
                await self._look(since, end)
                self._looked[delay] = end

    async def _look(self, since: datetime, until: datetime) -> None:
        # A turn that a backfill sent long after its end has its whole ledger.
        ended = int((since - DELAYS[-1] - _CATCH_UP).timestamp() * 1000)
        turns = await self._exports.load_sent_between(since, until, ended_milliseconds=ended)
        for begin in range(0, len(turns), _TURNS):
            some = turns[begin : begin + _TURNS]
            ledgers = await self._reader.read_ledgers(some)
            for turn in some:
                if find_late_transactions(turn, ledgers.get(turn.message_id, ())):
                    key = EntryKey(Interest.RESPONSE, turn.document_key)
                    self._backlog.reopen(key, turn.message_id, changed={LEDGER})

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_clock(), UTC)
