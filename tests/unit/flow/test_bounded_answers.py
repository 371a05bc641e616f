"""The time that an answer over HTTP may take, in virtual time: counted from the last byte of the request."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import httpx
import pytest

from tailer.outbound.client import BoundedTransport
from tests.memory.clock import monotonic

ANSWER_SECONDS = 10.0
REQUEST = ("http11.send_request_headers.started", "http11.send_request_body.started")
WRITTEN = "http11.receive_response_headers.started"
TUNNEL = ("http11.send_request_headers.started", WRITTEN, "proxy.start_tls.started")


@dataclass(frozen=True, slots=True)
class Drip(httpx.AsyncByteStream):
    """So many bytes, each after so many seconds."""

    size_bytes: int
    seconds: float

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.size_bytes):
            await asyncio.sleep(self.seconds)
            yield b"x"


@dataclass(frozen=True, slots=True)
class Slow(httpx.AsyncBaseTransport):
    """Takes so long before each of the steps that httpcore tells of, and answers with this body."""

    steps: Sequence[str]
    seconds: float
    body: Drip

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for step in self.steps:
            await asyncio.sleep(self.seconds)
            await request.extensions["trace"](step, {})
        return httpx.Response(200, stream=self.body)


async def ask(transport: Slow) -> httpx.Response:
    bounded = BoundedTransport(transport, ANSWER_SECONDS)
    async with httpx.AsyncClient(transport=bounded, base_url="http://langfuse.test") as client:
        return await client.get("/")


async def test_an_answer_that_ends_in_time_is_whole() -> None:
    answer = await ask(Slow([*REQUEST, WRITTEN], 0.0, Drip(9, 1.0)))

    assert answer.content == b"x" * 9


async def test_an_answer_that_drips_ends_with_the_time_for_all_of_it() -> None:
    began = monotonic()

    with pytest.raises(httpx.ReadTimeout):
        await ask(Slow([*REQUEST, WRITTEN], 0.0, Drip(1000, 1.0)))
    assert monotonic() - began == pytest.approx(ANSWER_SECONDS, abs=0.1)


@pytest.mark.parametrize("steps", [[*REQUEST, WRITTEN], [*TUNNEL, *REQUEST, WRITTEN]])
async def test_what_comes_before_the_last_byte_of_the_request_takes_none_of_that_time(
    steps: Sequence[str],
) -> None:
    """To wait for a connection, to open it through a proxy, to write: each has a limit of its own, and took nothing."""
    answer = await ask(Slow(steps, 9.0, Drip(9, 1.0)))

    assert answer.content == b"x" * 9
