"""Delivers batches: stored, sent, recorded as sent, and only then closed. Nothing else closes a sent turn."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

from tailer.core.stream.entries import EntryKey
from tailer.core.trace.observations import Trace
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.events import BatchSplit, Emit, SpansRejected, TraceCut, TraceRejected, TracesDelivered, TurnDone
from tailer.flow.backlog import Backlog
from tailer.flow.checkpointing import Checkpointing
from tailer.flow.in_flight import InFlight
from tailer.flow.letter_reasons import LetterKind, LetterReason
from tailer.flow.ports import Sink
from tailer.flow.records import Batch, BatchItem, DeadLetter
from tailer.flow.sending.absence import Absence
from tailer.flow.sending.batch import BatchLimits, halve, make_batches
from tailer.flow.sending.outcomes import Delivered, Rejected, TooLarge
from tailer.flow.sending.outgoing import Outgoing
from tailer.flow.sending.spot_checks import SpotChecks
from tailer.flow.sending.transmission import Transmission
from tailer.flow.shares import Done, Shares
from tailer.flow.stores import DestinationStore

_TOO_LARGE = "too_large"
_LOOK_SECONDS = 1.0


class Delivery:
    """A bounded queue of batches for one destination, and the workers that send them.

    `observe_traces` gets the traces of this run's batches once they are acknowledged and recorded.
    """

    def __init__(
        self,
        name: str,
        backlog: Backlog,
        shares: Shares,
        absence: Absence,
        state: DestinationStore,
        checkpointing: Checkpointing,
        sink: Sink,
        transmission: Transmission,
        limits: BatchLimits,
        in_flight: InFlight,
        emit: Emit,
        *,
        new_id: Callable[[], str],
        wall_clock: Callable[[], float],
        observe_traces: Callable[[Sequence[Trace]], None] | None = None,
        spot_checks: SpotChecks | None = None,
    ) -> None:
        self._name = name
        self._backlog = backlog
        self._shares = shares
        self._absence = absence
        self._state = state
        self._checkpointing = checkpointing
        self._sink = sink
        self._transmission = transmission
        self._limits = limits
        self._in_flight = in_flight
        self._emit = emit
        self._new_id = new_id
        self._wall_clock = wall_clock
        self._observe_traces = observe_traces
        self._spot_checks = spot_checks
        self._sending = 0
        # One batch waits, however many are being sent: a lane is one step ahead, and memory holds no more.
        self._queue: asyncio.Queue[tuple[Batch, Sequence[Outgoing]]] = asyncio.Queue(maxsize=1)

    @property
    def queue_length(self) -> int:
        """How many batches wait to be sent."""
        return self._queue.qsize()

    @property
    def queue_capacity(self) -> int:
        """How many batches may wait."""
        return self._queue.maxsize

    async def hand_over(
        self, outgoing: Sequence[Outgoing], taken: Callable[[Outgoing], None] = lambda _: None
    ) -> None:
        """Accept what entries give, with their traces claimed; waits while the queue is full.

        `taken` hears of each outgoing that belongs to delivery from now on: delivery releases its claims and ends its
        share.
        """
        for batch, pieces in make_batches(outgoing, self._limits, self._sink, self._new_id):
            for piece in pieces:
                taken(piece)
            if not await self._absence.finds_room(partial(self._queue.put, (batch, pieces))):
                await self._owe(pieces)

    async def work(self) -> None:
        """Send batches, one after another, for ever."""
        while True:
            batch, pieces = await self._queue.get()
            self._sending += 1
            self._note_conversations(batch)
            begun = await self._state.begin_batch(batch)
            async with self._absence.bounded(pieces, stored=begun) as held:
                acknowledged = await self._send(batch, held, begun=begun)
                # At once, before anything else runs: the position that the batch carried counts on it.
                self._report(pieces, acknowledged)
                for piece in pieces:
                    self._finish(piece, arrived=piece.items[0].record_id in acknowledged, was_let_go=not held)
            self._sending -= 1
            if not self._sending and self._queue.empty():
                self._absence.end()

    async def ease(self) -> None:
        """Let go of what waits for a destination that is away, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            while self._absence.is_now and not self._queue.empty():
                _, pieces = self._queue.get_nowait()
                await self._owe(pieces)

    async def _owe(self, pieces: Sequence[Outgoing]) -> None:
        await self._absence.owe(pieces)
        for piece in pieces:
            self._land(piece.items)

    async def resend(self, item: BatchItem, chunk: bytes) -> None:
        """Send a refused chunk once more, as it is; returns when it is acknowledged or refused again.

        Nothing happens while another task works on its trace: the next sweep tries again.
        """
        if not self._in_flight.claim({item.record_id: item.document_key}):
            return
        batch = Batch(self._new_id(), (item,), self._sink.frame([chunk]))
        await self._send(batch, (), begun=await self._state.begin_batch(batch))

    async def claim_unfinished(self) -> Sequence[Batch]:
        """The batches of an earlier run. Their traces count as on their way from now on."""
        batches = await self._state.pending_batches()
        for batch in batches:
            for item in batch.items:
                self._in_flight.hold(item.record_id, item.document_key)
            self._note_conversations(batch)
        return batches

    def _note_conversations(self, batch: Batch) -> None:
        """A row that is deleted meanwhile does not tell whose it was, and its record is not written yet."""
        for item in batch.items:
            if item.sent is not None:
                self._in_flight.note_conversation(item.document_key, item.sent.session_id)

    async def recover(self, batches: Iterable[Batch]) -> None:
        """Settle batches of an earlier run, one after another. Several tasks may share an iterator of them: each mostly
        waits for its lookup."""
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
                await self._see_through(batch, (), maybe_sent=True)

    async def _send(
        self, batch: Batch, pieces: Sequence[Outgoing], *, begun: bool, suspected: bool = False
    ) -> frozenset[str]:
        """See a batch through that was never sent. One that is too large to be stored is divided at once."""
        if begun:
            return await self._see_through(batch, pieces, suspected=suspected)
        return await self._divide(batch, pieces, _TOO_LARGE)

    async def _see_through(
        self,
        batch: Batch,
        pieces: Sequence[Outgoing],
        *,
        maybe_sent: bool = False,
        suspected: bool = False,
    ) -> frozenset[str]:
        """Send a batch until every item is acknowledged or a dead letter; returns the records of the acknowledged
        ones. `pieces` are what is done with the last of its items."""
        outcome = await self._transmission.send(batch, maybe_sent=maybe_sent, suspected=suspected)
        match outcome:
            case Delivered(rejected_spans):
                await self._record(batch, pieces, delivered=batch.items)
                self._land(batch.items)
                if rejected_spans:
                    self._emit(SpansRejected(rejected_spans, len(batch.items)))
                if self._spot_checks is not None:
                    self._spot_checks.note(batch.items, are_doubted=rejected_spans > 0)
                return frozenset(item.record_id for item in batch.items)
            case TooLarge():
                return await self._divide(batch, pieces, _TOO_LARGE)
            case Rejected(reason, alone):
                return await self._divide(batch, pieces, reason, suspected=alone)
            case _:
                assert_never(outcome)

    async def _divide(
        self, batch: Batch, pieces: Sequence[Outgoing], reason: str, *, suspected: bool = False
    ) -> frozenset[str]:
        """Halve a batch that is refused as a whole. A single trace that is too large is cut; one that is refused
        becomes a dead letter."""
        if len(batch.items) > 1:
            self._emit(BatchSplit(reason, len(batch.items)))
            halves = halve(batch, self._sink, self._new_id)
            begun = [await self._state.begin_batch(half) for half in halves]
            await self._state.finish_batch(batch, ())
            first = await self._send(halves[0], (), begun=begun[0], suspected=suspected)
            return first | await self._send(halves[1], pieces, begun=begun[1], suspected=suspected)
        item = batch.items[0]
        chunk = self._sink.unframe(batch.payload, [item.chunk_bytes])[0]
        smaller = self._sink.shrink(chunk) if reason == _TOO_LARGE else None
        if smaller is not None:
            self._emit(TraceCut(item.probe.trace_id, item.message_id, len(chunk) - len(smaller)))
            cut = Batch(
                self._new_id(), (replace(item, chunk_bytes=len(smaller)),), self._sink.frame([smaller])
            )
            begun_cut = await self._state.begin_batch(cut)
            await self._state.finish_batch(batch, ())
            return await self._send(cut, pieces, begun=begun_cut)
        letter = DeadLetter(
            item.record_id,
            item.message_id,
            item.document_key,
            LetterReason(LetterKind.REJECTED, reason),
            chunk,
            item,
        )
        await self._record(batch, pieces, letters=[letter])
        self._emit(TraceRejected(item.probe.trace_id, item.message_id, reason))
        self._land(batch.items)
        return frozenset()

    async def _record(
        self,
        batch: Batch,
        pieces: Sequence[Outgoing],
        *,
        delivered: Sequence[BatchItem] = (),
        letters: Sequence[DeadLetter] = (),
    ) -> None:
        """Record what became of a batch, and with it how far the streams are done once its entries are closed."""

        def closing() -> list[EntryKey]:
            return [key for piece in pieces for key in self._shares.closed_by(*self._share_of(piece))]

        async with self._checkpointing.carrying(closing) as positions:
            await self._state.finish_batch(batch, delivered, letters=letters, positions=positions)

    def _land(self, items: Sequence[BatchItem]) -> None:
        self._in_flight.release(item.record_id for item in items)

    def _finish(self, outgoing: Outgoing, *, arrived: bool, was_let_go: bool) -> None:
        if not was_let_go:
            self._shares.end(*self._share_of(outgoing, arrived=arrived))
        elif arrived:
            self._emit(TurnDone(EntryOutcome.CAUGHT_UP))

    def _share_of(self, outgoing: Outgoing, *, arrived: bool = True) -> tuple[EntryKey, str, Done]:
        # It was rated before it was sent, so the score goes to the trace that now exists.
        followed = frozenset({"feedback"}) if outgoing.has_feedback and arrived else None
        outcome = outgoing.outcome if arrived else EntryOutcome.DEAD_LETTER
        return outgoing.key, self._name, Done(outcome, arrived, outgoing.also, followed)

    def _report(self, outgoing: Sequence[Outgoing], acknowledged: frozenset[str]) -> None:
        now = self._wall_clock()
        items = [item for piece in outgoing for item in piece.items if item.record_id in acknowledged]
        own = [(piece.key, piece.items[0]) for piece in outgoing]
        self._emit(
            TracesDelivered(
                traces=len(items),
                observations=sum(item.observations for item in items),
                latencies_seconds=tuple(
                    max(0.0, now - item.ended_milliseconds / 1000)
                    for key, item in own
                    if item.sent is not None
                    and item.record_id in acknowledged
                    and not self._backlog.is_backfilled(key)
                ),
            )
        )
        traces = [trace for piece in outgoing for trace in piece.traces if trace.record_id in acknowledged]
        if self._observe_traces is not None and traces:
            self._observe_traces(traces)
