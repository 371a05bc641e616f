"""A receiver that is none of ours: OtelTap, written in Rust, run as a process. It prints what it decoded as JSON."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any


class OtelTap:
    """A running receiver, and what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.printed: list[Mapping[str, Any]] = []
        self._process = process
        self._changed = asyncio.Event()

    async def read(self) -> None:
        """Collect its lines until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{"):
                self.printed.append(json.loads(line))
                self._changed.set()

    def spans(self) -> list[Mapping[str, Any]]:
        return [item for item in self.printed if "spanId" in item]

    def metrics(self) -> list[Mapping[str, Any]]:
        return [item for item in self.printed if "unit" in item]

    async def until(self, condition: Callable[[], bool], *, seconds: float = 20) -> None:
        """Return once the condition holds; it is asked after every line."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def run_oteltap() -> AsyncIterator[OtelTap]:
    """The receiver for as long as the block lasts; it listens when the block begins."""
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        "-m",
        "oteltap",
        "--port",
        str(port),
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    receiver = OtelTap(process, port)
    assert process.stdout is not None
    # It says so once it listens.
    await asyncio.wait_for(process.stdout.readline(), 20)
    reading = asyncio.create_task(receiver.read())
    try:
        yield receiver
    finally:
        process.terminate()
        await process.wait()
        await reading


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def attributes_of(item: Mapping[str, Any]) -> dict[str, object]:
    """The attributes of a span or a point as plain values."""
    return {pair["key"]: _plain(pair["value"]) for pair in item["attributes"]}


def _plain(value: Mapping[str, Any]) -> object:
    ((kind, inner),) = value.items()
    if kind == "arrayValue":
        return tuple(_plain(each) for each in inner["values"])
    return int(inner) if kind == "intValue" else inner
