"""The control routes: program faults and look inside from another process. They ask for no keys."""

from __future__ import annotations

import json
from collections.abc import Callable

from aiohttp import web

from tests.fakes.langfuse.faults import Fault
from tests.fakes.langfuse.routes import HeldConnections
from tests.fakes.langfuse.state import LangfuseState


class ControlApi:
    """Answers /_control/ from `state`."""

    def __init__(self, state: LangfuseState, held: HeldConnections, *, notify: Callable[[], None]) -> None:
        self._state = state
        self._held = held
        self._notify = notify

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register all control routes."""
        router.add_post("/_control/faults", self._add_faults)
        router.add_delete("/_control/faults", self._clear_faults)
        router.add_post("/_control/release", self._release)
        router.add_post("/_control/reset", self._reset)
        router.add_post("/_control/visibility", self._set_visibility)
        router.add_get("/_control/state", self._get_state)
        router.add_get("/_control/arrivals", self._get_arrivals)
        router.add_get("/_control/traces", self._get_traces)
        router.add_get("/_control/traces/{id}", self._get_trace)

    async def _add_faults(self, request: web.Request) -> web.Response:
        try:
            document = json.loads(await request.read())
            faults = [
                Fault.from_json(item) for item in (document if isinstance(document, list) else [document])
            ]
        except (ValueError, TypeError) as error:
            return web.json_response({"message": str(error)}, status=400)
        self._state.faults.add(*faults)
        return web.json_response({"faults": self._state.faults.as_json()})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._state.faults.clear()
        return web.json_response({"faults": []})

    async def _release(self, _request: web.Request) -> web.Response:
        self._held.release()
        return web.json_response({})

    async def _reset(self, _request: web.Request) -> web.Response:
        self._state.reset()
        self._held.release()
        self._notify()
        return web.json_response({})

    async def _set_visibility(self, request: web.Request) -> web.Response:
        try:
            self._state.visible_after_seconds = float(json.loads(await request.read())["seconds"])
        except (ValueError, TypeError, KeyError) as error:
            return web.json_response({"message": str(error)}, status=400)
        return web.json_response({})

    async def _get_state(self, _request: web.Request) -> web.Response:
        return web.json_response(self._state.as_json())

    async def _get_arrivals(self, _request: web.Request) -> web.Response:
        return web.json_response(self._state.spans.arrivals())

    async def _get_traces(self, _request: web.Request) -> web.Response:
        traces = [
            {
                "traceId": trace_id,
                "spans": len(spans),
                "names": [stored.name for stored in spans],
                "sessionId": spans[0].session_id,
                "userId": spans[0].user_id,
            }
            for trace_id, spans in self._state.spans.by_trace.items()
        ]
        return web.json_response({"traces": traces})

    async def _get_trace(self, request: web.Request) -> web.Response:
        spans = self._state.spans.by_trace.get(request.match_info["id"])
        if spans is None:
            return web.json_response({"message": "no such trace"}, status=404)
        return web.json_response({"spans": [stored.as_json() for stored in spans]})
