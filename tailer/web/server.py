"""Serves `/livez`, `/readyz`, `/metrics` and, if wanted, the status page. It reads what the daemon says of itself and
changes nothing."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from tailer.errors import SettingsError
from tailer.health import Health
from tailer.web.embedded import EmbeddedServer
from tailer.web.guard import HEADERS
from tailer.web.listening import explain_refusal, join_address, open_sockets
from tailer.web.status_page import StatusPage

PATIENCE_SECONDS = 15.0
"""A stream that is silent for longer makes the daemon not ready. It answers every 2.5 seconds, and an election takes
some eleven seconds."""
_STALLED_SECONDS = 30.0
"""An event loop that has not run its sampler for this long is stuck, and a restart is better."""


class WebServer:
    """One HTTP server on the daemon's event loop, on one port of one or several addresses."""

    def __init__(
        self,
        host: str,
        port: int,
        health: Health,
        registry: CollectorRegistry,
        *,
        monotonic: Callable[[], float],
        page: StatusPage | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._registry = registry
        self._monotonic = monotonic
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
            *(() if page is None else page.routes()),
        ]
        self._server = EmbeddedServer(Router(routes, redirect_slashes=False), HEADERS)

    async def __aenter__(self) -> Self:
        """Listen; raises SettingsError when the port is taken, or the address is none of this machine's."""
        try:
            sockets = await asyncio.to_thread(open_sockets, self._host, self._port)
        except OSError as error:
            raise SettingsError(
                operation="opening the HTTP port",
                subject=join_address(self._host, self._port),
                hint=f"{error.strerror or 'it cannot be used'}; {explain_refusal(error)}",
            ) from error
        await self._server.start(sockets)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._server.stop()

    @property
    def addresses(self) -> Sequence[str]:
        """Where it listens, as hosts with a port."""
        return [join_address(*address[:2]) for address in self._server.addresses]

    @property
    def port(self) -> int:
        """The port in use; the actual one if any free port was asked for."""
        return int(self._server.addresses[0][1])

    async def _livez(self, request: Request) -> Response:
        """200 while the event loop runs; MongoDB and Langfuse do not matter."""
        del request
        silent = self._monotonic() - self._health.loop_seconds
        if silent > _STALLED_SECONDS:
            return JSONResponse({"status": "stalled", "silent_seconds": round(silent)}, 503)
        return JSONResponse({"status": "alive"})

    async def _readyz(self, request: Request) -> Response:
        """200 while streaming; 503 with the reasons otherwise."""
        del request
        problems = self._health.problems(self._monotonic(), patience_seconds=PATIENCE_SECONDS)
        body = {"status": "not ready" if problems else "ready", "state": self._health.state.value}
        if problems:
            body["problems"] = "; ".join(problems)
        troubles = self._health.troubles()
        if troubles and not problems:
            body["destinations"] = "; ".join(troubles)
        if self._health.gaps:
            body["gaps"] = f"{self._health.gaps} stretches of history were lost and are not exported"
        if self._health.missing_shards:
            # This one is well: to restart it would help nothing.
            body["missing_shards"] = (
                f"{', '.join(self._health.missing_shards)} have no active instance, or stand still"
            )
        return JSONResponse(body, 503 if problems else 200)

    async def _metrics(self, request: Request) -> Response:
        """All metrics, in the format the scraper asks for."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": content_type})
