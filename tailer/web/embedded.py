"""uvicorn within an event loop that is not its own: it takes no signals, and nothing of it runs between requests.

Its own way to serve (`Server.serve`) takes over SIGTERM, and wakes ten times a second to renew the Date header.
"""

import socket
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config, Server

from tailer.web.connections import BoundedProtocol

_KEEP_ALIVE_SECONDS: Final = 75
"""A scraper that comes once a minute keeps its connection."""
_BACKLOG: Final = 16
"""Connections that are accepted in one go. Where the process has no descriptor left, asyncio reports each of them."""
_END_SECONDS: Final = 1
"""How long an answer that is under way may take once the server stops."""


class EmbeddedServer:
    """Serves an ASGI application on sockets that listen already. `headers` are those of every answer."""

    def __init__(self, application: ASGIApp, headers: Mapping[str, str]) -> None:
        config = Config(
            _with_date(application),
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            # Where it is not given, WEB_CONCURRENCY decides, which is meant for others.
            workers=1,
            server_header=False,
            date_header=False,
            headers=list(headers.items()),
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        config.load()
        self._server = Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._sockets: list[socket.socket] = []

    @property
    def addresses(self) -> Sequence[Any]:
        """What each socket is bound to, as `getsockname` gives it: host and port, and more for IPv6."""
        return [listener.getsockname() for listener in self._sockets]

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Answer what comes over these sockets; they are closed by `stop`."""
        self._sockets = list(sockets)
        # Once, where uvicorn's own loop does it again and again: it brings the headers in force.
        await self._server.on_tick(0)
        await self._server.startup(sockets=self._sockets)

    async def stop(self) -> None:
        """Listen no longer; returns once what was asked before is answered."""
        await self._server.shutdown(sockets=self._sockets)


def _with_date(application: ASGIApp) -> ASGIApp:
    """Adds the Date header, which an origin server with a clock must send (RFC 9110, section 6.6.1)."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"date", formatdate(usegmt=True).encode("ascii"))]
            await send(message)

        await application(scope, receive, send_dated)

    return answer
