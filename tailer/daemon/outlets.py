"""Assembles what works for one destination alone, and says which tasks that is."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from tailer.core.trace.export import ExportOptions
from tailer.core.trace.observations import Trace
from tailer.daemon.destinations import OpenDestination
from tailer.daemon.supervision import Work
from tailer.events import Emit, tell_of
from tailer.flow.backlog import Backlog
from tailer.flow.checkpointing import Checkpointing
from tailer.flow.destinations import Destination
from tailer.flow.in_flight import InFlight
from tailer.flow.late_looks import LateLooks
from tailer.flow.ports import DocumentReader
from tailer.flow.records import Batch
from tailer.flow.sending.absence import Absence
from tailer.flow.sending.batch import BatchLimits
from tailer.flow.sending.debts import Debts
from tailer.flow.sending.delivery import Delivery
from tailer.flow.sending.destination_health import DestinationHealth
from tailer.flow.sending.elsewhere import Elsewhere
from tailer.flow.sending.letter_owners import LetterOwners
from tailer.flow.sending.outgoing import Packing
from tailer.flow.sending.presence import PATIENCE, Presence
from tailer.flow.sending.replays import Replay
from tailer.flow.sending.spot_checks import SpotChecks
from tailer.flow.sending.transmission import Transmission
from tailer.flow.shares import Shares
from tailer.flow.stores import DestinationStore
from tailer.otlp.metrics import GenAiMetrics
from tailer.settings import Settings

_SWEEP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Common:
    """What the destinations have in common."""

    settings: Settings
    backlog: Backlog
    shares: Shares
    checkpointing: Checkpointing
    reader: DocumentReader
    emit: Emit
    observe_traces: Callable[[Sequence[Trace]], None] | None


@dataclass(frozen=True, slots=True)
class Outlet:
    """The parts that work for one destination. `unfinished` are the batches that an earlier run began."""

    destination: Destination
    replay: Replay
    late_looks: LateLooks
    spot_checks: SpotChecks | None
    unfinished: Sequence[Batch]
    elsewhere: Elsewhere
    metrics: GenAiMetrics | None

    def tasks(self, senders: int) -> Mapping[str, Work]:
        """The tasks of this destination, by name; so many of them send, and so many recover."""
        delivery, unfinished = self.destination.delivery, iter(self.unfinished)
        tasks: dict[str, Work] = {
            **{f"recover {number}": self._recover(unfinished) for number in range(senders)},
            "elsewhere": self.elsewhere.run(),
            "replay": self._replay(),
            "late looks": self.late_looks.run(),
            **{f"send {number}": delivery.work() for number in range(senders)},
        }
        if self.spot_checks is not None:
            tasks["spot checks"] = self.spot_checks.run()
        if self.metrics is not None:
            tasks["metrics"] = self.metrics.run()
        if self.destination.presence.patience_seconds is not None:
            tasks["ease"] = delivery.ease()
            tasks["presence"] = self.destination.debts.watch()
        return tasks

    async def _recover(self, unfinished: Iterable[Batch]) -> None:
        """Settle batches of an earlier run beside the daily work, oldest first. Afterwards this task only waits."""
        await self.destination.delivery.recover(unfinished)
        await asyncio.Event().wait()

    async def _replay(self) -> None:
        """Send dead letters again on request."""
        while True:
            await self.replay.sweep()
            await asyncio.sleep(_SWEEP_SECONDS)


async def make_outlet(
    common: Common, opened: OpenDestination, state: DestinationStore, options: ExportOptions
) -> Outlet:
    """The parts for one destination. It reads what earlier runs left, and starts nothing."""
    settings = common.settings
    is_alone = len(settings.destinations) == 1
    emit = common.emit if is_alone else tell_of(common.emit, opened.name)
    health = DestinationHealth(emit, monotonic=time.monotonic)
    presence = Presence(patience=None if is_alone else PATIENCE, monotonic=time.monotonic)
    observers = [] if common.observe_traces is None else [common.observe_traces]
    if opened.metrics is not None:
        observers.append(opened.metrics.observe)
    debts = Debts(opened.name, common.backlog, state, presence, emit, shard=settings.shard)
    in_flight = InFlight()
    spot_checks = None
    if opened.is_server:
        spot_checks = SpotChecks(opened.sink, state, emit, monotonic=time.monotonic)
    delivery = Delivery(
        opened.name,
        common.backlog,
        common.shares,
        Absence(opened.name, presence, debts, common.shares),
        state,
        common.checkpointing,
        opened.sink,
        Transmission(
            opened.sink,
            health,
            emit,
            lookup=opened.lookup,
            monotonic=time.monotonic,
            presence=presence,
        ),
        BatchLimits(settings.batch_traces, settings.batch_bytes),
        in_flight,
        emit,
        new_id=lambda: uuid4().hex,
        wall_clock=time.time,
        observe_traces=_tell_all(observers),
        spot_checks=spot_checks,
    )
    await debts.load()
    unfinished = await delivery.claim_unfinished() if settings.langfuse_enabled else []
    elsewhere = Elsewhere(state, in_flight)
    await elsewhere.hold()
    destination = Destination(
        name=opened.name,
        state=state,
        options=options,
        packing=Packing(opened.sink, keep_traces=bool(observers)),
        in_flight=in_flight,
        delivery=delivery,
        health=health,
        presence=presence,
        debts=debts,
        followups=opened.followups,
        emit=emit,
    )
    owners = LetterOwners(common.reader, state, settings.shard)
    return Outlet(
        destination,
        Replay(opened.name, common.backlog, state, delivery, emit, owners.choose_own),
        LateLooks(
            opened.name, common.backlog, common.reader, state, wall_clock=time.time, shard=settings.shard
        ),
        spot_checks,
        unfinished,
        elsewhere,
        opened.metrics,
    )


def _tell_all(
    observers: Sequence[Callable[[Sequence[Trace]], None]],
) -> Callable[[Sequence[Trace]], None] | None:
    if not observers:
        return None

    def tell(traces: Sequence[Trace]) -> None:
        for observe in observers:
            observe(traces)

    return tell
