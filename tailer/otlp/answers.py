"""What an answer of an OTLP receiver means, by the OTLP specification (1.9); `docs/otlp.md` has the same as a table.

The specification repeats requests after 429, 502, 503 and 504 only. Some answers do not come from the receiver at all
(a login page, a redirect, a wrong path, a proxy's time-out): they say nothing of what was sent, and it is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import httpx

from tailer.core.trace.cutting import read_fields, read_number
from tailer.outbound.replies import kind_of, read_pause


class Meaning(StrEnum):
    """What an answer says."""

    TAKEN = "taken"
    """Done, or done but for some spans."""
    PAGE = "page"
    """A web page instead of an answer."""
    REDIRECT = "redirect"
    """The receiver is somewhere else, or a login stands before it."""
    NO_RECEIVER = "no_receiver"
    """Nothing takes OTLP at this path."""
    REFUSED = "refused"
    """The keys are missing, wrong, or not for this."""
    TOO_LARGE = "too_large"
    """More than the receiver takes in one request."""
    INVALID = "invalid"
    """What was sent is not valid; the same bytes never will be."""
    FAILED = "failed"
    """The receiver failed for good: by the specification the request must not be repeated."""
    LIMITED = "limited"
    """Too many requests."""
    UNWELL = "unwell"
    """Not now; nothing was taken."""
    ANSWER_LOST = "answer_lost"
    """A proxy lost the receiver's answer, and maybe not the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it is to be understood. `reason` is short and from few values, for logs and metrics; `remedy` is
    what a human can do about it, empty where there is nothing; `after_seconds` is the pause that was asked for."""

    meaning: Meaning
    status: int
    reason: str
    remedy: str = ""
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PartialSuccess:
    """What a receiver says of a request that it took: how many spans or data points it did not take, and whether it
    says something in words, which may repeat what was sent and is not kept."""

    rejected: int = 0
    has_message: bool = False


_BY_STATUS: Final[Mapping[int, Meaning]] = {
    401: Meaning.REFUSED,
    403: Meaning.REFUSED,
    404: Meaning.NO_RECEIVER,
    405: Meaning.NO_RECEIVER,
    407: Meaning.REFUSED,
    408: Meaning.UNWELL,
    410: Meaning.NO_RECEIVER,
    413: Meaning.TOO_LARGE,
    425: Meaning.UNWELL,
    429: Meaning.LIMITED,
    502: Meaning.ANSWER_LOST,
    503: Meaning.UNWELL,
    504: Meaning.ANSWER_LOST,
    511: Meaning.REFUSED,
    # Cloudflare's own: it had an empty answer, or none in time, from the server behind it.
    520: Meaning.ANSWER_LOST,
    524: Meaning.ANSWER_LOST,
}
_REMEDIES: Final[Mapping[Meaning, str]] = {
    Meaning.PAGE: "a web page answered: the endpoint leads to something other than an OTLP receiver, or a login stands "
    "before it",
    Meaning.REDIRECT: "the address redirects: set the endpoint to where it leads, often https instead of http",
    Meaning.NO_RECEIVER: "nothing takes OTLP over HTTP at this path: /v1/traces is added to OTEL_EXPORTER_OTLP_ENDPOINT, "
    "while OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is used as it is; a collector takes gRPC on 4317 and HTTP on 4318",
    Meaning.REFUSED: "the keys are not accepted: check OTEL_EXPORTER_OTLP_HEADERS, and whatever stands before the "
    "receiver",
}


def understand(response: httpx.Response) -> Answer:
    """The meaning of an answer whose body was read."""
    meaning, status = _find_meaning(response), response.status_code
    reason = "answered with a page" if meaning is Meaning.PAGE else f"http_{status}"
    return Answer(meaning, status, reason, _REMEDIES.get(meaning, ""), read_pause(response.headers))


def _find_meaning(response: httpx.Response) -> Meaning:
    status = response.status_code
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if response.is_success:
        return Meaning.PAGE if kind_of(response) == "page" else Meaning.TAKEN
    if status < 400:  # noqa: PLR2004 - HTTP
        return Meaning.REDIRECT
    return Meaning.FAILED if response.is_server_error else Meaning.INVALID


def read_partial_success(response: httpx.Response) -> PartialSuccess:
    """OTLP's `partial_success`, as protobuf or as JSON; spans and metrics have it at the same place. A body of another
    shape says nothing of the kind."""
    media = response.headers.get("content-type", "")
    try:
        if "json" in media:
            return _read_json(response.json())
        if "protobuf" in media:
            return _read_protobuf(response.content)
    except (ValueError, TypeError):
        pass
    return PartialSuccess()


def _read_json(body: object) -> PartialSuccess:
    told = body.get("partialSuccess") if isinstance(body, Mapping) else None
    if not isinstance(told, Mapping):
        return PartialSuccess()
    # Numbers of 64 bits are texts in protobuf's JSON.
    count = told.get("rejectedSpans", told.get("rejectedDataPoints", 0))
    return PartialSuccess(max(0, int(count)), bool(told.get("errorMessage")))


def _read_protobuf(content: bytes) -> PartialSuccess:
    told = next((inner for number, kind, inner in read_fields(content) if (number, kind) == (1, 2)), b"")
    fields = {(number, kind): inner for number, kind, inner in read_fields(told)}
    count = read_number(fields[1, 0]) if (1, 0) in fields else 0
    return PartialSuccess(count if count < 1 << 63 else 0, bool(fields.get((2, 2))))
