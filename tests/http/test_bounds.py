"""An answer that never ends: each of its bytes comes in time, and the whole does not. What was sent is unknown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest

from tailer.core.trace.otlp import SpanContext
from tailer.flow.sending.outcomes import Retry, Unanswered, Unknown
from tailer.langfuse.annotations import LangfuseAnnotations
from tailer.langfuse.connection import Credentials, LangfuseConnection, Unreachable
from tailer.langfuse.spans import LangfuseSpans
from tailer.otlp.destination import open_otlp
from tailer.otlp.options import OtlpOptions, SignalOptions
from tests.evidence import Events, make_trace, probes, trace_ids
from tests.http.test_annotations import SCORE

PATIENCE = timedelta(seconds=0.3)
BETWEEN_BYTES_SECONDS = 0.02
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n"
FOREVER_SECONDS = 20
"""Long after every limit; without one the test fails by this."""


@asynccontextmanager
async def dripping(head: bytes) -> AsyncIterator[str]:
    """The address of a server that begins every answer like this, and goes on byte by byte until the block ends."""
    is_over = asyncio.Event()
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while not is_over.is_set():
                writer.write(b"x")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(is_over.wait(), BETWEEN_BYTES_SECONDS)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            is_over.set()
            await asyncio.gather(*(task for task in serving if task is not None))


@pytest.mark.parametrize("head", [HEAD + b"\r\n", HEAD + b"x-endless: "], ids=["body", "headers"])
async def test_an_answer_of_langfuse_that_drips_ends_and_is_unknown(head: bytes) -> None:
    """Spans, reads, scores, deletions and the question at the start."""
    async with asyncio.timeout(FOREVER_SECONDS), dripping(head) as url:
        credentials = Credentials(url, "pk-lf-test", "sk-lf-test")
        async with LangfuseConnection(credentials, request_timeout=PATIENCE, connections=1) as connection:
            spans = LangfuseSpans(connection, SpanContext("test"))
            annotations = LangfuseAnnotations(connection, environment="test")
            payload = spans.frame([spans.encode(make_trace("m1"))])

            assert await spans.deliver(payload) == Unknown("ReadTimeout")
            assert await spans.find(probes("m1")) == Unanswered("ReadTimeout")
            assert await annotations.put_score(SCORE) == Retry("ReadTimeout")
            assert await annotations.delete_traces(trace_ids("m1")) == Retry("ReadTimeout")
            assert await connection.prove() == Unreachable("ReadTimeout")


async def test_an_answer_of_a_receiver_that_drips_ends_and_is_unknown() -> None:
    async with asyncio.timeout(FOREVER_SECONDS), dripping(HEAD + b"\r\n") as url:
        way = SignalOptions(f"{url}/v1/traces", timeout=PATIENCE)
        async with open_otlp(OtlpOptions(way), Events(), connections=1) as otlp:
            payload = otlp.spans.frame([otlp.spans.encode(make_trace("m1"))])

            assert await otlp.spans.deliver(payload) == Unknown("ReadTimeout")
            assert await otlp.prove() == Unreachable("ReadTimeout")
