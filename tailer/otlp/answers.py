"""What an answer of an OTLP receiver means, by the OTLP specification (1.9); `docs/otlp.md` has the same as a table.

The specification repeats requests after 429, 502, 503 and 504 only. Some answers do not come from the receiver at all
(a login page, a redirect, a wrong path, a proxy's time-out): they say nothing of what was sent, and it is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import httpx

from tailer.outbound.failures import PROXY_REMEDY
from tailer.outbound.replies import is_lost_behind_proxy, is_refused_before, kind_of, read_pause


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
    GATE = "gate"
    """Something refuses that is not the receiver, or the receiver before it reads any OTLP."""
    PROXY = "proxy"
    """The proxy on the way out refuses: it asks for a user and a password."""
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
    """Something on the way lost the receiver's answer, and maybe not the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it is to be understood. `reason` is short and from few values, for logs and metrics; `remedy` is
    what a human can do about it, empty where there is nothing; `after_seconds` is the pause that was asked for."""

    meaning: Meaning
    status: int
    reason: str
    remedy: str = ""
    after_seconds: float | None = None


_BY_STATUS: Final[Mapping[int, Meaning]] = {
    401: Meaning.REFUSED,
    403: Meaning.REFUSED,
    404: Meaning.NO_RECEIVER,
    405: Meaning.NO_RECEIVER,
    407: Meaning.PROXY,
    408: Meaning.UNWELL,
    410: Meaning.NO_RECEIVER,
    413: Meaning.TOO_LARGE,
    425: Meaning.UNWELL,
    429: Meaning.LIMITED,
    502: Meaning.ANSWER_LOST,
    504: Meaning.ANSWER_LOST,
    511: Meaning.REFUSED,
    # Cloudflare's own: it had an empty answer, or none in time, from the server behind it.
    520: Meaning.ANSWER_LOST,
    524: Meaning.ANSWER_LOST,
}
_UNAVAILABLE: Final = 503
_REMEDIES: Final[Mapping[Meaning, str]] = {
    Meaning.PAGE: "a web page answered: the endpoint leads to something other than an OTLP receiver, or a login stands "
    "before it",
    Meaning.REDIRECT: "the address redirects: set the endpoint to where it leads, often https instead of http",
    Meaning.NO_RECEIVER: "nothing takes OTLP over HTTP at this path: /v1/traces is added to OTEL_EXPORTER_OTLP_ENDPOINT, "
    "while OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is used as it is; a collector takes gRPC on 4317 and HTTP on 4318",
    Meaning.GATE: "this is no answer over OTLP: http where the receiver speaks https, a gateway before it that asks for a "
    "certificate (OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, or cert_file), or a receiver that takes no gzip "
    "(OTEL_EXPORTER_OTLP_COMPRESSION, or compression)",
    Meaning.PROXY: PROXY_REMEDY,
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
    if status == _UNAVAILABLE:
        return Meaning.ANSWER_LOST if is_lost_behind_proxy(response) else Meaning.UNWELL
    if response.is_server_error:
        return Meaning.FAILED
    return Meaning.GATE if is_refused_before(response) else Meaning.INVALID
