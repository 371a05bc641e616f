"""The way through whatever is before Langfuse: headers, certificates and proxies. All requests to Langfuse use it."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import httpx

from tailer.errors import DestinationError
from tailer.events import Emit, Event
from tailer.langfuse.certificates import CertificateFiles, Certificates
from tailer.langfuse.proxies import choose_proxy

_KEEP_ALIVE_SECONDS = 3.0
"""Less than the five seconds after which a Node server closes an idle connection: a request sent into that moment
would have an unknown outcome."""


@dataclass(frozen=True, slots=True)
class Access:
    """The operator's settings for the way to Langfuse. Headers are secrets and appear in no representation."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: CertificateFiles = field(default_factory=CertificateFiles)


DIRECT = Access()


def unheard(event: Event) -> None:
    """For callers without a log, such as commands."""
    del event


def open_certificates(access: Access, emit: Emit = unheard) -> Certificates:
    """The certificates of an access; raises DestinationError, which names the variable, for an unusable file."""
    return Certificates(access.files, os.environ, emit, time.monotonic)


def open_client(
    address: str,
    certificates: Certificates,
    *,
    timeout: timedelta,
    connections: int,
    headers: Mapping[str, str],
    auth: tuple[str, str] | None = None,
) -> httpx.AsyncClient:
    """A client for one address; raises DestinationError, which names the variable, for an unusable proxy."""

    async def renew(_request: httpx.Request) -> None:
        certificates.renew()

    proxy = choose_proxy(address, os.environ)
    try:
        return httpx.AsyncClient(
            base_url=address,
            auth=auth,
            headers=dict(headers),
            timeout=timeout.total_seconds(),
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=_KEEP_ALIVE_SECONDS),
            follow_redirects=False,
            verify=certificates.context,
            proxy=None if proxy is None else proxy.url,
            # What the environment says of proxies and certificates is read above; httpx fails on some of it.
            trust_env=False,
            event_hooks={"request": [renew]},
        )
    except (httpx.InvalidURL, ValueError, ImportError):
        if proxy is None:
            raise
        raise DestinationError(
            operation="choosing the proxy",
            subject=proxy.variable,
            hint="it cannot be used; write it like http://proxy:3128 or socks5://proxy:1080, or name the host of "
            "Langfuse in NO_PROXY",
        ) from None
