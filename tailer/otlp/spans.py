"""The sink for an OTLP receiver: spans as protobuf over HTTP, and the answer.

OTLP has no look-up. A batch of unknown outcome is sent again, and its traces may be there twice: the flow counts that.
"""

from collections.abc import Sequence
from typing import assert_never

import httpx

from tailer.core.trace.observations import Trace
from tailer.events import DestinationWarned, Emit
from tailer.flow.records import Probe
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    LookupAnswer,
    Refused,
    Rejected,
    RequestResult,
    Retry,
    TooLarge,
    Unknown,
    Unreadable,
)
from tailer.otlp.answers import Meaning, understand
from tailer.otlp.connection import OtlpConnection, is_packed
from tailer.otlp.encoding import encode_resource, encode_trace, frame_request, read_chunks
from tailer.otlp.shrinking import shrink_chunk
from tailer.otlp.wire import Attributes
from tailer.outbound.compression import decompress
from tailer.outbound.failures import judge_failure
from tailer.outbound.partial_success import read_partial_success


class OtlpSpans:
    """A `Sink` that posts to one OTLP receiver. `resource` are the attributes of what the spans come from."""

    def __init__(self, connection: OtlpConnection, resource: Attributes, emit: Emit) -> None:
        self._connection = connection
        self._resource = encode_resource(resource)
        self._emit = emit

    @property
    def name(self) -> str:
        """The URL of the receiver, without what is secret in it."""
        return self._connection.options.shown_url

    def encode(self, trace: Trace) -> bytes:
        """The trace's spans as protobuf."""
        return encode_trace(trace)

    def frame(self, chunks: Sequence[bytes]) -> bytes:
        """A request, compressed where the options ask for it."""
        return self._connection.pack(frame_request(self._resource, chunks))

    def unframe(self, payload: bytes, chunk_bytes: Sequence[int]) -> Sequence[bytes]:
        """The chunks of a request."""
        return read_chunks(decompress(payload) if is_packed(payload) else payload, chunk_bytes)

    def shrink(self, chunk: bytes) -> bytes | None:
        """The longest texts cut to half."""
        return shrink_chunk(chunk)

    async def deliver(self, payload: bytes) -> DeliveryOutcome:
        """Post once. Unknown covers every case in which the receiver may have taken the request and we do not know
        it."""
        try:
            response = await self._connection.post(payload)
        except httpx.RequestError as error:
            return judge_failure(error, self._connection.names)
        outcome = read_answer(response)
        if isinstance(outcome, Delivered) and read_partial_success(response).has_message:
            self._emit(DestinationWarned(self.name))
        return outcome

    async def find(self, probes: Sequence[Probe]) -> LookupAnswer:
        """Nothing can be asked over OTLP."""
        del probes
        return Unreadable("no look-up over OTLP")


def read_answer(response: httpx.Response) -> DeliveryOutcome:
    """The meaning of an answer for the batch."""
    answer = understand(response)
    match answer.meaning:
        case Meaning.TAKEN:
            return Delivered(read_partial_success(response).rejected)
        case Meaning.TOO_LARGE:
            return TooLarge()
        case Meaning.INVALID | Meaning.FAILED:
            return Rejected(answer.reason)
        case Meaning.REFUSED | Meaning.PROXY:
            return Refused(answer.reason, answer.remedy)
        case Meaning.ANSWER_LOST:
            return Unknown(answer.reason, RequestResult.SERVER_ERROR, answer.after_seconds)
        case Meaning.LIMITED:
            return Retry(answer.reason, answer.after_seconds, RequestResult.RATE_LIMITED)
        case Meaning.UNWELL:
            result = RequestResult.SERVER_ERROR if response.is_server_error else RequestResult.RETRY
            return Retry(answer.reason, answer.after_seconds, result)
        case Meaning.PAGE | Meaning.REDIRECT | Meaning.NO_RECEIVER | Meaning.GATE:
            return Retry(answer.reason, answer.after_seconds, remedy=answer.remedy)
        case _:
            assert_never(answer.meaning)
