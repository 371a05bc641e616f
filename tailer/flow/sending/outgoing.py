"""What one open entry gives to be sent."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tailer.core.identity import DocumentKey
from tailer.core.light_dataclass import light_dataclass
from tailer.core.stream.entries import EntryKey
from tailer.core.trace.followup import Edit, SentTurn
from tailer.core.trace.late import LateMarks
from tailer.core.trace.observations import Trace
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.flow.ports import Sink
from tailer.flow.records import BatchItem, Probe


@light_dataclass(frozen=True, slots=True)
class Outgoing:
    """Traces of an entry, or later pieces of traces, as items with their chunks; the entry is done with them.

    The item at the front is the entry's own. `also` are further entries that are done with it. `has_feedback` says
    that the turn was rated before it was sent. `traces` are kept only where acknowledged traces are looked at: they
    would be most of what a waiting batch takes."""

    key: EntryKey
    outcome: EntryOutcome
    items: tuple[BatchItem, ...]
    chunks: tuple[bytes, ...]
    traces: tuple[Trace, ...] = ()
    has_feedback: bool = False
    also: tuple[EntryKey, ...] = ()

    @property
    def stored_bytes(self) -> int:
        """The length of all chunks together."""
        return sum(map(len, self.chunks))

    def without_title(self) -> "Outgoing":
        """The turn alone; the entry of its title is not done with it."""
        return replace(self, items=self.items[:1], chunks=self.chunks[:1], traces=self.traces[:1], also=())

    def without_chunks(self) -> "Outgoing":
        """What is kept while the chunks are in a batch."""
        # `replace` goes through all fields by their names, and this is done for every turn.
        return Outgoing(self.key, self.outcome, self.items, (), self.traces, self.has_feedback, self.also)


class Packing:
    """Prepares traces for one sink; `keep_traces` if acknowledged traces are observed."""

    def __init__(self, sink: Sink, *, keep_traces: bool) -> None:
        self._sink = sink
        self._keep_traces = keep_traces

    def pack(
        self,
        key: EntryKey,
        outcome: EntryOutcome,
        traces: Sequence[Trace],
        *,
        sent: SentTurn | None = None,
        edits: Mapping[str, Edit] | None = None,
        late: LateMarks | None = None,
        has_feedback: bool = False,
        also: tuple[EntryKey, ...] = (),
    ) -> Outgoing:
        """Encode traces. `sent` is what is remembered of the turn among them, `edits` by record what pieces
        show, `late` what a piece of late facts brings that record up to; the rest is as in `Outgoing`."""
        chunks = tuple([self._sink.encode(trace) for trace in traces])
        items = [
            BatchItem(
                record_id=trace.record_id,
                probe=Probe(trace.id, trace.root.id, trace.root.start_milliseconds),
                message_id=trace.message_id,
                document_key=DocumentKey(trace.document_key),
                chunk_bytes=len(chunk),
                sent=sent if sent is not None and sent.trace_id == trace.id else None,
                edit=None if edits is None else edits.get(trace.record_id),
                late=late,
                observations=len(trace.observations),
                ended_milliseconds=trace.root.end_milliseconds,
            )
            for trace, chunk in zip(traces, chunks, strict=True)
        ]
        return Outgoing(
            key,
            outcome,
            tuple(items),
            chunks,
            traces=tuple(traces) if self._keep_traces else (),
            has_feedback=has_feedback,
            also=also,
        )


def join(pieces: Sequence[Outgoing]) -> Outgoing:
    """Mark it as one of several for the same entry: an edited question appears in the traces of all its answers."""
    return replace(
        pieces[0],
        items=tuple(item for piece in pieces for item in piece.items),
        chunks=tuple(chunk for piece in pieces for chunk in piece.chunks),
        traces=tuple(trace for piece in pieces for trace in piece.traces),
    )
