"""What the flow stands between: a LibreChat, a state database and a destination, in memory and on one clock."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tailer.core.identity import DocumentKey
from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import ChangeHint, Interest, Operation, Stream
from tailer.core.stream.open_turns import OpenTurns
from tailer.core.stream.positions import StreamPosition
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.flow.backlog import Backlog
from tailer.flow.checkpointing import Checkpointing
from tailer.flow.in_flight import InFlight
from tailer.flow.intake import Intake
from tailer.flow.parking import Parking, Patience
from tailer.flow.records import StreamBatch
from tailer.flow.sending.absence import Absence
from tailer.flow.sending.batch import BatchLimits
from tailer.flow.sending.debts import Debts
from tailer.flow.sending.delivery import Delivery
from tailer.flow.sending.destination_health import DestinationHealth
from tailer.flow.sending.outgoing import Outgoing, Packing
from tailer.flow.sending.presence import Presence
from tailer.flow.sending.transmission import Transmission
from tailer.flow.shares import Shares
from tailer.settings.destinations import DEFAULT_NAME
from tests.evidence import Events, make_trace
from tests.memory import (
    MemoryChanges,
    MemoryDatabase,
    MemoryDestination,
    MemoryLibreChat,
    MemorySink,
    MemoryState,
)
from tests.memory.clock import monotonic

PATIENCE = Patience(timedelta(hours=1), timedelta(hours=2), timedelta(hours=3))
LOOKUP_SECONDS = 60.0
QUIET_SECONDS = 8.0
"""How often a quiet stream answers here. A real one does every 2.5 seconds, and these tests last for hours."""
_SERVER_SECONDS = 1_760_000_000
_LONGEST_SECONDS = 24 * 3600


def server_clock() -> float:
    """MongoDB's clock, in seconds since 1970; it runs with the loop's."""
    return _SERVER_SECONDS + monotonic()


class Scene:
    """The outside, and one run of the parts between. `restart` gives the next run on the same outside."""

    def __init__(
        self, before: "Scene | None" = None, *, open_limit: int = 1000, settle_seconds: float = 3
    ) -> None:
        self.librechat: MemoryLibreChat = before.librechat if before else MemoryLibreChat(server_clock)
        self.database: MemoryDatabase = before.database if before else MemoryDatabase()
        self.destination: MemoryDestination = before.destination if before else MemoryDestination(monotonic)
        self.others: dict[str, MemoryDestination] = before.others if before else {}
        self.events = Events()
        self.state = MemoryState(self.database)
        self.sink = MemorySink(self.destination)
        self.sinks: dict[str, MemorySink] = {DEFAULT_NAME: self.sink}
        self.parking = Parking(self.state, PATIENCE)
        turns = OpenTurns(settle_seconds=settle_seconds, park_seconds=600)
        self.backlog = Backlog(turns, self.parking, limit=open_limit, monotonic=monotonic)
        self.intake = Intake(self.backlog, self.state, self.events, open_limit=open_limit)
        self.checkpointing = Checkpointing(self.backlog, self.state, self.events, monotonic=monotonic)
        self.shares = Shares(self.backlog, self.parking, [DEFAULT_NAME], self.events)
        presence = Presence(patience=None, monotonic=monotonic)
        debts = Debts(DEFAULT_NAME, self.backlog, self.state, presence, self.events)
        self.absence = Absence(DEFAULT_NAME, presence, debts, self.shares)
        self.health = DestinationHealth(self.events, monotonic=monotonic)
        self.transmission = Transmission(
            self.sink,
            self.health,
            self.events,
            lookup=timedelta(seconds=LOOKUP_SECONDS),
            monotonic=monotonic,
        )
        self.in_flight = InFlight()
        self.packing = Packing(self.sink, keep_traces=False)

    def at(self, name: str) -> MemoryDestination:
        """A destination by its name."""
        if name == DEFAULT_NAME:
            return self.destination
        return self.others.setdefault(name, MemoryDestination(monotonic))

    def sink_of(self, name: str) -> MemorySink:
        """The sink of this run for a destination."""
        return self.sinks.setdefault(name, MemorySink(self.at(name)))

    def restart(self, **changed: Any) -> "Scene":
        """A later run: everything that was in memory is gone. It begins where the checkpoints say."""
        later = Scene(self, **changed)
        for stream, checkpoint in self.database.checkpoints.items():
            later.backlog.start(stream, checkpoint)
        return later

    def share(self, shards: int, names: Sequence[str] = (DEFAULT_NAME,)) -> "list[Scene]":
        """A scene for each shard: one LibreChat, the same destinations with common records, letters and debts, and
        everything else its own."""
        scenes = [Scene(self) for _ in range(shards)]
        for own in scenes:
            own.database = replace(
                self.database,
                checkpoints={},
                parked={},
                jobs={},
                gaps={},
                writes=[],
                destinations={name: replace(self.database.at(name), batches={}) for name in names},
            )
        return scenes

    def make_delivery(self, *, traces: int = 100, size_bytes: int = 10_000_000) -> Delivery:
        """The way out."""
        numbers = itertools.count()
        return Delivery(
            DEFAULT_NAME,
            self.backlog,
            self.shares,
            self.absence,
            self.state,
            self.checkpointing,
            self.sink,
            self.transmission,
            BatchLimits(traces, size_bytes),
            self.in_flight,
            self.events,
            new_id=lambda: f"batch-{id(self)}-{next(numbers)}",
            wall_clock=server_clock,
        )

    def open_turns(self, *message_ids: str) -> list[Outgoing]:
        """Let `messages` tell of responses, one a second, and give what is made of them, claimed as a lane does."""
        outgoing = []
        for message_id in message_ids:
            second = (
                self.backlog.read_position(Stream.MESSAGES).cluster_seconds + 1 if self._is_started() else 1
            )
            key = DocumentKey(make_trace(message_id).document_key)
            hint = make_hint(message_id, key, second)
            position = StreamPosition(f"82{second:08X}", second)
            self.backlog.take_hints(Stream.MESSAGES, StreamBatch([(hint, position)], position, second))
            trace = make_trace(message_id)
            self.in_flight.claim({trace.id: key})
            outgoing.append(
                self.packing.pack(EntryKey(Interest.RESPONSE, key), EntryOutcome.COMPLETE, [trace])
            )
        for entry in self.backlog.turns.take_due(monotonic() + 3600, limit=10_000):
            self.shares.begin(entry)
        return outgoing

    def _is_started(self) -> bool:
        return self.backlog.is_started(Stream.MESSAGES)

    @asynccontextmanager
    async def reading(self, stream: Stream = Stream.MESSAGES) -> AsyncIterator[None]:
        """Follow a stream of LibreChat while the block lasts."""
        async with working(
            self.intake.read(MemoryChanges(self.librechat, stream, poll_seconds=QUIET_SECONDS))
        ):
            await until(lambda: self.backlog.is_started(stream))
            yield


def make_hint(message_id: str, key: DocumentKey, second: int, *, by_user: bool = False) -> ChangeHint:
    """That a message was stored."""
    return ChangeHint(
        Operation.INSERT, key, second, second * 1000, frozenset(), message_id, None, created_by_user=by_user
    )


@asynccontextmanager
async def working(*works: Awaitable[object]) -> AsyncIterator[Sequence["asyncio.Task[object]"]]:
    """With tasks at work; what ends one of them is raised at the end of the block."""
    tasks = [asyncio.create_task(_wait_for(work)) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
            raise outcome


async def _wait_for(work: Awaitable[object]) -> object:
    return await work


async def until(condition: Callable[[], bool], *, seconds: float = _LONGEST_SECONDS) -> None:
    """Return once a condition holds, within so much of the loop's time; it is asked ever more seldom."""
    pause = 0.05
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(pause)
            pause = min(pause * 1.1, 1.0)
