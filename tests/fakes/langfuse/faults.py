"""The ways in which a server fails its clients, programmable one by one.

A `Fault` says what happens, on which kind of route, after how many requests and how often. `FaultPlan`
decides which one meets a request; carrying it out is the server's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any


class Route(StrEnum):
    """The kinds of routes that faults and counts tell apart."""

    SPANS = "spans"
    OBSERVATIONS = "observations"
    OBSERVATION = "observation"
    SCORES = "scores"
    EVENTS = "events"
    SCORE_READS = "score_reads"
    SCORE_DELETE = "score_delete"
    TRACE_DELETE = "trace_delete"
    MEDIA = "media"
    PROJECTS = "projects"
    HEALTH = "health"
    UNKNOWN = "unknown"
    ANY = "any"


class Effect(StrEnum):
    """What happens to a request that meets the fault."""

    ANSWER = "answer"
    """Answer with `status`, `body` and `retry_after`."""
    HANG = "hang"
    """Never answer: the connection is held until the fake is released or closed."""
    CUT = "cut"
    """Close the connection without an answer."""
    RESET = "reset"
    """Reset the connection (RST)."""
    DELAY = "delay"
    """Wait `delay_seconds`, then work as usual, even when the client has gone."""
    TOO_LARGE = "too_large"
    """413 for a body of more than `limit_bytes` on the wire."""
    BAD_SPAN = "bad_span"
    """400 for a batch with a span whose name or input contains `marker`; the answer does not say which."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail: `stored` keeps the request's data first, `times` None means for ever."""

    effect: Effect
    route: Route = Route.SPANS
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    stored: bool = False
    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    retry_after: str | None = None
    delay_seconds: float = 0.0
    limit_bytes: int = 0
    marker: str = ""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Fault:
        """The fault of a control request; ValueError for names it does not know."""
        unknown = set(document) - {item.name for item in fields(cls)}
        if unknown or "effect" not in document:
            message = f"a fault has an effect and no {sorted(unknown)}"
            raise ValueError(message)
        values = dict(document)
        values["effect"] = Effect(values["effect"])
        values["route"] = Route(values.get("route", Route.SPANS))
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """The fault as a control request carries it."""
        return asdict(self)


def answer(status: int, *, body: str = "", retry_after: str | None = None, **rest: Any) -> Fault:
    """An answer of `status`: 429 or 503 with `retry_after`, 500, 502, 401, 403 and so on."""
    text = body or f'{{"message": "status {status} by order of the test", "error": "Fault"}}'
    return Fault(Effect.ANSWER, status=status, body=text, retry_after=retry_after, **rest)


def html_page(status: int = 404, **rest: Any) -> Fault:
    """The web page of a proxy or a wrong address; with status 200 it looks like an acknowledgement."""
    page = "<!DOCTYPE html><html><body>This page could not be found.</body></html>"
    return Fault(Effect.ANSWER, status=status, body=page, content_type="text/html", **rest)


def garbage(**rest: Any) -> Fault:
    """Status 200, said to be JSON, and is not."""
    return Fault(Effect.ANSWER, status=200, body='{"partial', **rest)


def hang(*, stored: bool, **rest: Any) -> Fault:
    """A request that is never answered: before (`stored` false) or after its data was accepted."""
    return Fault(Effect.HANG, stored=stored, **rest)


def cut(*, stored: bool, **rest: Any) -> Fault:
    """A connection that is closed without an answer, before or after the data was accepted."""
    return Fault(Effect.CUT, stored=stored, **rest)


def reset(*, stored: bool = False, **rest: Any) -> Fault:
    """A connection that is reset."""
    return Fault(Effect.RESET, stored=stored, **rest)


def delay(seconds: float, **rest: Any) -> Fault:
    """A slow but correct answer."""
    return Fault(Effect.DELAY, delay_seconds=seconds, **rest)


def too_large(limit_bytes: int, **rest: Any) -> Fault:
    """413 for bodies above `limit_bytes`, for ever unless told otherwise."""
    return Fault(Effect.TOO_LARGE, limit_bytes=limit_bytes, **{"times": None, **rest})


def bad_span(marker: str, **rest: Any) -> Fault:
    """400 for a batch with a span that has `marker` in its name or input, for ever unless told otherwise."""
    return Fault(Effect.BAD_SPAN, marker=marker, **{"times": None, **rest})


class _Armed:
    """A fault with its own counts."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen = 0
        self.fired = 0

    def meets(self, route: Route, *, body_bytes: int, holds: Callable[[str], bool]) -> bool:
        fault = self.fault
        if fault.route not in {route, Route.ANY}:
            return False
        self.seen += 1
        if self.seen <= fault.after or (fault.times is not None and self.fired >= fault.times):
            return False
        if fault.effect is Effect.TOO_LARGE and body_bytes <= fault.limit_bytes:
            return False
        if fault.effect is Effect.BAD_SPAN and not holds(fault.marker):
            return False
        if fault.probability < 1.0 and self._roll() >= fault.probability:
            return False
        self.fired += 1
        return True

    def _roll(self) -> float:
        # From the seed and the number of the request, so that a run can be repeated.
        digest = hashlib.sha256(f"{self.fault.seed}:{self.seen}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64


class FaultPlan:
    """The faults in force; the first that meets a request wins."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def add(self, *faults: Fault) -> None:
        """Put faults in force, behind those that are."""
        self._armed.extend(_Armed(fault) for fault in faults)

    def clear(self) -> None:
        """Serve everything correctly from now on."""
        self._armed.clear()

    def pick(self, route: Route, *, body_bytes: int, holds: Callable[[str], bool]) -> Fault | None:
        """The fault that this request meets; `holds` tells whether a span of it contains a marker."""
        picked: Fault | None = None
        for armed in self._armed:
            if picked is None and armed.meets(route, body_bytes=body_bytes, holds=holds):
                picked = armed.fault
        return picked

    def as_json(self) -> list[dict[str, Any]]:
        """Each fault with how many requests it saw and how often it fired."""
        return [{**armed.fault.as_json(), "seen": armed.seen, "fired": armed.fired} for armed in self._armed]
