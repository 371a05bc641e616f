"""What came of sending something, and of asking for it: values that the flow branches on."""

from dataclasses import dataclass
from typing import TypeAlias

from tailer.core.identity import ObservationId


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has the whole batch and said so."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing was taken; try again, after the given time where one was named."""

    reason: str
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The batch is too large for the destination."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something in the batch is not valid; nothing was taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The keys are not accepted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody saw the answer: the batch may have been taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """Those of the observations asked for that the destination holds."""

    observation_ids: frozenset[ObservationId]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The destination could not answer just now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The destination does not let itself be read with these keys, or in this version."""

    reason: str


LookupAnswer: TypeAlias = Found | Unanswered | Unreadable

DeliveryOutcome: TypeAlias = Delivered | Retry | TooLarge | Rejected | Refused | Unknown
