"""The frame of all lanes: they take what is due for their kinds of work, round by round.

An item that breaks the code becomes a dead letter of its own. An error about a server or a setting is a TailerError and
ends the daemon; every other error is a fault of the code on a row.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from tailer.core.stream.entries import Entry
from tailer.core.stream.hints import Interest
from tailer.errors import TailerError
from tailer.flow.lanes.round import Round, Share, Workbench

ROUND_ENTRIES = 256
"""Entries that one round reads back together: few enough queries a turn, few enough rows in memory."""


class _Unsettled(Exception):
    """A lane has forgotten a share, which would hold the position for ever."""


class Lane(ABC):
    """One kind of work, done by one task."""

    name: ClassVar[str]
    works: ClassVar[tuple[Interest, ...]]
    round_entries: ClassVar[int] = ROUND_ENTRIES

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def run(self, gather_seconds: float) -> None:
        """Work on what is due, for ever, with at least this long between rounds."""
        while True:
            entries = await self._bench.backlog.take_due(
                self.works, limit=self.round_entries, gather_seconds=gather_seconds
            )
            await self.work_off(entries)

    async def work_off(self, entries: Sequence[Entry]) -> None:
        """One round, for every destination."""
        shares, destinations = self._bench.shares, self._bench.destinations
        await self._work_off(
            [Share(entry, destinations[name]) for entry in entries for name in shares.begin(entry)]
        )

    async def _work_off(self, shares: Sequence[Share]) -> None:
        """If something breaks a round, halving finds the share: it is buried alone, and the others continue."""
        work = Round(self._bench, shares)
        try:
            await self._settle(work)
        except TailerError:
            raise
        except Exception as error:
            work.let_go()
            left = work.shares
            if not left:
                raise
            if len(shares) == 1:
                await work.bury(left[0], type(error).__name__)
                return
            for part in _divide(left):
                await self._work_off(part)

    async def _settle(self, work: Round) -> None:
        await self._work(work)
        if work.shares:
            raise _Unsettled

    @abstractmethod
    async def _work(self, work: Round) -> None:
        """Settle every share of a round."""


def _divide(shares: Sequence[Share]) -> Iterator[Sequence[Share]]:
    """Two halves, by entry; the shares of a single entry, each by itself."""
    keys = list(dict.fromkeys(share.entry.key for share in shares))
    if len(keys) == 1:
        yield from ([share] for share in shares)
        return
    first = frozenset(keys[: (len(keys) + 1) // 2])
    yield [share for share in shares if share.entry.key in first]
    yield [share for share in shares if share.entry.key not in first]
