"""How the way to one of several destinations does without it for a while, so that the others do not wait.

What finds no room is owed. What is being sent is stored with its bytes already: after a while its entries are let go,
and the batch goes on being tried by itself. For the only destination everything waits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.flow.sending.debts import Debts
from tailer.flow.sending.outgoing import Outgoing
from tailer.flow.sending.presence import Presence
from tailer.flow.shares import Done, Shares


class Absence:
    """Of one destination."""

    def __init__(self, name: str, presence: Presence, debts: Debts, shares: Shares) -> None:
        self._name = name
        self._presence = presence
        self._debts = debts
        self._shares = shares

    @property
    def is_now(self) -> bool:
        """Whether the destination is away."""
        return self._presence.is_away

    def end(self) -> None:
        """The destination has nothing left to do."""
        self._presence.catch_up()

    async def finds_room(self, put: Callable[[], Awaitable[None]]) -> bool:
        """Wait for room, but not for longer than the others are to wait. False if there is none."""
        if self._presence.is_away:
            return False
        try:
            async with asyncio.timeout(self._presence.patience_seconds):
                await put()
        except TimeoutError:
            self._presence.fall_behind()
            return False
        return True

    async def owe(self, pieces: Sequence[Outgoing]) -> None:
        """Keep what entries give for later; their shares are done with for now."""
        await self._debts.owe([self._shares.owed(piece.key) for piece in pieces])
        for piece in pieces:
            self._shares.end(piece.key, self._name, Done(EntryOutcome.OWED))

    @asynccontextmanager
    async def bounded(self, pieces: Sequence[Outgoing], *, stored: bool) -> AsyncIterator[Sequence[Outgoing]]:
        """While a stored batch is being sent, its entries are let go if that takes too long. Gives those that are held,
        which are all of them, or none from then on. What is too large to be stored is held in any case."""
        held = list(pieces)
        patience_seconds = self._presence.patience_seconds
        if patience_seconds is None or not stored:
            yield held
            return
        waiting = asyncio.create_task(self._let_go(held, patience_seconds))
        try:
            yield held
        finally:
            waiting.cancel()
            (ended,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    async def _let_go(self, held: list[Outgoing], patience_seconds: float) -> None:
        await asyncio.sleep(patience_seconds)
        # The batch itself is stored. Only the ratings that are to be read once it has arrived are not.
        rated = [piece.key for piece in held if piece.has_feedback]
        await self._debts.owe([self._shares.owed(key, changed=("feedback",)) for key in rated])
        for piece in held:
            self._shares.end(piece.key, self._name, Done(EntryOutcome.OWED))
        held.clear()
