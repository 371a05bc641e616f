"""What one open entry gives to be sent."""

from collections.abc import Mapping
from dataclasses import field

from tailer.core.light_dataclass import light_dataclass
from tailer.core.stream.open_turns import EntryKey
from tailer.core.trace.followup import Edit, SentTurn
from tailer.core.trace.observations import Trace


@light_dataclass(frozen=True, slots=True)
class Parcel:
    """Traces, or a later piece of one, with their chunks; the entry is done when they are acknowledged.

    `also` are further entries that are done with it. `sent` is what is remembered of the turn; `edits` the edits that later pieces show, by record id. `has_feedback` says
    that the turn was rated before it was sent."""

    key: EntryKey
    outcome: str
    traces: tuple[Trace, ...]
    chunks: tuple[bytes, ...]
    sent: SentTurn | None = None
    edits: Mapping[str, Edit] = field(default_factory=dict)
    has_feedback: bool = False
    also: tuple[EntryKey, ...] = ()


@light_dataclass(frozen=True, slots=True)
class Receipt:
    """What is told of a trace when it is acknowledged: its record, how much it holds, when what it shows ended."""

    record_id: str
    observations: int
    ended_milliseconds: int


@light_dataclass(frozen=True, slots=True)
class Consignment:
    """A parcel whose chunks are in a batch: what is closed and told when that is acknowledged.

    Without the traces themselves, unless somebody looks at them: they would be most of what a waiting batch takes."""

    keys: tuple[EntryKey, ...]
    outcome: str
    receipts: tuple[Receipt, ...]
    traces: tuple[Trace, ...]
    is_turn: bool
    has_feedback: bool


def consign(parcel: Parcel, *, keep_traces: bool) -> Consignment:
    """What is kept of a parcel while it is on its way."""
    return Consignment(
        keys=(parcel.key, *parcel.also),
        outcome=parcel.outcome,
        receipts=tuple(
            Receipt(trace.record_id, len(trace.observations), trace.root.end_milliseconds)
            for trace in parcel.traces
        ),
        traces=parcel.traces if keep_traces else (),
        is_turn=parcel.sent is not None,
        has_feedback=parcel.has_feedback,
    )
