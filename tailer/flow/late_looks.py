"""Looks again at the ledger of turns that were sent a while ago.

Detached sub-agents, memory and summaries are billed after the answer, and no message changes with them. The export
records say which turns were sent when, so nothing is kept in memory and a restart forgets no look. A turn with news
becomes an entry of its response; the lanes do the rest.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.stream.shard import WHOLE, Shard
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
_PAUSE_SECONDS: Final = 10.0
_LATER_LOOKS: Final = timedelta(seconds=30)
"""How much time a look after the first covers at least: it is not urgent, and an idle daemon asks less often."""
_SHORTEST_SLICE: Final = timedelta(seconds=0.1)
_LONGEST_SLICE: Final = timedelta(minutes=2)
_MANY: Final = 250
"""The records that one slice of time should hold: busy times are read in short slices, quiet ones in long ones."""
_MOST: Final = 1_000
"""The records that a slice may hold: thousands may follow a quiet time, and a slice with more is divided."""
_DIVISOR: Final = 4
_TURNS: Final = 100
"""Turns whose ledgers are read together: some thousand rows, a few megabytes while they are looked at."""


class LateLooks:
    """The looks of one term at what one destination has. `wall_clock` is in seconds since 1970, the clock of the export
    records."""

    def __init__(
        self,
        name: str,
        backlog: Backlog,
        reader: DocumentReader,
        exports: ExportStore,
        *,
        wall_clock: Callable[[], float],
        shard: Shard = WHOLE,
    ) -> None:
        self._shard = shard
        self._name = name
        self._backlog = backlog
        self._reader = reader
        self._exports = exports
        self._wall_clock = wall_clock
        self._slice = _SHORTEST_SLICE
        began = self._now()
        self._looked = {delay: began - delay for delay in DELAYS}
        self._looked[DELAYS[-1]] -= _CATCH_UP

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await self.sweep()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def sweep(self) -> None:
        """Do every look that is due."""
        for delay in DELAYS:
            until = self._now() - delay
            if delay is not DELAYS[0] and until - self._looked[delay] < _LATER_LOOKS:
                continue
            while self._looked[delay] < until:
                since = self._looked[delay]
                end = min(since + self._slice, until)
                found = await self._look(since, end)
                if found is None:
                    self._slice = max((end - since) / _DIVISOR, _SHORTEST_SLICE)
                    continue
                self._looked[delay] = end
                self._resize_slice(found)

    def _resize_slice(self, found: int) -> None:
        factor = 0.5 if found > _MANY else 2.0 if found < _MANY // 2 else 1.0
        self._slice = min(max(self._slice * factor, _SHORTEST_SLICE), _LONGEST_SLICE)

    async def _look(self, since: datetime, until: datetime) -> int | None:
        """Look at the turns of one slice of time; returns how many there were, None if there are too many."""
        limit = _MOST if until - since > _SHORTEST_SLICE else None
        # A turn that a backfill sent long after its end has its whole ledger.
        ended = int((since - DELAYS[-1] - _CATCH_UP).timestamp() * 1000)
        turns = await self._exports.load_sent_between(
            since, until, ended_milliseconds=ended, shard=self._shard, limit=limit
        )
        if turns is None:
            return None
        for begin in range(0, len(turns), _TURNS):
            some = turns[begin : begin + _TURNS]
            ledgers = await self._reader.read_ledgers(some, only_news=True)
            for turn in some:
                if find_late_transactions(turn, ledgers.get(turn.message_id, ())):
                    self._backlog.reopen(
                        EntryKey(Interest.RESPONSE, turn.document_key),
                        turn.message_id,
                        changed={LEDGER},
                        belongs_to=turn.session_id,
                        only=self._name,
                    )
        return len(turns)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_clock(), UTC)
