"""Serves the status page: `/`, its script, style and icon from the package, and its data at `/status.json`."""

import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tailer.core.json_text import encode_json_bytes
from tailer.web.guard import is_known_host
from tailer.web.page.report import Report

_ASSETS: Final = {
    "/": ("status.html", "text/html"),
    "/status.css": ("status.css", "text/css"),
    "/status.js": ("status.js", "text/javascript"),
    "/status-plots.js": ("status-plots.js", "text/javascript"),
    "/status-traces.js": ("status-traces.js", "text/javascript"),
    "/status-words.js": ("status-words.js", "text/javascript"),
    "/status.svg": ("status.svg", "image/svg+xml"),
}
_FRESH_SECONDS: Final = 1.0
"""At most one report is made per second, however many people look."""

Answer = Callable[[Request], Awaitable[Response]]


class StatusPage:
    """The routes of the page. `names` are further host names under which it may be asked for."""

    def __init__(self, report: Callable[[], Report], names: tuple[str, ...]) -> None:
        self._report = report
        self._names = names
        self._body = b""
        self._made_seconds: float | None = None

    def routes(self) -> list[Route]:
        """GET and HEAD of each path; the files are read now."""
        directory = files("tailer.web") / "assets"
        routes = [Route("/status.json", self._guarded(self._answer_report))]
        for path, (name, content_type) in _ASSETS.items():
            answer = _answer_with((directory / name).read_bytes(), content_type)
            routes.append(Route(path, self._guarded(answer)))
        return routes

    async def _answer_report(self, request: Request) -> Response:
        del request
        now = time.monotonic()
        if self._made_seconds is None or now - self._made_seconds >= _FRESH_SECONDS:
            self._body = encode_json_bytes(self._report())
            self._made_seconds = now
        return Response(self._body, media_type="application/json; charset=utf-8")

    def _guarded(self, answer: Answer) -> Answer:
        async def guard(request: Request) -> Response:
            if not is_known_host(request.headers.get("Host"), self._names):
                return PlainTextResponse(
                    "The status page is not served under this name: ask for it by an address, or add the name to "
                    "TAILER_STATUS_HOSTS.\n",
                    421,
                )
            return await answer(request)

        return guard


def _answer_with(body: bytes, content_type: str) -> Answer:
    async def answer(request: Request) -> Response:
        del request
        return Response(body, media_type=f"{content_type}; charset=utf-8")

    return answer
