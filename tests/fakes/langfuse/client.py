"""A client for the control routes of a fake in another process, for tests that do not run an event loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.langfuse.faults import Fault

State = dict[str, Any]


class ControlClient:
    """Programs and questions the fake at `url`."""

    def __init__(self, url: str, *, timeout_seconds: float = 10.0) -> None:
        self._host = urlsplit(url).netloc
        self._timeout_seconds = timeout_seconds

    def add_faults(self, *faults: Fault) -> None:
        """Put faults in force."""
        self._call("POST", "/_control/faults", [fault.as_json() for fault in faults])

    def clear_faults(self) -> None:
        """Serve everything correctly from now on."""
        self._call("DELETE", "/_control/faults")

    def release(self) -> None:
        """Cut the connections that are held without an answer."""
        self._call("POST", "/_control/release")

    def reset(self) -> None:
        """Forget data, faults, counts and the journal."""
        self._call("POST", "/_control/reset")

    def set_visible_after(self, seconds: float) -> None:
        """How long after its arrival a span can be read."""
        self._call("POST", "/_control/visibility", {"seconds": seconds})

    def state(self) -> State:
        """Counts of everything, violations and faults."""
        found: State = self._call("GET", "/_control/state")
        return found

    def arrivals(self) -> dict[str, float]:
        """When the last span of each trace arrived, in seconds since 1970."""
        found: dict[str, float] = self._call("GET", "/_control/arrivals")
        return found

    def traces(self) -> list[dict[str, Any]]:
        """One summary a trace in order of arrival."""
        found: list[dict[str, Any]] = self._call("GET", "/_control/traces")["traces"]
        return found

    def trace(self, trace_id: str) -> list[dict[str, Any]] | None:
        """All spans of a trace in order of arrival, None when there are none."""
        found: list[dict[str, Any]] | None = self._call("GET", f"/_control/traces/{trace_id}").get("spans")
        return found

    def wait_until(self, condition: Callable[[State], bool], *, timeout_seconds: float) -> State:
        """The first state that fulfils `condition`; TimeoutError, with the last, when none does."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            state = self.state()
            if condition(state):
                return state
            if time.monotonic() >= deadline:
                message = f"not reached within {timeout_seconds} seconds, the state is {state}"
                raise TimeoutError(message)
            time.sleep(0.02)

    def _call(self, method: str, path: str, document: Any = None) -> Any:
        body = None if document is None else json.dumps(document).encode()
        connection = HTTPConnection(self._host, timeout=self._timeout_seconds)
        with closing(connection):
            connection.request(method, path, body=body, headers={"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        if response.status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            message = f"{method} {path} was answered with {response.status}: {answer}"
            raise ValueError(message)
        return answer
