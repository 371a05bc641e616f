"""The sink over a real connection, and what goes over the wire."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx

from tailer.core.trace.otlp import SpanContext
from tailer.langfuse.connection import Credentials, LangfuseConnection
from tailer.langfuse.spans import LangfuseSpans
from tests.fakes.langfuse import FakeLangfuse

REQUEST_SECONDS = 0.4
LOOKUP_SECONDS = 0.8


@dataclass(slots=True)
class Wire:
    """What was sent: the time (seconds since 1970), the path, the body."""

    requests: list[tuple[float, str, bytes]] = field(default_factory=list)

    async def note(self, request: httpx.Request) -> None:
        self.requests.append((time.time(), request.url.path, await request.aread()))

    @property
    def posts(self) -> list[bytes]:
        """The bodies of the span requests."""
        return [body for _, path, body in self.requests if path.endswith("/otel/v1/traces")]

    @property
    def post_times(self) -> list[float]:
        return [at for at, path, _ in self.requests if path.endswith("/otel/v1/traces")]


@asynccontextmanager
async def spans_to(
    fake: FakeLangfuse, wire: Wire, *, patience_seconds: float = REQUEST_SECONDS, **options: Any
) -> AsyncIterator[LangfuseSpans]:
    """The sink for a fake Langfuse; `wire` sees what is sent. `patience_seconds` is short for answers that never come,
    and long where each is to come however busy the machine is. `options` are those of the sink."""
    credentials = Credentials(fake.url, fake.public_key, fake.secret_key)
    connection = LangfuseConnection(
        credentials, request_timeout=timedelta(seconds=patience_seconds), connections=2
    )
    connection.http.event_hooks = {"request": [wire.note], "response": []}
    async with connection:
        yield LangfuseSpans(connection, SpanContext("test"), **options)
