"""What one open entry gives to be sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tailer.core.followup import Edit, SentTurn
from tailer.core.observations import Trace
from tailer.core.open_turns import EntryKey


@dataclass(frozen=True, slots=True)
class Parcel:
    """Traces, or a later piece of one, with their chunks; the entry is done when they are acknowledged.

    `sent` is what is remembered of the turn; `edits` the edits that later pieces show, by record id. `has_feedback` says
    that the turn was rated before it was sent."""

    key: EntryKey
    outcome: str
    traces: tuple[Trace, ...]
    chunks: tuple[bytes, ...]
    sent: SentTurn | None = None
    edits: Mapping[str, Edit] = field(default_factory=dict)
    has_feedback: bool = False
