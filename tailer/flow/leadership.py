"""Makes one instance the active one, by the lease: waits for the lease, keeps it, gives it up. The others stand by."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from tailer.core.lease import LeaseRhythm, Vigil
from tailer.errors import LeaseLost
from tailer.events import Emit, LeaseDoubted, LeaseReleased, LeaseTaken, StandingBy
from tailer.flow.stores import LeaseStore


class Leadership:
    """The lease in one epoch, while it is held. `asked` is when the lease was last asked for, by `clock`, which must
    keep running while the process is suspended."""

    def __init__(
        self,
        store: LeaseStore,
        rhythm: LeaseRhythm,
        emit: Emit,
        clock: Callable[[], float],
        epoch: int,
        asked: float,
    ) -> None:
        self.epoch = epoch
        self._store = store
        self._rhythm = rhythm
        self._emit = emit
        self._clock = clock
        self._asked = asked
        self._doubted = False
        self._changed = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None

    def holds(self) -> bool:
        """Whether no other instance can be active at this moment; False while that is uncertain."""
        return self._clock() - self._asked < self._rhythm.doubt_seconds

    async def wait(self) -> None:
        """Return once `holds` is true; raises LeaseLost if it never will be again."""
        while not self.holds():
            if not self._doubted:
                self._doubted = True
                self._emit(LeaseDoubted(self.epoch, self._clock() - self._asked))
            if self._renewal is None or self._renewal.done():
                await self.watch()
            self._changed.clear()
            await self._changed.wait()

    async def watch(self) -> None:
        """Never return: raise the error that ended the renewal, for example LeaseLost."""
        if self._renewal is not None:
            await asyncio.shield(self._renewal)
        raise LeaseLost(subject="lease", epoch=self.epoch)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the lease, on a task of its own, while the block lasts."""
        self._renewal = asyncio.create_task(self._renew(), name="renew lease")
        try:
            yield
        finally:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def release(self) -> None:
        """Let the next instance begin at once. Call it only after the last write."""
        await self._store.release(self.epoch)
        self._emit(LeaseReleased(self.epoch))

    async def _renew(self) -> None:
        try:
            while True:
                # A late renewal is followed by the next one at once, because it counts from the moment of asking.
                if self.holds():
                    await asyncio.sleep(self._rhythm.renew_seconds)
                asked = self._clock()
                await self._store.renew(self.epoch)
                self._asked, self._doubted = asked, False
                self._changed.set()
        finally:
            self._changed.set()


class Candidacy:
    """This process's part in the lease over its whole life; as a `Permit`, the right to send in its present term."""

    def __init__(
        self,
        store: LeaseStore,
        rhythm: LeaseRhythm,
        emit: Emit,
        *,
        clock: Callable[[], float],
        on_look: Callable[[], None],
    ) -> None:
        self._store = store
        self._rhythm = rhythm
        self._emit = emit
        self._clock = clock
        self._on_look = on_look
        self._term: Leadership | None = None

    async def win(self) -> Leadership:
        """Stand by until the lease may be taken, and take it."""
        self._term = None
        began, vigil, announced = self._clock(), Vigil(self._store.holder), False
        while True:
            asked = self._clock()
            record = await self._store.read()
            if vigil.may_take(record, asked=asked, answered=self._clock()):
                asked = self._clock()
                epoch = await self._store.take(record)
                if epoch is not None:
                    waited = self._clock() - began
                    self._emit(LeaseTaken(epoch, waited, after_release=record is None or record.released))
                    self._term = Leadership(self._store, self._rhythm, self._emit, self._clock, epoch, asked)
                    return self._term
            elif record is not None:
                self._on_look()
                if not announced:
                    announced = True
                    self._emit(StandingBy(record.host, record.epoch))
            await asyncio.sleep(self._rhythm.poll_seconds)

    def holds(self) -> bool:
        """Whether this process is certainly the active one."""
        return self._term is not None and self._term.holds()

    async def wait(self) -> None:
        """Return once this process may send; raises LeaseLost if its term is over."""
        if self._term is None:
            raise LeaseLost(subject="lease", epoch=0)
        await self._term.wait()


_LOOK_SECONDS = 0.5


async def has_active_instance(lease: LeaseStore, lease_time: timedelta) -> bool:
    """Whether the lease beats while this process watches, for as long as a standby would wait."""
    before = await lease.read()
    if before is None or before.released:
        return False
    try:
        async with asyncio.timeout(max(lease_time.total_seconds(), before.lease_seconds)):
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                now = await lease.read()
                if now is not None and (now.epoch, now.beat) != (before.epoch, before.beat):
                    return not now.released
    except TimeoutError:
        return False
