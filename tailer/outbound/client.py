"""HTTP clients for a destination: with its certificates and proxy, and held to the right to send."""

import os
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Final, Self

import httpx

from tailer.errors import DestinationError
from tailer.flow.ports import Permit
from tailer.outbound.certificates import Certificates
from tailer.outbound.proxies import choose_proxy

_KEEP_ALIVE_SECONDS: Final = 3.0
"""Less than the five seconds after which a Node server closes an idle connection: a request sent into that moment
would have an unknown outcome."""
_HARMLESS_METHODS: Final = frozenset({"GET", "HEAD"})
_FIRST_BYTES: Final = ("send_request_headers.started", "send_request_body.started")
"""httpcore's names for the moments right before it writes. A request whose body it has not begun to write is lost as a
whole."""


class SendingDoubted(httpx.RequestError):
    """The right to send came into doubt while the connection was being opened: nothing of the request was sent."""


class ReleasedBody(httpx.AsyncByteStream):
    """A request's body that is released with its request. httpx's requests refer to themselves, and would keep it until
    the next garbage collection."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def __enter__(self) -> Self:
        """The body itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the bytes."""
        self._payload = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """All of it at once."""
        yield self._payload


def open_client(
    address: str,
    certificates: Certificates,
    *,
    timeout: timedelta,
    connections: int,
    headers: Mapping[str, str],
    auth: tuple[str, str] | None = None,
    host_of: str = "Langfuse",
) -> httpx.AsyncClient:
    """A client for one address; raises DestinationError, which names the variable, for an unusable proxy. `host_of`
    says in that error whose host it is."""

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
            f"{host_of} in NO_PROXY",
        ) from None


CHANGES_NOTHING: Final = "changes_nothing"
"""The extension of a request that changes nothing at the destination although its method says otherwise."""


def hold_to_permit(http: httpx.AsyncClient, permit: Permit) -> None:
    """Whatever changes something at the destination is sent only while `permit` holds: it is waited for before the
    request, and looked at again once the connection is there, because opening one can take long."""

    async def ask(request: httpx.Request) -> None:
        if request.method in _HARMLESS_METHODS or request.extensions.get(CHANGES_NOTHING):
            return
        await permit.wait()

        async def look_again(step: str, _: object) -> None:
            if step.endswith(_FIRST_BYTES) and not permit.holds():
                raise SendingDoubted("the lease is in doubt", request=request)

        request.extensions = {**request.extensions, "trace": look_again}

    http.event_hooks["request"].append(ask)
