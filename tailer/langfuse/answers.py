"""What an answer over HTTP means. The one place that tells them apart: spans, scores, reads and doctor ask here.

`docs/langfuse-answers.md` has the same as a table. The status decides less than it seems: a proxy, a login page, an
object store or another product answer with Langfuse's own statuses, and only the body gives them away. Langfuse itself
answers JSON, whatever it has to say (server 4.16).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import httpx

from tailer.outbound.failures import PROXY_REMEDY
from tailer.outbound.replies import (
    is_lost_behind_proxy,
    is_refused_before,
    kind_of,
    read_pause,
    text_of,
)


class Meaning(StrEnum):
    """What an answer says, whatever was asked."""

    TAKEN = "taken"
    """Done."""
    PAGE = "page"
    """A web page instead of an answer: a login, a proxy, a wrong path."""
    REDIRECT = "redirect"
    """Langfuse is somewhere else, or a login stands before it."""
    WRONG_KEYS = "wrong_keys"
    """Langfuse does not accept the keys, or not for this."""
    USAGE_THRESHOLD = "usage_threshold"
    """Langfuse Cloud has stopped taking data: the plan's limit is reached."""
    GATE = "gate"
    """Something before Langfuse refuses: an access proxy, a gateway that asks for a certificate, a firewall, an object
    store at the same address."""
    PROXY = "proxy"
    """The proxy on the way out refuses: it asks for a user and a password."""
    NOT_THERE = "not_there"
    """Langfuse does not know the path: too old, or in a mode without it."""
    NO_LANGFUSE = "no_langfuse"
    """Something answers that is not Langfuse."""
    TOO_LARGE = "too_large"
    """More than Langfuse or a gateway before it takes in one request."""
    INVALID = "invalid"
    """What was sent is not valid; the same bytes never will be."""
    LIMITED = "limited"
    """It answers, but not now: too many requests."""
    UNWELL = "unwell"
    """The server's own trouble: nothing was taken, later it may be."""
    ANSWER_LOST = "answer_lost"
    """Something on the way lost the server's answer, and maybe not the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it is to be understood. `reason` is short and from few values, for logs and metrics; `remedy` is
    what a human can do about it, empty where there is nothing; `after_seconds` is the pause that was asked for."""

    meaning: Meaning
    status: int
    reason: str
    remedy: str = ""
    after_seconds: float | None = None

    @property
    def explained(self) -> str:
        """Status and remedy in one line."""
        return f"HTTP {self.status}: {self.remedy}" if self.remedy else f"HTTP {self.status}"


PASSING: Final = frozenset({Meaning.LIMITED, Meaning.UNWELL, Meaning.ANSWER_LOST})
"""What passes by itself, sooner or later."""
NO_LANGFUSE_REMEDY: Final = (
    "this address answers, but not like a Langfuse server; set LANGFUSE_HOST, or host in the file of destinations, to the "
    "address that Langfuse's page has in the browser, without a path, for example https://cloud.langfuse.com"
)
_REMEDIES: Final[Mapping[Meaning, str]] = {
    Meaning.PAGE: (
        "a web page answered: LANGFUSE_HOST, or host in the file of destinations, leads to something other than Langfuse, "
        "or a login stands before it (TAILER_LANGFUSE_HEADERS, or headers, carries what an access proxy asks for)"
    ),
    Meaning.REDIRECT: (
        "the address redirects: set LANGFUSE_HOST, or host in the file of destinations, to where it leads, with https "
        "where Langfuse wants it; if it leads to a login, TAILER_LANGFUSE_HEADERS, or headers, carries what the access "
        "proxy asks for"
    ),
    Meaning.WRONG_KEYS: (
        "the keys are not accepted; check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, or public_key and secret_key in "
        "the file of destinations (project settings, API keys), and that LANGFUSE_HOST, or host, is the region or server "
        "they were made on"
    ),
    Meaning.USAGE_THRESHOLD: (
        "Langfuse Cloud takes no more data: the plan's usage threshold is reached; upgrade the plan or wait for the next "
        "billing period. What happens meanwhile is sent then, as far as MongoDB's oplog reaches"
    ),
    Meaning.GATE: (
        "something before Langfuse refuses, and it is not Langfuse: an access proxy, a firewall or another service at "
        "its address. Set TAILER_LANGFUSE_HEADERS, or headers in the file of destinations, to what it asks for, or let it "
        "pass /api/public/. If it asks for a certificate, TAILER_LANGFUSE_CERT_FILE and TAILER_LANGFUSE_KEY_FILE, or "
        "cert_file and key_file, name one that has not expired; if it speaks https, LANGFUSE_HOST, or host, says https"
    ),
    Meaning.PROXY: PROXY_REMEDY,
    Meaning.NOT_THERE: (
        "this Langfuse does not know the path: the server is too old (3.22 or later is needed) or runs in a mode without it"
    ),
    Meaning.NO_LANGFUSE: NO_LANGFUSE_REMEDY,
    Meaning.TOO_LARGE: (
        "a gateway before Langfuse limits the size of requests (nginx: client_max_body_size); raise it to 16 MB, or set "
        "TAILER_BATCH_BYTES lower"
    ),
}


def understand(response: httpx.Response) -> Answer:
    """The meaning of an answer whose body was read."""
    status = response.status_code
    meaning = _find_meaning(response)
    reason = f"http_{status}"
    if meaning is Meaning.USAGE_THRESHOLD:
        reason = meaning.value
    elif meaning is Meaning.PAGE:
        reason = "answered with a page"
    return Answer(meaning, status, reason, _REMEDIES.get(meaning, ""), read_pause(response.headers))


_BY_STATUS: Final[Mapping[int, Meaning]] = {
    407: Meaning.PROXY,
    408: Meaning.UNWELL,
    409: Meaning.UNWELL,
    413: Meaning.TOO_LARGE,
    423: Meaning.UNWELL,
    425: Meaning.UNWELL,
    429: Meaning.LIMITED,
    502: Meaning.ANSWER_LOST,
    504: Meaning.ANSWER_LOST,
    511: Meaning.GATE,
    # Cloudflare's own: it had an empty answer, or none in time, from the server behind it.
    520: Meaning.ANSWER_LOST,
    524: Meaning.ANSWER_LOST,
}
"""Statuses that mean one thing, whoever answers."""


def _find_meaning(response: httpx.Response) -> Meaning:
    status, kind = response.status_code, kind_of(response)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if response.is_success:
        return Meaning.PAGE if kind == "page" else Meaning.TAKEN
    if status < 400:  # noqa: PLR2004 - HTTP
        return Meaning.REDIRECT
    is_langfuse = kind == "json"
    if status in (404, 405, 410, 501):
        return Meaning.NOT_THERE if is_langfuse else Meaning.NO_LANGFUSE
    if response.is_server_error:
        return Meaning.ANSWER_LOST if is_lost_behind_proxy(response) else Meaning.UNWELL
    if status in (401, 403) and "usage threshold" in text_of(response).lower():
        return Meaning.USAGE_THRESHOLD
    if status in (401, 403):
        return Meaning.WRONG_KEYS if is_langfuse else Meaning.GATE
    return Meaning.GATE if is_refused_before(response) else Meaning.INVALID
