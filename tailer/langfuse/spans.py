"""The sink for spans: OTLP protobuf over HTTP, every answer read, and the lookup of batches that may have arrived."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import assert_never

import httpx

from tailer import __version__
from tailer.core.trace.cutting import cut_chunk
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
from tailer.langfuse.answers import Meaning, understand
from tailer.langfuse.connection import LangfuseConnection
from tailer.langfuse.reads import Counted, ObservationReads
from tailer.outbound.client import ReleasedBody
from tailer.outbound.compression import compress, decompress
from tailer.outbound.failures import judge_failure
from tailer.outbound.partial_success import read_partial_success

_TRACES_PATH = "/api/public/otel/v1/traces"
_HEADERS = {
    "content-type": "application/x-protobuf",
    "content-encoding": "gzip",
    "x-langfuse-ingestion-version": "4",
}


class LangfuseSpans:
    """A `Sink` that posts to one Langfuse project. `sight` is for how long it is sure to show what began then, None for
    ever; `clock` gives seconds since 1970."""

    def __init__(
        self,
        connection: LangfuseConnection,
        context: SpanContext,
        *,
        sight: timedelta | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._context = context
        self._sight = sight
        self._clock = clock
        self._reads = ObservationReads(connection)

    @property
    def name(self) -> str:
        """The host of the project."""
        return self._connection.credentials.host

    def encode(self, trace: Trace) -> bytes:
        """The trace's spans as protobuf."""
        return encode_trace(trace, self._context)

    def frame(self, chunks: Sequence[bytes]) -> bytes:
        """A gzipped request."""
        return compress(frame_request(chunks, scope_version=__version__))

    def unframe(self, payload: bytes, chunk_bytes: Sequence[int]) -> Sequence[bytes]:
        """The chunks, which are at the end of a request, one after another."""
        request = decompress(payload)
        chunks, start = [], len(request) - sum(chunk_bytes)
        for size in chunk_bytes:
            chunks.append(request[start : start + size])
            start += size
        return chunks

    def shrink(self, chunk: bytes) -> bytes | None:
        """The longest texts cut to half."""
        return cut_chunk(chunk)

    async def deliver(self, payload: bytes) -> DeliveryOutcome:
        """Post once. Unknown covers every case in which the server may have accepted the request and we do not know
        it."""
        try:
            with ReleasedBody(payload) as body:
                headers = {**_HEADERS, "content-length": str(len(payload))}
                response = await self._connection.http.post(_TRACES_PATH, content=body, headers=headers)
        except httpx.RequestError as error:
            return judge_failure(error)
        return read_answer(response)

    async def find(self, probes: Sequence[Probe]) -> LookupAnswer:
        """Ask for the observations of all traces at once."""
        counted = await self.count(probes)
        if isinstance(counted, Unanswered | Unreadable):
            return counted
        found = frozenset(observation_id for observation_id, copies in counted.items() if copies)
        hidden = [
            probe.observation_id
            for probe in probes
            if probe.observation_id not in found and self.is_out_of_sight(probe)
        ]
        return Found(found, frozenset(hidden))

    def is_out_of_sight(self, probe: Probe) -> bool:
        """Whether an answer without an observation says nothing, because it began too long ago to be shown."""
        if self._sight is None or probe.started_milliseconds is None:
            return False
        return probe.started_milliseconds / 1000 < self._clock() - self._sight.total_seconds()

    async def count(self, probes: Sequence[Probe]) -> Counted:
        """How often each observation is there; one that was sent twice counts twice."""
        return await self._reads.count(probes)


def read_answer(response: httpx.Response) -> DeliveryOutcome:
    """The meaning of an answer of the span endpoint for the batch."""
    answer = understand(response)
    match answer.meaning:
        case Meaning.TAKEN:
            return Delivered(read_partial_success(response).rejected)
        case Meaning.TOO_LARGE:
            return TooLarge()
        case Meaning.INVALID:
            return Rejected(answer.reason)
        case Meaning.WRONG_KEYS | Meaning.USAGE_THRESHOLD | Meaning.GATE | Meaning.PROXY:
            return Refused(answer.reason, answer.remedy)
        case Meaning.ANSWER_LOST:
            return Unknown(answer.reason, RequestResult.SERVER_ERROR)
        case Meaning.LIMITED:
            return Retry(answer.reason, answer.after_seconds, RequestResult.RATE_LIMITED)
        case Meaning.UNWELL if response.is_server_error:
            return Retry(answer.reason, answer.after_seconds, RequestResult.SERVER_ERROR)
        case Meaning.UNWELL:
            return Retry(answer.reason, answer.after_seconds)
        case Meaning.PAGE | Meaning.REDIRECT | Meaning.NOT_THERE | Meaning.NO_LANGFUSE:
            return Retry(answer.reason, answer.after_seconds, remedy=answer.remedy)
        case _:
            assert_never(answer.meaning)
