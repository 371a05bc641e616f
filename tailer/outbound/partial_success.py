"""What a receiver of OTLP says of a request that it took. Langfuse 4.16 does not say so; a collector before it may."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from tailer.core.trace.cutting import read_fields, read_number
from tailer.outbound.replies import kind_of, read_json


@dataclass(frozen=True, slots=True)
class PartialSuccess:
    """What a receiver says of a request that it took: how many spans or data points it did not take, and whether it
    says something in words, which may repeat what was sent and is not kept."""

    rejected: int = 0
    has_message: bool = False


def read_partial_success(response: httpx.Response) -> PartialSuccess:
    """OTLP's `partial_success`, as protobuf or as JSON; spans and metrics have it at the same place. A body of another
    shape says nothing of the kind."""
    kind = kind_of(response)
    try:
        if kind == "json":
            return _read_json(read_json(response))
        if kind == "protobuf":
            return _read_protobuf(response.content)
    except (ValueError, TypeError, OverflowError):
        pass
    return PartialSuccess()


def _read_json(body: object) -> PartialSuccess:
    told = body.get("partialSuccess") if isinstance(body, Mapping) else None
    if not isinstance(told, Mapping):
        return PartialSuccess()
    # Numbers of 64 bits are texts in protobuf's JSON.
    count = told.get("rejectedSpans", told.get("rejectedDataPoints", 0))
    return PartialSuccess(max(0, int(count)), bool(told.get("errorMessage")))


def _read_protobuf(content: bytes) -> PartialSuccess:
    told = next((inner for number, kind, inner in read_fields(content) if (number, kind) == (1, 2)), b"")
    fields = {(number, kind): inner for number, kind, inner in read_fields(told)}
    count = read_number(fields[1, 0]) if (1, 0) in fields else 0
    return PartialSuccess(count if count < 1 << 63 else 0, bool(fields.get((2, 2))))
