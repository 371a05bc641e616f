"""Keeps other web pages away from the status page: headers for the browser, and a check of the Host header.

A web page can point its own domain at this machine (DNS rebinding); the browser then lets it read what is served here.
It cannot choose the Host header, so a name that could be any domain is refused.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "librechat-tailer",
}
"""Headers of every answer. `X-Frame-Options` is for browsers that do not know `frame-ancestors`."""

_OWN_SUFFIXES: Final = (".localhost", ".svc", ".cluster.local")
"""Names that only the machine itself, or a cluster, resolves."""


def is_known_host(header: str | None, names: tuple[str, ...]) -> bool:
    """Whether a Host header cannot be a foreign domain: an address, a name without a dot, a name of a cluster, or one
    of `names`, which are in lower case."""
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return False
    if not name:
        return False
    name = name.rstrip(".")
    return name in names or "." not in name or name.endswith(_OWN_SUFFIXES) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
