"""What came of sending something, and of asking for it: values that the flow branches on."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from tailer.core.identity import ObservationId


class RequestResult(StrEnum):
    """What a request is counted as."""

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
    """Nothing was taken; try again, after the given time where one was named."""

    reason: str
    after_seconds: float | None = None
    result: RequestResult = field(default=RequestResult.RETRY, compare=False)
    remedy: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The batch is too large for the destination."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something in the batch is not valid; nothing was taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The destination does not let this in: the keys, the plan, or something before it."""

    reason: str
    remedy: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody saw the answer: the batch may have been taken."""

    reason: str
    result: RequestResult = field(default=RequestResult.TIMEOUT, compare=False)


@dataclass(frozen=True, slots=True)
class StorageAway:
    """The destination answers, and the storage behind it does not take files just now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """Those of the observations asked for that the destination holds."""

    observation_ids: frozenset[ObservationId]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The destination could not answer just now.

    `is_limited` says that it is there and has been asked too often; `after_seconds` is the pause it asked for."""

    reason: str
    after_seconds: float | None = field(default=None, compare=False)
    is_limited: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The destination does not let itself be read with these keys, or in this version."""

    reason: str


LookupAnswer: TypeAlias = Found | Unanswered | Unreadable

DeliveryOutcome: TypeAlias = Delivered | Retry | TooLarge | Rejected | Refused | Unknown
