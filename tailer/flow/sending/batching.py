"""Puts parcels together into batches within the limits of one request, and halves a batch that is refused."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tailer.core.identity import DocumentKey
from tailer.core.trace.observations import Trace
from tailer.flow.ports import Sink
from tailer.flow.records import Batch, BatchItem, Probe
from tailer.flow.sending.parcels import Consignment, Parcel, consign


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much goes into one request: traces, and bytes before compression."""

    traces: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Shipment:
    """A batch with the parcels it came from, without what is in the batch; none for a batch of an earlier run."""

    batch: Batch
    consignments: tuple[Consignment, ...]


def make_shipments(
    parcels: Sequence[Parcel],
    limits: BatchLimits,
    sink: Sink,
    new_id: Callable[[], str],
    *,
    keep_traces: bool,
) -> Iterator[Shipment]:
    """Batches within the limits; the traces of one parcel stay together, so that it is done with its batch."""
    group: list[Parcel] = []
    traces, size = 0, 0
    for parcel in parcels:
        more = sum(map(len, parcel.chunks))
        if group and (traces + len(parcel.chunks) > limits.traces or size + more > limits.size_bytes):
            yield _ship(group, sink, new_id(), keep_traces=keep_traces)
            group, traces, size = [], 0, 0
        group.append(parcel)
        traces += len(parcel.chunks)
        size += more
    if group:
        yield _ship(group, sink, new_id(), keep_traces=keep_traces)


def halve(batch: Batch, sink: Sink, new_id: Callable[[], str]) -> tuple[Batch, Batch]:
    """Two batches with the same chunks; the batch has at least two items."""
    chunks = sink.unframe(batch.payload, [item.chunk_bytes for item in batch.items])
    middle = len(batch.items) // 2
    first = Batch(new_id(), batch.items[:middle], sink.frame(chunks[:middle]))
    second = Batch(new_id(), batch.items[middle:], sink.frame(chunks[middle:]))
    return first, second


def _ship(parcels: Sequence[Parcel], sink: Sink, batch_id: str, *, keep_traces: bool) -> Shipment:
    items = [
        _describe(parcel, trace, len(chunk))
        for parcel in parcels
        for trace, chunk in zip(parcel.traces, parcel.chunks, strict=True)
    ]
    payload = sink.frame([chunk for parcel in parcels for chunk in parcel.chunks])
    consignments = tuple(consign(parcel, keep_traces=keep_traces) for parcel in parcels)
    return Shipment(Batch(batch_id, tuple(items), payload), consignments)


def _describe(parcel: Parcel, trace: Trace, size: int) -> BatchItem:
    is_turn = parcel.sent is not None and parcel.sent.trace_id == trace.id
    return BatchItem(
        record_id=trace.record_id,
        probe=Probe(trace.id, trace.root.id),
        message_id=trace.message_id,
        document_key=DocumentKey(trace.document_key),
        chunk_bytes=size,
        sent=parcel.sent if is_turn else None,
        edit=parcel.edits.get(trace.record_id),
    )
