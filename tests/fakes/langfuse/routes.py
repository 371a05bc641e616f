"""The routes of Langfuse's public API that a trace exporter uses, and the faults that befall them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import assert_never

from aiohttp import web

from tests.fakes.langfuse.faults import Effect, Fault, Route
from tests.fakes.langfuse.media import add_storage
from tests.fakes.langfuse.request_body import RefusedRequestError
from tests.fakes.langfuse.state import LangfuseState

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY_BYTES = 256 * 1024 * 1024
# On close the kernel drops what is unsent and resets: struct linger with l_onoff 1 and l_linger 0.
# What Langfuse Cloud counts as `public-api`: everything but the ways in.
_COUNTED = frozenset(
    {
        Route.OBSERVATIONS,
        Route.OBSERVATION,
        Route.SCORES,
        Route.SCORE_READS,
        Route.SCORE_DELETE,
        Route.PROJECTS,
    }
)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class HeldConnections:
    """Lets requests wait until somebody releases them or the fake closes."""

    def __init__(self) -> None:
        self._released = asyncio.Event()

    def release(self) -> None:
        """Wake all that wait now; later ones wait for the next release."""
        self._released.set()
        self._released = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the next release."""
        await self._released.wait()

    async def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or less when released."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait()


class PublicApi:
    """Answers the public routes from `state`, unless a fault comes first."""

    def __init__(
        self,
        state: LangfuseState,
        held: HeldConnections,
        *,
        public_key: str,
        secret_key: str,
        notify: Callable[[], None],
    ) -> None:
        self._state = state
        self._held = held
        self._authorization = "Basic " + base64.b64encode(f"{public_key}:{secret_key}".encode()).decode()
        self._notify = notify

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register all routes; whatever else is asked for gets the web page of a 404."""
        wrap = self._with_faults
        router.add_post("/api/public/otel/v1/traces", wrap(Route.SPANS, self._post_spans))
        router.add_get("/api/public/v2/observations", wrap(Route.OBSERVATIONS, self._get_observations))
        router.add_get("/api/public/observations/{id}", wrap(Route.OBSERVATION, self._get_observation))
        router.add_post("/api/public/ingestion", wrap(Route.EVENTS, self._post_events))
        router.add_get("/api/public/projects", wrap(Route.PROJECTS, self._get_projects))
        router.add_get("/api/public/health", wrap(Route.HEALTH, self._get_health))
        router.add_post("/api/public/scores", wrap(Route.SCORES, self._post_scores))
        router.add_get("/api/public/v3/scores", wrap(Route.SCORE_READS, self._get_scores))
        router.add_delete("/api/public/scores/{id}", wrap(Route.SCORE_DELETE, self._delete_score))
        router.add_delete("/api/public/traces", wrap(Route.TRACE_DELETE, self._delete_traces))
        router.add_post("/api/public/media", wrap(Route.MEDIA, self._announce_media))
        router.add_patch("/api/public/media/{id}", wrap(Route.MEDIA, self._finish_media))
        add_storage(router, self._state.media)
        router.add_route("*", "/{path:.*}", wrap(Route.UNKNOWN, self._not_found))

    async def _post_spans(self, request: web.Request) -> web.Response:
        self._state.accept_spans(
            await request.read(),
            content_type=request.headers.get("Content-Type", ""),
            encoding=request.headers.get("Content-Encoding"),
            ingestion_version=request.headers.get("x-langfuse-ingestion-version"),
        )
        return web.json_response({})

    async def _get_observations(self, request: web.Request) -> web.Response:
        return web.json_response(self._state.read_observations(_query(request)))

    async def _get_observation(self, request: web.Request) -> web.Response:
        return web.json_response(self._state.read_observation(request.match_info["id"]))

    async def _post_events(self, request: web.Request) -> web.Response:
        return web.json_response(self._state.accept_events(await request.read()), status=207)

    async def _announce_media(self, request: web.Request) -> web.Response:
        storage_url = f"{request.scheme}://{request.host}"
        return web.json_response(self._state.media.announce(await request.json(), storage_url), status=201)

    async def _finish_media(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._state.media.done[request.match_info["id"]] = body["uploadHttpStatus"]
        return web.json_response({})

    async def _get_projects(self, _request: web.Request) -> web.Response:
        organization = {"id": "organization-test", "name": "Test organization"}
        project = {
            "id": self._state.project_id,
            "name": "Test project",
            "organization": organization,
            "metadata": {},
        }
        return web.json_response({"data": [project]})

    async def _get_health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "OK", "version": self._state.release.version})

    async def _post_scores(self, request: web.Request) -> web.Response:
        status, document = self._state.accept_scores(await request.read())
        return web.json_response(document, status=status)

    async def _get_scores(self, request: web.Request) -> web.Response:
        return web.json_response(self._state.scores.read(_query(request)))

    async def _delete_score(self, request: web.Request) -> web.Response:
        self._state.delete_score(request.match_info["id"])
        return web.json_response({"message": "Score deletion queued successfully"}, status=202)

    async def _delete_traces(self, request: web.Request) -> web.Response:
        self._state.delete_traces(await request.read())
        return web.json_response({"message": "Traces deleted successfully"})

    async def _not_found(self, request: web.Request) -> web.Response:
        self._state.unknown_requests.append(f"{request.method} {request.path}")
        return web.Response(status=404, text="<!DOCTYPE html><title>404</title>", content_type="text/html")

    def _with_faults(self, route: Route, handler: Handler) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            fault = self._state.faults.pick(
                route,
                body_bytes=len(body),
                holds=lambda marker: self._state.holds_marker(
                    body,
                    content_type=request.headers.get("Content-Type", ""),
                    encoding=request.headers.get("Content-Encoding"),
                    marker=marker,
                ),
            )
            if fault is None:
                return self._counted(route, await self._answer(request, route, handler))
            return await self._misbehave(request, route, handler, fault)

        return serve

    async def _answer(self, request: web.Request, route: Route, handler: Handler) -> web.StreamResponse:
        if route not in {Route.HEALTH, Route.UNKNOWN} and not secrets.compare_digest(
            request.headers.get("Authorization", "").encode(), self._authorization.encode()
        ):
            return _problem(401, "Invalid credentials", "UnauthorizedError")
        if route in _COUNTED and (seconds := self._state.read_limit.refuse_for()) is not None:
            refused = _problem(429, "Rate limit exceeded", "RateLimitError")
            refused.headers["Retry-After"] = str(seconds)
            return refused
        try:
            return await handler(request)
        except RefusedRequestError as refusal:
            return _problem(refusal.status, refusal.message, "InvalidRequestError")

    async def _misbehave(
        self, request: web.Request, route: Route, handler: Handler, fault: Fault
    ) -> web.StreamResponse:
        self._notify()
        if fault.delay_seconds:
            await self._held.pause(fault.delay_seconds)
        if fault.effect is Effect.DELAY:
            return self._counted(route, await self._answer(request, route, handler))
        if fault.stored:
            await self._answer(request, route, handler)
        match fault.effect:
            case Effect.ANSWER:
                return self._counted(route, _ordered_answer(fault))
            case Effect.TOO_LARGE:
                return self._counted(route, _problem(413, "Request Entity Too Large", "PayloadTooLarge"))
            case Effect.BAD_SPAN:
                return self._counted(route, _problem(400, "Invalid OTLP trace export", "InvalidRequestError"))
            case Effect.HANG | Effect.CUT | Effect.RESET:
                self._count(route, f"{fault.effect.value} {'after' if fault.stored else 'before'}")
                if fault.effect is Effect.HANG:
                    await self._held.wait()
                return _break_connection(request, reset=fault.effect is Effect.RESET)
            case _:
                assert_never(fault.effect)

    def _counted(self, route: Route, response: web.StreamResponse) -> web.StreamResponse:
        self._count(route, str(response.status))
        return response

    def _count(self, route: Route, outcome: str) -> None:
        self._state.requests[route, outcome] += 1
        self._notify()


def _query(request: web.Request) -> dict[str, list[str]]:
    return {name: [str(value) for value in request.query.getall(name)] for name in request.query}


def _problem(status: int, message: str, error: str) -> web.Response:
    return web.json_response({"message": message, "error": error}, status=status)


def _ordered_answer(fault: Fault) -> web.Response:
    headers = {"Content-Type": fault.content_type}
    if fault.retry_after is not None:
        headers["Retry-After"] = fault.retry_after
    return web.Response(status=fault.status, body=fault.body.encode(), headers=headers)


def _break_connection(request: web.Request, *, reset: bool) -> web.Response:
    transport = request.transport
    if transport is not None:
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.abort()
    # Nobody receives this one: the connection is gone.
    return web.Response(status=500)
