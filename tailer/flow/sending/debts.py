"""What is owed to a destination that was away: kept in the state database, and brought back once it accepts again.

An owed share names a row and what is to be looked at, as an entry of the backlog does, so memory holds only the few
that are being brought back. The lanes do the rest: for the other destinations there is nothing to do.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from tailer.core.stream.shard import WHOLE, Shard
from tailer.events import DestinationLeft, DestinationReturned, Emit
from tailer.flow.backlog import Backlog
from tailer.flow.records import OwedShare
from tailer.flow.sending.presence import Presence
from tailer.flow.stores import OwedStore

_AT_ONCE: Final = 200
"""Shares that are brought back together."""
_LOOK_SECONDS: Final = 1.0
"""How often it is looked whether the destination has come back."""
_LONGEST_PAUSE_SECONDS: Final = 60.0


class Debts:
    """The owed shares of one destination."""

    def __init__(
        self,
        name: str,
        backlog: Backlog,
        state: OwedStore,
        presence: Presence,
        emit: Emit,
        *,
        shard: Shard = WHOLE,
    ) -> None:
        self._name = name
        self._backlog = backlog
        self._state = state
        self._presence = presence
        self._emit = emit
        self._shard = shard
        self._count = 0
        self._owing = asyncio.Event()
        self._oldest_seconds: int | None = None

    @property
    def count(self) -> int:
        """How many shares are owed."""
        return self._count

    @property
    def oldest_seconds(self) -> int | None:
        """Cluster time of the oldest share, as far as it is known; None where nothing is owed."""
        return self._oldest_seconds if self._count else None

    async def load(self) -> None:
        """Count what earlier runs left."""
        self._count = await self._state.count_owed(shard=self._shard)
        if self._count:
            oldest = await self._state.load_owed(1, shard=self._shard)
            self._oldest_seconds = oldest[0].since_seconds if oldest else None
            self._owing.set()

    async def owe(self, shares: Sequence[OwedShare]) -> None:
        """Keep shares. When this returns, their entries may be closed."""
        self._count += await self._state.owe(shares)
        if shares:
            first = min(share.since_seconds for share in shares)
            known = self._oldest_seconds
            self._oldest_seconds = first if known is None else min(first, known)
            self._owing.set()

    async def run(self) -> None:
        """Bring back what is owed whenever the destination accepts, for ever."""
        pause_seconds = _LOOK_SECONDS
        while True:
            await self._owing.wait()
            await self._wait_for_return()
            settled = await self._bring_back()
            if settled is None:
                self._owing.clear()
                continue
            # What is owed again at once is something else than an absence: it is tried ever more seldom.
            pause_seconds = _LOOK_SECONDS if settled else min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            if not settled:
                await asyncio.sleep(pause_seconds)

    async def watch(self) -> None:
        """Report once that the destination is away, and once that it accepts again, for ever."""
        was_away = False
        while True:
            is_away = self._presence.is_away
            if is_away and not was_away:
                self._emit(DestinationLeft(round(self._presence.waited_seconds, 1)))
            elif was_away and not is_away:
                self._emit(DestinationReturned(self._count))
            was_away = is_away
            await asyncio.sleep(_LOOK_SECONDS)

    async def _wait_for_return(self) -> None:
        while self._presence.is_away:  # noqa: ASYNC110 - an absence ends without a signal
            await asyncio.sleep(_LOOK_SECONDS)

    async def _bring_back(self) -> int | None:
        """Work off the oldest shares; how many are settled, None where nothing is owed."""
        shares = await self._state.load_owed(_AT_ONCE, shard=self._shard)
        if not shares:
            self._count = 0
            return None
        self._oldest_seconds = shares[0].since_seconds
        for share in shares:
            self._backlog.take_back(share, self._name)
        await self._backlog.wait_until_closed([share.key for share in shares])
        settled = await self._state.settle_owed(shares, since_seconds=self._backlog.source_seconds)
        self._count = max(0, self._count - settled)
        return settled
