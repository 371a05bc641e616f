"""What happens to the lease: which instance is the active one."""

from dataclasses import dataclass
from typing import ClassVar

from tailer.events.base import Event


@dataclass(frozen=True, slots=True)
class StandingBy(Event):
    """Another instance is active. This one is ready and takes over when that one ends or falls silent."""

    name: ClassVar[str] = "standing_by"
    active_host: str
    active_epoch: int


@dataclass(frozen=True, slots=True)
class LeaseTaken(Event):
    """This instance is the active one now."""

    name: ClassVar[str] = "lease_taken"
    epoch: int
    waited_seconds: float
    after_release: bool


@dataclass(frozen=True, slots=True)
class LeaseDoubted(Event):
    """The lease could not be renewed in time. Nothing is sent until it is certain again."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "lease_doubted"
    epoch: int
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class LeadershipLost(Event):
    """Another instance took the lease over. This one writes and sends nothing more, and stands by."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "leadership_lost"
    epoch: int


@dataclass(frozen=True, slots=True)
class LeaseReleased(Event):
    """This instance gave the lease up in order. The next one begins at once."""

    name: ClassVar[str] = "lease_released"
    epoch: int


@dataclass(frozen=True, slots=True)
class LayoutAwaited(Event):
    """The state is divided into another number of shards, and one of them has an active instance. This one stands by
    until all of them have ended."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "layout_awaited"
    shards_in_force: int
    own_shards: int
    active_host: str


@dataclass(frozen=True, slots=True)
class LayoutChanged(Event):
    """This instance has divided the state into another number of shards."""

    name: ClassVar[str] = "layout_changed"
    shards_before: int
    shards: int


@dataclass(frozen=True, slots=True)
class ShardsMissing(Event):
    """Shards of this LibreChat have no active instance, or do not get on. Told when that changes; none: all are well
    again."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "shards_missing"
    missing: tuple[str, ...]
    shards: int


@dataclass(frozen=True, slots=True)
class ShardsSeen(Event):
    """All shards were looked at."""

    level: ClassVar[str | None] = None
    shards: int
    missing: int
