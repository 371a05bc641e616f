"""Makes instances of one division of the work wait for those of another, and changes the division when all are gone.

Changing the number of shards needs no other step than to start instances with the new number: as long as one with the
old number is active, they stand by. The first that finds none any more moves the state to the new shards.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from tailer.core.layout import Layout
from tailer.core.lease import LeaseRecord, LeaseRhythm, Vigil
from tailer.events import Emit, LayoutAwaited, LayoutChanged
from tailer.flow.stores import LeaseStore

_Lease = TypeVar("_Lease", bound=LeaseStore)


class LayoutStore(Protocol[_Lease]):
    """Where the division is kept."""

    async def read(self) -> Layout:
        """The division in force."""
        ...

    def leases(self, layout: Layout) -> Sequence[_Lease]:
        """The lease of every shard of a division."""
        ...

    async def begin(self, layout: Layout, seconds: int) -> None:
        """Store where shards without a position begin, unless another instance has done so."""
        ...

    async def change(
        self, old: Layout, seen: Sequence[LeaseRecord | None], leases: Sequence[_Lease], new: Layout
    ) -> bool:
        """Take the leases of the old division if they are still as they were seen, and put the new one in force; False
        if another instance was faster."""
        ...


class Agreement(Generic[_Lease]):
    """This process's part in the division of the work. `own` is the division of its settings, with the time from which
    shards begin where the state is new; `clock` must keep running while the process is suspended."""

    def __init__(
        self,
        store: LayoutStore[_Lease],
        own: Layout,
        rhythm: LeaseRhythm,
        emit: Emit,
        *,
        clock: Callable[[], float],
        on_look: Callable[[], None],
    ) -> None:
        self._store: LayoutStore[_Lease] = store
        self._own = own
        self._rhythm = rhythm
        self._emit = emit
        self._clock = clock
        self._on_look = on_look

    async def is_reached(self) -> bool:
        """Whether the division of the settings is in force now."""
        return (await self._store.read()).total == self._own.total

    async def reach(self) -> Layout:
        """Return once the division of the settings is in force."""
        watched: Layout | None = None
        leases: Sequence[_Lease] = ()
        vigils: list[Vigil] = []
        while True:
            layout = await self._store.read()
            if layout.total == self._own.total:
                return await self._begin(layout)
            if layout != watched:
                watched, leases = layout, self._store.leases(layout)
                vigils = [Vigil(lease.holder) for lease in leases]
                announced = False
            asked = self._clock()
            records = [await lease.read() for lease in leases]
            answered = self._clock()
            silent = [
                vigil.may_take(record, asked=asked, answered=answered)
                for vigil, record in zip(vigils, records, strict=True)
            ]
            if all(silent):
                if await self._store.change(layout, records, leases, self._own):
                    self._emit(LayoutChanged(layout.total, self._own.total))
                continue
            self._on_look()
            if not announced:
                announced = True
                holder = next(record for record, over in zip(records, silent, strict=True) if not over)
                self._emit(
                    LayoutAwaited(layout.total, self._own.total, "" if holder is None else holder.host)
                )
            await asyncio.sleep(self._rhythm.poll_seconds)

    async def _begin(self, layout: Layout) -> Layout:
        if layout.total == 1 or layout.began_seconds is not None or self._own.began_seconds is None:
            return layout
        await self._store.begin(layout, self._own.began_seconds)
        return await self._store.read()
