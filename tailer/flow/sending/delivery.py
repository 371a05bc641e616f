"""Sees batches through: written down, sent, recorded as sent, and only then closed. Nothing else closes a sent turn."""

import asyncio
from collections.abc import Callable, Sequence
from typing import assert_never

from tailer.core.trace.observations import Trace
from tailer.events import BatchSplit, Emit, TraceRejected, TracesDelivered, TurnDone
from tailer.flow.backlog import Backlog
from tailer.flow.parking import Parking
from tailer.flow.ports import Sink
from tailer.flow.records import Batch, BatchItem, DeadLetter
from tailer.flow.sending.batching import BatchLimits, Shipment, halve, make_shipments
from tailer.flow.sending.outcomes import Delivered, Rejected, TooLarge
from tailer.flow.sending.parcels import Consignment, Parcel, consign
from tailer.flow.sending.transmission import Transmission
from tailer.flow.stores import StateStore


class Delivery:
    """A bounded queue of shipments and the workers that send them.

    `observe_traces` gets the traces of this run's batches once they are acknowledged and recorded.
    """

    def __init__(
        self,
        backlog: Backlog,
        parking: Parking,
        state: StateStore,
        sink: Sink,
        transmission: Transmission,
        limits: BatchLimits,
        in_flight: set[str],
        emit: Emit,
        *,
        new_id: Callable[[], str],
        wall_clock: Callable[[], float],
        observe_traces: Callable[[Sequence[Trace]], None] | None = None,
    ) -> None:
        self._backlog = backlog
        self._parking = parking
        self._state = state
        self._sink = sink
        self._transmission = transmission
        self._limits = limits
        self._in_flight = in_flight
        self._emit = emit
        self._new_id = new_id
        self._wall_clock = wall_clock
        self._observe_traces = observe_traces
        # One waits, however many are being sent: assembly is one step ahead, and no more is held in memory.
        self._queue: asyncio.Queue[Shipment] = asyncio.Queue(maxsize=1)

    @property
    def queue_length(self) -> int:
        """How many batches wait to be sent."""
        return self._queue.qsize()

    @property
    def queue_capacity(self) -> int:
        """How many batches may wait."""
        return self._queue.maxsize

    async def hand_over(self, parcels: Sequence[Parcel]) -> None:
        """Take parcels; waits while the queue is full."""
        for parcel in parcels:
            if not parcel.traces:
                self._finish(consign(parcel, keep_traces=False), arrived=True)
        full = [parcel for parcel in parcels if parcel.traces]
        for shipment in make_shipments(
            full,
            self._limits,
            self._sink,
            self._new_id,
            keep_traces=self._observe_traces is not None,
        ):
            await self._queue.put(shipment)

    async def work(self) -> None:
        """Send shipments, one after another, for ever."""
        while True:
            shipment = await self._queue.get()
            await self._state.begin_batch(shipment.batch)
            acknowledged = await self._see_through(shipment.batch, maybe_sent=False)
            self._report(shipment.consignments, acknowledged)
            for consignment in shipment.consignments:
                self._finish(consignment, arrived=consignment.receipts[0].record_id in acknowledged)

    async def resend(self, item: BatchItem, chunk: bytes) -> None:
        """Send a chunk once more that was refused, as it is; returns when it is acknowledged or refused again."""
        batch = Batch(self._new_id(), (item,), self._sink.frame([chunk]))
        self._in_flight.add(item.record_id)
        await self._state.begin_batch(batch)
        await self._see_through(batch, maybe_sent=False)

    async def claim_unfinished(self) -> Sequence[Batch]:
        """The batches of an earlier run; their traces count as on their way from now on."""
        batches = await self._state.pending_batches()
        self._in_flight.update(item.record_id for batch in batches for item in batch.items)
        return batches

    async def recover(self, batches: Sequence[Batch]) -> None:
        """Settle the batches of an earlier run, oldest first."""
        for batch in batches:
            known = await self._state.find_exported([item.record_id for item in batch.items])
            if known:
                # The records were written and the batch was not yet forgotten: all of it was acknowledged, but for
                # what became a dead letter when the batch that this one is a half of was settled before.
                settled = known | await self._state.find_refused([item.record_id for item in batch.items])
                await self._state.finish_batch(
                    batch, [item for item in batch.items if item.record_id not in settled]
                )
                self._land(batch.items)
            else:
                await self._see_through(batch, maybe_sent=True)

    async def _see_through(self, batch: Batch, *, maybe_sent: bool) -> frozenset[str]:
        """Send a batch until every item is acknowledged or a dead letter; the records of those acknowledged."""
        outcome = await self._transmission.send(batch, maybe_sent=maybe_sent)
        match outcome:
            case Delivered():
                await self._state.finish_batch(batch, batch.items)
                self._land(batch.items)
                return frozenset(item.record_id for item in batch.items)
            case TooLarge():
                return await self._divide(batch, "too_large")
            case Rejected(reason):
                return await self._divide(batch, reason)
            case _:
                assert_never(outcome)

    async def _divide(self, batch: Batch, reason: str) -> frozenset[str]:
        """Halve a batch that is refused as a whole; a single trace that is refused becomes a dead letter."""
        if len(batch.items) > 1:
            self._emit(BatchSplit(reason, len(batch.items)))
            halves = halve(batch, self._sink, self._new_id)
            for half in halves:
                await self._state.begin_batch(half)
            await self._state.finish_batch(batch, ())
            first, second = [await self._see_through(half, maybe_sent=False) for half in halves]
            return first | second
        item = batch.items[0]
        chunk = self._sink.unframe(batch.payload, [item.chunk_bytes])[0]
        letter = DeadLetter(
            item.record_id, item.message_id, item.document_key, f"rejected: {reason}", chunk, item
        )
        await self._state.add_dead_letters([letter])
        await self._state.finish_batch(batch, ())
        self._emit(TraceRejected(item.probe.trace_id, item.message_id, reason))
        self._land(batch.items)
        return frozenset()

    def _land(self, items: Sequence[BatchItem]) -> None:
        self._in_flight.difference_update(item.record_id for item in items)

    def _finish(self, consignment: Consignment, *, arrived: bool) -> None:
        self._emit(TurnDone(consignment.outcome))
        own, *others = consignment.keys
        self._parking.leave(own.document_key)
        if consignment.has_feedback and arrived:
            # Rated before it was sent: the score goes to the trace that now exists.
            self._backlog.look_again(own, "feedback")
        else:
            self._backlog.close(own)
        for key in others:
            self._backlog.close(key)

    def _report(self, consignments: Sequence[Consignment], acknowledged: frozenset[str]) -> None:
        now = self._wall_clock()
        arrived = [
            receipt
            for consignment in consignments
            for receipt in consignment.receipts
            if receipt.record_id in acknowledged
        ]
        self._emit(
            TracesDelivered(
                traces=len(arrived),
                observations=sum(receipt.observations for receipt in arrived),
                latencies_seconds=tuple(
                    max(0.0, now - consignment.receipts[0].ended_milliseconds / 1000)
                    for consignment in consignments
                    if consignment.is_turn
                    and consignment.receipts[0].record_id in acknowledged
                    and not self._backlog.is_backfilled(consignment.keys[0])
                ),
            )
        )
        if self._observe_traces is not None and arrived:
            self._observe_traces(
                [
                    trace
                    for consignment in consignments
                    for trace in consignment.traces
                    if trace.record_id in acknowledged
                ]
            )
