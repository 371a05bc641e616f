"""The way to one signal of an OTLP receiver, and the proof at the start that it takes what we send."""

import os
import time
from types import TracebackType
from typing import Final, Self

import httpx

from tailer.errors import DestinationError
from tailer.events import Emit
from tailer.flow.ports import UNCONDITIONAL, Permit
from tailer.otlp.answers import Answer, Meaning, understand
from tailer.otlp.options import Compression, SignalOptions
from tailer.outbound.certificates import Certificates
from tailer.outbound.client import CHANGES_NOTHING, ReleasedBody, hold_to_permit, open_client
from tailer.outbound.compression import compress
from tailer.outbound.failures import SettingNames, describe_failure
from tailer.outbound.proof import Proven, Unreachable

_HEADERS: Final = {"content-type": "application/x-protobuf"}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_PASSING: Final = frozenset({Meaning.LIMITED, Meaning.UNWELL, Meaning.ANSWER_LOST, Meaning.FAILED})


class OtlpConnection:
    """One HTTP client for one URL. What it posts goes only while `permit` holds."""

    def __init__(
        self, options: SignalOptions, emit: Emit, *, connections: int, permit: Permit = UNCONDITIONAL
    ) -> None:
        self.options = options
        self.names = SettingNames("the endpoint", options.files.settings[0], options.files.settings[1])
        self._http = open_client(
            options.url,
            Certificates(options.files, os.environ, emit, time.monotonic),
            timeout=options.timeout,
            connections=connections,
            headers=options.headers,
            host_of="the receiver",
        )
        hold_to_permit(self._http, permit)

    async def __aenter__(self) -> Self:
        """The connection itself; nothing is sent yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._http.aclose()

    def pack(self, request: bytes) -> bytes:
        """The payload of a request, compressed where that is asked for."""
        return compress(request) if self.options.compression is Compression.GZIP else request

    async def post(self, payload: bytes, *, changes_nothing: bool = False) -> httpx.Response:
        """Post what `pack` gave, in this run or in an earlier one with other options. It waits for the permit unless it
        `changes_nothing`."""
        headers = {**_HEADERS, "content-length": str(len(payload))}
        if is_packed(payload):
            headers["content-encoding"] = "gzip"
        with ReleasedBody(payload) as body:
            return await self._http.post(
                self.options.url,
                content=body,
                headers=headers,
                extensions={CHANGES_NOTHING: changes_nothing},
            )

    async def prove(self) -> Proven | Unreachable:
        """Send a request without a span, which every receiver takes; raises DestinationError for refused keys and for
        an address where nothing takes OTLP."""
        try:
            answer = understand(await self.post(b"", changes_nothing=True))
        except httpx.RequestError as error:
            return Unreachable(type(error).__name__, describe_failure(error, self.names))
        if answer.meaning in _PASSING:
            return Unreachable(answer.reason, answer.remedy)
        # Some back ends call a request without spans invalid. They read it, which is what was asked.
        if answer.meaning in (Meaning.TAKEN, Meaning.INVALID):
            return Proven(None)
        raise self._refuse(answer)

    def _refuse(self, answer: Answer) -> DestinationError:
        hint = f"HTTP {answer.status}: {answer.remedy}" if answer.remedy else f"HTTP {answer.status}"
        return DestinationError(
            operation="reaching the OTLP receiver", subject=self.options.shown_url, hint=hint
        )


def is_packed(payload: bytes) -> bool:
    """Whether a payload is compressed; no protobuf message of ours begins like gzip."""
    return payload.startswith(_GZIP_MAGIC)
