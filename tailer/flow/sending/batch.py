"""Groups outgoing traces into batches within the limits of one request, and halves a refused batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tailer.flow.ports import Sink
from tailer.flow.records import Batch
from tailer.flow.sending.outgoing import Outgoing


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much goes into one request: traces, and bytes before compression."""

    traces: int
    size_bytes: int


def make_batches(
    outgoing: Sequence[Outgoing], limits: BatchLimits, sink: Sink, new_id: Callable[[], str]
) -> Iterator[tuple[Batch, Sequence[Outgoing]]]:
    """Batches within the limits, each with its contents. The traces of one entry stay together, so the entry is done
    with its batch."""
    group: list[Outgoing] = []
    traces, size = 0, 0
    for piece in outgoing:
        if group and (
            traces + len(piece.items) > limits.traces or size + piece.stored_bytes > limits.size_bytes
        ):
            yield _frame(group, sink, new_id()), [each.without_chunks() for each in group]
            group, traces, size = [], 0, 0
        group.append(piece)
        traces += len(piece.items)
        size += piece.stored_bytes
    if group:
        yield _frame(group, sink, new_id()), [each.without_chunks() for each in group]


def halve(batch: Batch, sink: Sink, new_id: Callable[[], str]) -> tuple[Batch, Batch]:
    """Two batches with the same chunks; the batch has at least two items."""
    chunks = sink.unframe(batch.payload, [item.chunk_bytes for item in batch.items])
    middle = len(batch.items) // 2
    first = Batch(new_id(), batch.items[:middle], sink.frame(chunks[:middle]))
    second = Batch(new_id(), batch.items[middle:], sink.frame(chunks[middle:]))
    return first, second


def _frame(outgoing: Sequence[Outgoing], sink: Sink, batch_id: str) -> Batch:
    items = tuple(item for piece in outgoing for item in piece.items)
    return Batch(batch_id, items, sink.frame([chunk for piece in outgoing for chunk in piece.chunks]))
