"""The right to send, at both destinations: asked for before each write, looked at again right before the first byte."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tailer.core.trace.otlp import SpanContext
from tailer.errors import LeaseLost
from tailer.flow.sending.outcomes import Delivered, Found, Retry
from tailer.langfuse.annotations import LangfuseAnnotations
from tailer.langfuse.connection import Credentials, LangfuseConnection
from tailer.langfuse.spans import LangfuseSpans
from tailer.sinks.file import TraceFile
from tests.evidence import make_trace, probes, trace_ids
from tests.fakes.langfuse import FakeLangfuse
from tests.fakes.langfuse.server import DEFAULT_KEYS


class Switch:
    """A permit that a test gives and takes."""

    def __init__(self) -> None:
        self.given = asyncio.Event()
        self.asked = asyncio.Event()
        self.still = True
        self.lost = False

    async def wait(self) -> None:
        self.asked.set()
        await self.given.wait()
        if self.lost:
            raise LeaseLost(subject="lease", epoch=1)

    def holds(self) -> bool:
        return self.still


def connect_to(fake: FakeLangfuse, permit: Switch) -> LangfuseConnection:
    credentials = Credentials(fake.url, *DEFAULT_KEYS)
    return LangfuseConnection(
        credentials, request_timeout=timedelta(seconds=10), connections=1, permit=permit
    )


async def test_langfuse_gets_a_batch_only_while_the_permit_holds() -> None:
    """Reading needs none; what waits goes out once it is given."""
    permit = Switch()
    async with FakeLangfuse() as fake, connect_to(fake, permit) as connection:
        spans = LangfuseSpans(connection, SpanContext("default", None))
        payload = spans.frame([spans.encode(make_trace("m1"))])
        sending = asyncio.create_task(spans.deliver(payload))
        await permit.asked.wait()

        assert await spans.find(probes("m1")) == Found(frozenset())
        assert fake.trace_ids() == []
        permit.given.set()
        assert await sending == Delivered()
        assert fake.trace_ids() == trace_ids("m1")


async def test_a_permit_that_ends_while_the_connection_is_opened_stops_the_request() -> None:
    """Not a byte of it arrives, so it may simply be tried again; scores and deletions the same."""
    permit = Switch()
    permit.given.set()
    permit.still = False
    async with FakeLangfuse() as fake, connect_to(fake, permit) as connection:
        spans = LangfuseSpans(connection, SpanContext("default", None))
        payload = spans.frame([spans.encode(make_trace("m1"))])

        assert await spans.deliver(payload) == Retry("lease in doubt")
        deletion = await LangfuseAnnotations(connection, environment="default").delete_traces(trace_ids("m1"))
        assert isinstance(deletion, Retry)
        assert fake.requests == {}
        permit.still = True
        assert await spans.deliver(payload) == Delivered()


async def test_a_lost_lease_ends_the_sending(tmp_path: Path) -> None:
    """Over HTTP and into a file; nothing is there afterwards."""
    permit = Switch()
    permit.given.set()
    permit.lost = True
    async with FakeLangfuse() as fake, connect_to(fake, permit) as connection:
        spans = LangfuseSpans(connection, SpanContext("default", None))
        with pytest.raises(LeaseLost):
            await spans.deliver(spans.frame([spans.encode(make_trace("m1"))]))
        assert fake.requests == {}
    file = TraceFile(tmp_path / "traces.jsonl", permit)
    await file.check()
    with pytest.raises(LeaseLost):
        await file.deliver(file.frame([file.encode(make_trace("m1"))]))

    assert (tmp_path / "traces.jsonl").read_bytes() == b""
