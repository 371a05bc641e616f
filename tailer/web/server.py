"""Serves `/livez`, `/readyz`, `/metrics` and, if wanted, the status page. It reads what the daemon says of itself and
changes nothing."""

import asyncio
import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from tailer.errors import SettingsError
from tailer.health import Health
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
        application = web.Application()
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        if page is not None:
            application.router.add_routes(page.routes())
        application.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1)

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
        await self._runner.setup()
        for listener in sockets:
            await web.SockSite(self._runner, listener).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    @property
    def addresses(self) -> Sequence[str]:
        """Where it listens, as hosts with a port."""
        return [join_address(*address[:2]) for address in self._runner.addresses]

    @property
    def port(self) -> int:
        """The port in use; the actual one if any free port was asked for."""
        return int(self._runner.addresses[0][1])

    async def _livez(self, request: web.Request) -> web.Response:
        """200 while the event loop runs; MongoDB and Langfuse do not matter."""
        del request
        silent = self._monotonic() - self._health.loop_seconds
        if silent > _STALLED_SECONDS:
            return web.json_response({"status": "stalled", "silent_seconds": round(silent)}, status=503)
        return web.json_response({"status": "alive"})

    async def _readyz(self, request: web.Request) -> web.Response:
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
        return web.Response(
            text=json.dumps(body), status=503 if problems else 200, content_type="application/json"
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        """All metrics, in the format the scraper asks for."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers, also of refusals."""
    del request
    response.headers.update(HEADERS)
