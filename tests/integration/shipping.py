"""A delivery with all its real parts: the state in MongoDB, the sink over HTTP, the backlog it closes entries of."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from tailer.core.identity import DocumentKey
from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import ChangeHint, Interest, Operation, Stream
from tailer.core.stream.open_turns import OpenTurns
from tailer.core.stream.positions import StreamPosition
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.flow.backlog import Backlog
from tailer.flow.checkpointing import Checkpointing
from tailer.flow.in_flight import InFlight
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
from tailer.langfuse.spans import LangfuseSpans
from tailer.mongo.state import MongoState
from tailer.settings.destinations import DEFAULT_NAME
from tests.evidence import Events, make_trace
from tests.http.wire import LOOKUP_SECONDS

PATIENCE = Patience(timedelta(hours=1), timedelta(hours=2), timedelta(hours=3))


class Shipping:
    """One run of the daemon, from open entries to acknowledged batches."""

    def __init__(self, state: MongoState, sink: LangfuseSpans, *, traces_a_batch: int = 100) -> None:
        self.events = Events()
        self.state = state
        self.sink = sink
        self.in_flight = InFlight()
        self.packing = Packing(sink, keep_traces=False)
        self.parking = Parking(state, PATIENCE)
        turns = OpenTurns(settle_seconds=0, park_seconds=3600)
        self.backlog = Backlog(turns, self.parking, limit=10_000, monotonic=time.monotonic)
        self.shares = Shares(self.backlog, self.parking, [DEFAULT_NAME], self.events)
        presence = Presence(patience=None, monotonic=time.monotonic)
        debts = Debts(DEFAULT_NAME, self.backlog, state, presence, self.events)
        self.absence = Absence(DEFAULT_NAME, presence, debts, self.shares)
        self.transmission = Transmission(
            sink,
            DestinationHealth(self.events, monotonic=time.monotonic),
            self.events,
            lookup=timedelta(seconds=LOOKUP_SECONDS),
            monotonic=time.monotonic,
        )
        self.checkpointing = Checkpointing(self.backlog, state, self.events, monotonic=time.monotonic)
        numbers = itertools.count()
        self.delivery = Delivery(
            DEFAULT_NAME,
            self.backlog,
            self.shares,
            self.absence,
            state,
            self.checkpointing,
            sink,
            self.transmission,
            BatchLimits(traces=traces_a_batch, size_bytes=10_000_000),
            self.in_flight,
            self.events,
            new_id=lambda: f"batch-{id(self)}-{next(numbers)}",
            wall_clock=time.time,
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """With one sender at work; what ends it is raised at the end of the block."""
        task = asyncio.create_task(self.delivery.work())
        try:
            yield
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError) and isinstance(ended, BaseException):
            raise ended

    def open_turns(self, message_ids: Sequence[str], *, first_second: int = 1) -> list[Outgoing]:
        """Let the stream tell of responses, one a second, and give what is made of them."""
        outgoing = []
        for second, message_id in enumerate(message_ids, start=first_second):
            key = DocumentKey(f"{second:024x}")
            position = StreamPosition(f"82{second:08X}", second)
            hint = ChangeHint(
                Operation.INSERT, key, second, None, frozenset(), message_id, None, created_by_user=False
            )
            self.backlog.take_hints(Stream.MESSAGES, StreamBatch([(hint, position)], position, second))
            trace = make_trace(message_id)
            entry = EntryKey(Interest.RESPONSE, key)
            self.in_flight.claim({trace.record_id: key})
            outgoing.append(self.packing.pack(entry, EntryOutcome.COMPLETE, [trace]))
        for taken in self.backlog.turns.take_due(time.monotonic() + 1, limit=10_000):
            self.shares.begin(taken)
        return outgoing

    async def until_empty(self, *, seconds: float = 20) -> None:
        """Return once no entry is open."""
        async with asyncio.timeout(seconds):
            await self.backlog.wait_until_empty(except_for=Interest.QUESTION)
