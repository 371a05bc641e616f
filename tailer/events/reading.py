"""What happens to rows and turns."""

from dataclasses import dataclass
from typing import ClassVar

from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.events.base import DestinationEvent, Event


@dataclass(frozen=True, slots=True)
class TurnDone(Event):
    """An entry was closed; `outcome` is one of the closed lists of outcomes and exclusions."""

    level: ClassVar[str | None] = None
    outcome: EntryOutcome
    count: int = 1


@dataclass(frozen=True, slots=True)
class MostTurnsLeftOut(Event):
    """Of the last turns nearly all were left out for one reason: `copied`, `temporary`, or a fact that a rule asks for
    could not be read (`unread_role`, `unread_group`, `unread_tag`)."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "most_turns_left_out"
    reason: str
    left_out: int
    turns: int


@dataclass(frozen=True, slots=True)
class PartsUnknown(Event):
    """An answer holds parts of types that this release does not know; its trace names them."""

    level: ClassVar[str | None] = None
    parts: int


@dataclass(frozen=True, slots=True)
class TurnFailed(DestinationEvent):
    """A turn could not be read or built; it is kept as a dead letter."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "turn_failed"
    message_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RowUnreadable(Event):
    """A row lacks a field that every message has; the event names the field, not its content."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "row_unreadable"
    collection: str
    document_key: str
    field: str


@dataclass(frozen=True, slots=True)
class CollectionDenied(Event):
    """A collection may not be read. Its data is left out until it may. Rules that ask for it choose the strictest."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "collection_denied"
    collection: str


@dataclass(frozen=True, slots=True)
class ReadFailed(Event):
    """A query for rows failed and is tried again; `hint` says what to do where it does not pass by itself."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "read_failed"
    collection: str
    failure: str
    hint: str | None = None
