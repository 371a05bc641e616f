"""The daemon's long-lived tasks: which tasks exist, what each repeats, and how they end in order."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Interest, Stream
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.turns import Wait
from tailer.daemon.gauges import Sampler
from tailer.daemon.outlets import Outlet
from tailer.daemon.supervision import Shutdown, Work, within
from tailer.events import Drained, Emit, Stopping, TurnDone
from tailer.flow.backfilling import Backfilling
from tailer.flow.backlog import Backlog
from tailer.flow.checkpointing import Checkpointing
from tailer.flow.destinations import Destination
from tailer.flow.intake import Intake
from tailer.flow.lanes.lane import ROUND_ENTRIES, Lane
from tailer.flow.parking import Parking
from tailer.flow.ports import ChangeSource
from tailer.health import Health, State

_SWEEP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The rhythm of the tasks. If `sending` is false, turns are only read and counted."""

    gather: timedelta
    checkpoint: timedelta
    senders: int
    sending: bool


@dataclass(frozen=True, slots=True)
class Pipeline:
    """All parts of a run, put together by the composition root."""

    sources: Sequence[ChangeSource]
    backlog: Backlog
    parking: Parking
    intake: Intake
    backfilling: Backfilling
    lanes: Sequence[Lane]
    outlets: Sequence[Outlet]
    checkpointing: Checkpointing
    sampler: Sampler
    health: Health
    emit: Emit
    pace: Pace

    @property
    def streams(self) -> Sequence[Stream]:
        """The streams of this run."""
        return [source.stream for source in self.sources]

    @property
    def destinations(self) -> Sequence[Destination]:
        """The destinations of this run."""
        return [outlet.destination for outlet in self.outlets]

    def readers(self) -> Mapping[str, Work]:
        """The tasks that bring work in; they end first."""
        reading = {f"read {source.stream.value}": self.intake.read(source) for source in self.sources}
        if not self.pace.sending:
            return reading
        for each in self.destinations:
            reading[f"bring back to {each.name}"] = each.debts.run()
        return {**reading, "backfill": self._backfill()}

    def workers(self) -> Mapping[str, Work]:
        """The tasks that get work done."""
        tasks: dict[str, Work] = {
            "sample": self.sampler.run(),
            "checkpoint": self.checkpointing.run(self.streams, self.pace.checkpoint),
            "announce": self._announce(),
            "sweep": self._sweep(),
        }
        if not self.pace.sending:
            return {**tasks, "discard": self._discard()}
        for lane in self.lanes:
            tasks[lane.name] = lane.run(self.pace.gather.total_seconds())
        for outlet in self.outlets:
            own = outlet.tasks(self.pace.senders)
            tasks.update({f"{name} to {outlet.destination.name}": work for name, work in own.items()})
        return tasks

    async def drain(self, shutdown: Shutdown, limit: timedelta) -> None:
        """Send what is open, within the limit; what is left is read again after the next start."""
        self.health.state = State.STOPPING
        self.emit(Stopping(len(self.backlog), limit.total_seconds()))
        empty = self.backlog.wait_until_empty(except_for=Interest.QUESTION)
        complete = await within(limit, shutdown, empty)
        self.emit(Drained(complete=complete, left_open=len(self.backlog)))

    async def _announce(self) -> None:
        """Become ready once every stream is open and its position stored: from then on a crash loses nothing."""
        await self.checkpointing.wait_for_first(self.streams)
        self.health.state = State.STREAMING
        await asyncio.Event().wait()

    async def _discard(self) -> None:
        while True:
            for entry in await self.backlog.take_due(limit=ROUND_ENTRIES, gather_seconds=0):
                self.emit(TurnDone(EntryOutcome.SENDING_DISABLED))
                self.backlog.close(entry.key)

    async def _backfill(self) -> None:
        """Wait until the positions are stored, so that everything written from now on belongs to the streams."""
        await self.checkpointing.wait_for_first(self.streams)
        await self.backfilling.run()

    async def _sweep(self) -> None:
        """Forget finished parked turns, and resume those whose deadline has passed."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await self.parking.flush()
            for turn in self.parking.overdue(self.backlog.source_seconds):
                interest = Interest.QUESTION if turn.wait is Wait.RESPONSE else Interest.RESPONSE
                self.backlog.reopen(EntryKey(interest, turn.document_key), turn.message_id)
