"""What any answer over HTTP says besides its status: the pause that it asks for, and what kind of body it has.

Whatever an answer holds, reading it fails with a ValueError at worst: it may come from anything on the way.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

_NOT_OF_THE_CONTENT: Final = frozenset({421, 431})
_TO_HTTPS: Final = "HTTP request to an HTTPS server"
_BROKEN_UPSTREAM: Final = "upstream connect error"
_LONGEST_PAUSE_SECONDS: Final = 3600.0
"""No `Retry-After` stops the daemon for longer, whatever a proxy made of it."""
_READ_CHARACTERS: Final = 2_000
"""Of a body that says why: enough for every message of Langfuse, and no more of a page."""


def read_pause(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds, given as a number or as a date; None where it is missing or unreadable."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
        return None if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_PAUSE_SECONDS)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # A date that names no zone is meant as UTC.
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max(0.0, (aware - datetime.now(UTC)).total_seconds()), _LONGEST_PAUSE_SECONDS)


def kind_of(response: httpx.Response) -> str:
    """json, protobuf, page, xml, or an empty text for what says nothing of itself."""
    media = response.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if media.endswith("json"):
        return "json"
    if media.endswith("protobuf"):
        return "protobuf"
    if media in ("text/html", "application/xhtml+xml"):
        return "page"
    if media.endswith("xml"):
        return "xml"
    # A page that is called text is one all the same.
    return "page" if text_of(response).lstrip().lower().startswith(("<!doctype html", "<html")) else ""


def is_refused_before(response: httpx.Response) -> bool:
    """Whether a 4xx comes from something before the server, so that it says nothing of what was sent: a page (nginx,
    where a client's certificate is missing or has expired), a name or headers that are not taken (421, 431), or http to
    a port that speaks https (in Go's words)."""
    if response.status_code in _NOT_OF_THE_CONTENT or kind_of(response) in ("page", "xml"):
        return True
    return kind_of(response) == "" and _TO_HTTPS in text_of(response)


def is_lost_behind_proxy(response: httpx.Response) -> bool:
    """Whether a proxy says, as Envoy does, that its connection broke, maybe after it had passed the request on."""
    return kind_of(response) == "" and _BROKEN_UPSTREAM in text_of(response)


def read_json(response: httpx.Response) -> Any:
    """The body as JSON; raises ValueError for what is none, or is nested deeper than anything that is meant."""
    try:
        return json.loads(response.content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def text_of(response: httpx.Response) -> str:
    """The beginning of the body."""
    return response.content[:_READ_CHARACTERS].decode("utf-8", "replace")
