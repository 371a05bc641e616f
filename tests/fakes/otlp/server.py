"""The fake receiver: `async with FakeReceiver() as receiver`. It keeps what it took, and answers as it is told."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.fakes.otlp.decoding import (
    BadRequest,
    ReceivedPoint,
    ReceivedSpan,
    decode_points,
    decode_spans,
    unpack,
)
from tests.fakes.otlp.rules import check_points, check_spans

_LARGEST_BYTES = 64 * 1024 * 1024
_INVALID = 400
_PROTOBUF = {"content-type": "application/x-protobuf"}


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request is met; its body is protobuf unless `headers` say otherwise. `taken` keeps the request's data
    first; `cut` closes the connection without an answer, `hang` holds it until the receiver stops."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    taken: bool = False
    cut: bool = False
    hang: bool = False


class FakeReceiver:
    """A receiver on the loopback interface for as long as the block lasts.

    `keys` are headers that every request must carry; `largest_bytes` is what it takes on the wire; a trace whose
    root's `librechat.name` is among `invalid` has its whole request answered with 400.
    """

    def __init__(self, *, keys: Mapping[str, str] | None = None, takes_gzip: bool = True) -> None:
        self.keys = dict(keys or {})
        self.takes_gzip = takes_gzip
        self.largest_bytes = _LARGEST_BYTES
        self.invalid: set[str] = set()
        self.rejects_spans = 0
        self.spans: list[ReceivedSpan] = []
        self.points: list[ReceivedPoint] = []
        self.violations: list[str] = []
        self.requests: list[tuple[str, Mapping[str, str], bytes]] = []
        self.replies: deque[Reply] = deque()
        self.url = ""
        self._port = 0
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        application = web.Application(client_max_size=_LARGEST_BYTES)
        application.router.add_post("/v1/traces", self._answer)
        application.router.add_post("/v1/metrics", self._answer)
        self._runner = web.AppRunner(application, auto_decompress=False, access_log=None, shutdown_timeout=5)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; `url` is real from now on."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Close; what was taken can still be looked at."""
        self._stopping.set()
        await self._runner.cleanup()

    def trace_ids(self) -> list[str]:
        """The traces in the order of their arrival, each once."""
        return list(dict.fromkeys(span.trace_id for span in self.spans))

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        """The spans of a trace in the order of their arrival."""
        return [span for span in self.spans if span.trace_id == trace_id]

    async def until_spans(self, count: int, *, seconds: float = 20) -> list[ReceivedSpan]:
        """The spans, once there are at least so many."""
        async with asyncio.timeout(seconds):
            while len(self.spans) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.spans

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.path, dict(request.headers), body))
        reply = self.replies.popleft() if self.replies else None
        if reply is None:
            return self._take(request, body)
        if reply.taken:
            self._take(request, body)
        if reply.hang:
            await self._stopping.wait()
        if (reply.cut or reply.hang) and request.transport is not None:
            request.transport.close()
        return web.Response(status=reply.status, body=reply.body, headers={**_PROTOBUF, **reply.headers})

    def _take(self, request: web.Request, body: bytes) -> web.Response:
        if any(request.headers.get(name) != value for name, value in self.keys.items()):
            return web.Response(status=401)
        if len(body) > self.largest_bytes:
            return web.Response(status=413)
        encoding = request.headers.get("content-encoding")
        if encoding is not None and not self.takes_gzip:
            return web.Response(status=400, text="cannot decode")
        try:
            message = unpack(body, media=request.headers.get("content-type", ""), encoding=encoding)
            if request.path.endswith("traces"):
                self._take_spans(decode_spans(message))
            else:
                points = decode_points(message)
                self.violations += check_points(points)
                self.points += points
        except BadRequest as refusal:
            if refusal.status != _INVALID:
                return web.Response(status=refusal.status, text=str(refusal))
            # google.rpc.Status, whose second field is the message; a collector answers in the form of the request.
            told = str(refusal).encode()[:100]
            return web.Response(
                status=_INVALID,
                body=bytes((0x12, len(told))) + told,
                headers=_PROTOBUF,
            )
        self._changed.set()
        told = ExportTraceServiceResponse()
        if self.rejects_spans:
            told.partial_success.rejected_spans = self.rejects_spans
            told.partial_success.error_message = "not all of it"
        return web.Response(body=told.SerializeToString(), headers=_PROTOBUF)

    def _take_spans(self, spans: list[ReceivedSpan]) -> None:
        if any(span.attributes.get("librechat.name") in self.invalid for span in spans):
            raise BadRequest("one of the spans is not valid")
        self.violations += check_spans(spans)
        self.spans += spans
