"""HTTP clients for a destination: with its certificates and proxy, bounded, and held to the right to send."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
_WRITTEN: Final = "receive_response_headers.started"
"""httpcore's name for the moment at which the request is written."""
_BEFORE_WRITTEN: Final = ("send_request_headers.started", "start_tls.started")


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


class BoundedTransport(httpx.AsyncBaseTransport):
    """Bounds the whole answer, headers and body. httpx's own limit is for each read, so an answer that drips would
    never end."""

    def __init__(self, transport: httpx.AsyncBaseTransport, answer_seconds: float) -> None:
        self._transport = transport
        self._answer_seconds = answer_seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer with its body; raises httpx.ReadTimeout where it does not end in time."""
        try:
            async with asyncio.timeout(None) as limit:
                self._count_from_the_last_byte(request, limit)
                response = await self._transport.handle_async_request(request)
                body = b"".join([part async for part in response.aiter_raw()])
        except TimeoutError:
            raise httpx.ReadTimeout("the answer did not end in time", request=request) from None
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=httpx.ByteStream(body),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    def _count_from_the_last_byte(self, request: httpx.Request, limit: asyncio.Timeout) -> None:
        """Start the clock once the request is written. What comes before has limits of its own, and after those nothing
        can have been taken."""
        asked: Callable[[str, object], Awaitable[None]] | None = request.extensions.get("trace")

        async def follow(step: str, details: object) -> None:
            if asked is not None:
                await asked(step, details)
            if step.endswith(_BEFORE_WRITTEN):
                # So does the question to a proxy for a way, which comes first and is answered too.
                limit.reschedule(None)
            elif step.endswith(_WRITTEN):
                limit.reschedule(asyncio.get_running_loop().time() + self._answer_seconds)

        request.extensions = {**request.extensions, "trace": follow}


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
    says in that error whose host it is. `timeout` bounds each step of a request: to wait for a connection, to open it,
    to write, and to have the whole answer."""

    async def renew(_request: httpx.Request) -> None:
        certificates.renew()

    proxy = choose_proxy(address, os.environ)
    try:
        transport = httpx.AsyncHTTPTransport(
            verify=certificates.context,
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=_KEEP_ALIVE_SECONDS),
            proxy=None if proxy is None else proxy.url,
            trust_env=False,
        )
        return httpx.AsyncClient(
            base_url=address,
            auth=auth,
            headers=dict(headers),
            timeout=timeout.total_seconds(),
            transport=BoundedTransport(transport, timeout.total_seconds()),
            follow_redirects=False,
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
