"""The sink for spans: OTLP protobuf over HTTP, every answer read, and the lookup of what may have arrived."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self

import httpx
from isal import isal_zlib
from langfuse.api.core.api_error import ApiError
from pydantic import ValidationError

from tailer import __version__
from tailer.core.identity import ObservationId
from tailer.core.trace.observations import Trace
from tailer.core.trace.otlp import SpanContext, encode_trace, frame_request
from tailer.flow.records import Probe
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    Found,
    LookupAnswer,
    Refused,
    Rejected,
    RequestResult,
    Retry,
    TooLarge,
    Unanswered,
    Unknown,
    Unreadable,
)
from tailer.langfuse.connection import LangfuseConnection, SendingDoubted

_TRACES_PATH = "/api/public/otel/v1/traces"
_HEADERS = {
    "content-type": "application/x-protobuf",
    "content-encoding": "gzip",
    "x-langfuse-ingestion-version": "4",
}
_LONGEST_PAUSE_SECONDS = 3600.0
"""No `Retry-After` stops the daemon for longer, whatever a proxy made of it."""
_GZIP = 31
"""zlib's window bits for the gzip format; its header then holds no time, so equal input gives equal bytes."""
_LEVEL = 2
"""Of 0 to 3: 3 costs more time than it saves bytes."""

_PAGE_OBSERVATIONS = 1000


class _Body(httpx.AsyncByteStream):
    """A request's body that is let go of with its request: httpx's requests refer to themselves, and would keep it until
    the next garbage collection."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._payload = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._payload


class LangfuseSpans:
    """A `Sink` that posts to one Langfuse project."""

    def __init__(self, connection: LangfuseConnection, context: SpanContext) -> None:
        self._connection = connection
        self._context = context

    @property
    def name(self) -> str:
        """The host of the project."""
        return self._connection.credentials.host

    def encode(self, trace: Trace) -> bytes:
        """The trace's spans as protobuf."""
        return encode_trace(trace, self._context)

    def frame(self, chunks: Sequence[bytes]) -> bytes:
        """A gzipped request, by the encoder that takes a fifth of the usual one's time for the same size."""
        compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
        request = frame_request(chunks, scope_version=__version__)
        return compressor.compress(request) + compressor.flush()

    def unframe(self, payload: bytes, chunk_bytes: Sequence[int]) -> Sequence[bytes]:
        """The chunks stand at the end of a request, one after another."""
        request = isal_zlib.decompress(payload, _GZIP)
        chunks, start = [], len(request) - sum(chunk_bytes)
        for size in chunk_bytes:
            chunks.append(request[start : start + size])
            start += size
        return chunks

    async def deliver(self, payload: bytes) -> DeliveryOutcome:
        """Post once. Unknown is every case in which the server may have taken the request and we did not hear it."""
        try:
            with _Body(payload) as body:
                headers = {**_HEADERS, "content-length": str(len(payload))}
                response = await self._connection.http.post(_TRACES_PATH, content=body, headers=headers)
        except SendingDoubted:
            return Retry("lease in doubt", result=RequestResult.WITHHELD)
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.WriteError,
            httpx.WriteTimeout,
        ):
            return Retry("connection", result=RequestResult.CONNECTION)
        except httpx.TimeoutException as error:
            return Unknown(type(error).__name__, RequestResult.TIMEOUT)
        except httpx.RequestError as error:
            return Unknown(type(error).__name__, RequestResult.CONNECTION)
        return read_answer(response)

    async def find(self, probes: Sequence[Probe]) -> LookupAnswer:
        """Ask for the observations of each trace."""
        counted = await self.count(probes)
        if isinstance(counted, Unanswered | Unreadable):
            return counted
        return Found(frozenset(observation_id for observation_id, copies in counted.items() if copies))

    async def count(self, probes: Sequence[Probe]) -> Mapping[ObservationId, int] | Unanswered | Unreadable:
        """How often each observation is there: what was sent twice is there twice."""
        answers = await asyncio.gather(*(self._count(probe) for probe in probes))
        counted = {}
        for probe, answer in zip(probes, answers, strict=True):
            if isinstance(answer, Unanswered | Unreadable):
                return answer
            counted[probe.observation_id] = answer
        return counted

    async def _count(self, probe: Probe) -> int | Unanswered | Unreadable:
        cursor: str | None = None
        copies = 0
        while True:
            try:
                page = await self._connection.api.observations.get_many(
                    trace_id=probe.trace_id,
                    limit=_PAGE_OBSERVATIONS,
                    cursor=cursor,
                    fields="core",
                    request_options={"max_retries": 0},
                )
            except ApiError as error:
                status = error.status_code or 0
                if status in (404, 405):
                    return await self._count_on_older_server(probe)
                return _classify_unread(status)
            except ValidationError:
                return Unreadable("unknown shape")
            except httpx.RequestError as error:
                return Unanswered(type(error).__name__)
            copies += len([None for observation in page.data if observation.id == probe.observation_id])
            cursor = page.meta.cursor
            if cursor is None or not page.data:
                return copies

    async def _count_on_older_server(self, probe: Probe) -> int | Unanswered | Unreadable:
        """Servers that have no pages of observations yet have reads of single ones, and keep one of each id."""
        try:
            response = await self._connection.http.get(f"/api/public/observations/{probe.observation_id}")
        except httpx.RequestError as error:
            return Unanswered(type(error).__name__)
        if response.is_success:
            return 1
        is_langfuse = response.headers.get("content-type", "").startswith("application/json")
        if response.status_code == httpx.codes.NOT_FOUND and is_langfuse:
            return 0
        return _classify_unread(response.status_code)


def read_answer(response: httpx.Response) -> DeliveryOutcome:
    """What an answer of the span endpoint means for the batch."""
    status = response.status_code
    if response.is_success:
        # A login page or a proxy's greeting also says 200.
        if response.headers.get("content-type", "").startswith("text/html"):
            return Retry("answered with a page: LANGFUSE_HOST leads to something other than Langfuse")
        return Delivered()
    if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge()
    if status in (
        httpx.codes.BAD_REQUEST,
        httpx.codes.UNPROCESSABLE_ENTITY,
        httpx.codes.UNSUPPORTED_MEDIA_TYPE,
    ):
        return Rejected(f"http_{status}")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return Refused(f"http_{status}")
    if status in (httpx.codes.BAD_GATEWAY, httpx.codes.GATEWAY_TIMEOUT):
        # A proxy lost the server's answer, and maybe not the request.
        return Unknown(f"http_{status}", RequestResult.SERVER_ERROR)
    result = RequestResult.RETRY
    if status == httpx.codes.TOO_MANY_REQUESTS:
        result = RequestResult.RATE_LIMITED
    elif response.is_server_error:
        result = RequestResult.SERVER_ERROR
    return Retry(f"http_{status}", _retry_after(response), result)


def _retry_after(response: httpx.Response) -> float | None:
    """`Retry-After` in seconds, given as a number or as a date; None where it is missing or unreadable."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    try:
        return min(max(0.0, float(value)), _LONGEST_PAUSE_SECONDS)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    # A date that names no zone is meant as UTC.
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max(0.0, (aware - datetime.now(UTC)).total_seconds()), _LONGEST_PAUSE_SECONDS)


def _classify_unread(status: int) -> Unanswered | Unreadable:
    if status in (408, 429) or status >= 500:  # noqa: PLR2004 - HTTP: the server's own trouble
        return Unanswered(f"http_{status}")
    return Unreadable(f"http_{status}")
