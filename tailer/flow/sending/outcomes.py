"""The outcomes of sending and of looking up: values on which the flow branches."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from tailer.core.identity import ObservationId


class RequestResult(StrEnum):
    """How a request is counted."""

    OK = "ok"
    PARTIAL = "partial"
    RETRY = "retry"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    AUTH = "auth"
    REJECTED = "rejected"
    TOO_LARGE = "too_large"
    WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has the batch and said so; but for `rejected_spans` of it, where it said that too."""

    rejected_spans: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing was accepted; try again, after the given time if one was named."""

    reason: str
    after_seconds: float | None = None
    result: RequestResult = field(default=RequestResult.RETRY, compare=False)
    remedy: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The batch is too large for the destination."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something in the batch is invalid; nothing was accepted. `alone`: nobody said so, but all others are accepted."""

    reason: str
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The destination does not let this in: the keys, the plan, or something before it."""

    reason: str
    remedy: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The answer was lost: the batch may have been accepted. `after_seconds` is the pause that was asked for."""

    reason: str
    result: RequestResult = field(default=RequestResult.TIMEOUT, compare=False)
    after_seconds: float | None = field(default=None, compare=False)
    remedy: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class StorageAway:
    """The destination answers, but the storage behind it does not accept files at the moment."""

    reason: str
    remedy: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Found:
    """The observations, out of those asked for, that the destination holds. `out_of_sight`: those of which it does not
    say, because they are older than what it shows."""

    observation_ids: frozenset[ObservationId]
    out_of_sight: frozenset[ObservationId] = frozenset()


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The destination could not answer at the moment."""

    reason: str
    after_seconds: float | None = field(default=None, compare=False)
    is_limited: bool = field(default=False, compare=False)
    remedy: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The destination does not let itself be read with these keys, or in this version."""

    reason: str


LookupAnswer: TypeAlias = Found | Unanswered | Unreadable

DeliveryOutcome: TypeAlias = Delivered | Retry | TooLarge | Rejected | Refused | Unknown


class Reasoned(Protocol):
    """Whatever says why, and what a human can do about it."""

    @property
    def reason(self) -> str:
        """Short and from few values."""

    @property
    def remedy(self) -> str:
        """What to do; empty where nothing is known."""


def explain(reasoned: Reasoned) -> str:
    """Why, and what to do about it, in one line for the log."""
    return f"{reasoned.reason}: {reasoned.remedy}" if reasoned.remedy else reasoned.reason
