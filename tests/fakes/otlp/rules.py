"""What spans and points must be by OTLP and by the GenAI semantic conventions 1.41. A receiver takes most of what is
wrong without a word; a test should fail instead."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from tests.fakes.otlp.decoding import AttributeValue, ReceivedPoint, ReceivedSpan

INTERNAL, CLIENT = 1, 3
DELTA: Final = 1
EARLIEST_NANOSECONDS: Final = 10**17
REGISTERED: Final = frozenset(
    value
    for name, value in vars(gen_ai_attributes).items()
    if name.startswith("GEN_AI_") and isinstance(value, str)
)
"""The names of attributes in the registry of the conventions, by the package that OpenTelemetry publishes."""
TYPES: Final[Mapping[str, type]] = {
    "gen_ai.request.temperature": float,
    "gen_ai.request.top_p": float,
    "gen_ai.request.top_k": float,
    "gen_ai.request.presence_penalty": float,
    "gen_ai.request.frequency_penalty": float,
    "gen_ai.request.max_tokens": int,
    "gen_ai.request.seed": int,
    "gen_ai.request.stop_sequences": tuple,
    "gen_ai.usage.input_tokens": int,
    "gen_ai.usage.output_tokens": int,
    "gen_ai.usage.cache_read.input_tokens": int,
    "gen_ai.usage.cache_creation.input_tokens": int,
    "gen_ai.evaluation.score.value": float,
    "librechat.tags": tuple,
}
"""The types of attributes that are no texts, beside `librechat.cost.…` (double) and `librechat.request.…` (any)."""
OPERATIONS: Final[Mapping[str, tuple[int, tuple[str, ...], str | None]]] = {
    "chat": (CLIENT, ("gen_ai.provider.name",), "gen_ai.request.model"),
    "invoke_agent": (INTERNAL, ("gen_ai.provider.name",), "gen_ai.agent.name"),
    "execute_tool": (INTERNAL, ("gen_ai.tool.name",), "gen_ai.tool.name"),
    "retrieval": (CLIENT, ("gen_ai.data_source.id",), "gen_ai.data_source.id"),
}
"""The kind of each operation, what it must say, and the attribute that ends its name."""
PARTS: Final[Mapping[str, Mapping[str, type | tuple[type, ...]]]] = {
    "text": {"content": str},
    "reasoning": {"content": str},
    "tool_call": {"name": str},
    "tool_call_response": {"response": object},
}


def check_spans(spans: Sequence[ReceivedSpan]) -> Iterator[str]:
    """Everything that is wrong with the spans of a request."""
    for span in spans:
        for finding in (
            *_check_frame(span),
            *_check_attributes(span),
            *_check_operation(span),
            *_check_content(span),
        ):
            yield f"span {span.name!r} ({span.trace_id}/{span.span_id}): {finding}"


def _check_frame(span: ReceivedSpan) -> Iterator[str]:
    if len(span.trace_id) != 32 or not int(span.trace_id or "0", 16):
        yield "the trace id is not 16 bytes"
    if len(span.span_id) != 16 or not int(span.span_id or "0", 16):
        yield "the span id is not 8 bytes"
    if span.parent_span_id is not None and (
        len(span.parent_span_id) != 16 or span.parent_span_id == span.span_id
    ):
        yield "the parent's id is not that of another span"
    if not EARLIEST_NANOSECONDS < span.start_nanoseconds <= span.end_nanoseconds:
        yield "the times are not in their order, or no nanoseconds"
    if not span.name or span.kind not in (INTERNAL, CLIENT):
        yield "name or kind is missing"
    if span.status_code not in (0, 2) or (span.status_message and span.status_code != 2):
        yield "the status is neither unset nor an error, or has a message without being one"
    if not span.resource.get("service.name") or not all(span.scope) or not span.schema_url:
        yield "resource or scope do not say where it comes from"


def _check_attributes(span: ReceivedSpan) -> Iterator[str]:
    for name, value in span.attributes.items():
        if name.startswith("gen_ai."):
            if name not in REGISTERED:
                yield f"{name} is not in the registry"
        elif not name.startswith("librechat.") and name not in ("user.id", "error.type"):
            yield f"{name} belongs to no group"
        if not _has_type(name, value):
            yield f"{name} has the type {type(value).__name__}"
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{name} is no number"


def _has_type(name: str, value: AttributeValue) -> bool:
    if name.startswith("librechat.request."):
        return True
    expected = (
        float
        if name.startswith("librechat.cost.") and name != "librechat.cost.source"
        else TYPES.get(name, str)
    )
    return type(value) is expected


def _check_operation(span: ReceivedSpan) -> Iterator[str]:
    found = span.attributes
    operation = found.get("gen_ai.operation.name")
    if (span.status_code == 2) != ("error.type" in found):
        yield "error.type and the status do not agree"
    if operation is None:
        if not span.name.startswith("librechat."):
            yield "it has no operation"
        return
    kind, required, ending = OPERATIONS[str(operation)]
    if span.kind != kind:
        yield f"{operation} has the kind {span.kind}"
    for name in required:
        if not found.get(name):
            yield f"{operation} has no {name}"
    if not span.name.startswith(str(operation)):
        yield f"{operation} is not in its name"
    named = found.get(ending or "")
    if named and span.name != f"{operation} {named}"[:200]:
        yield f"its name does not end with {ending}"
    counts = [found.get(f"gen_ai.usage.{part}.input_tokens", 0) for part in ("cache_read", "cache_creation")]
    prompt = found.get("gen_ai.usage.input_tokens")
    if any(counts) and (not isinstance(prompt, int) or prompt < sum(int(str(count)) for count in counts)):
        yield "tokens of the cache are not among those of the prompt"


def _check_content(span: ReceivedSpan) -> Iterator[str]:
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        for message in _read(span, name):
            if message.get("role") not in ("system", "user", "assistant", "tool"):
                yield f"{name} has the role {message.get('role')!r}"
            if name.startswith("gen_ai.output") and not isinstance(message.get("finish_reason"), str):
                yield f"{name} has no finish_reason"
            yield from _check_parts(name, message.get("parts"))
    yield from _check_parts("gen_ai.system_instructions", _read(span, "gen_ai.system_instructions"))
    for document in _read(span, "gen_ai.retrieval.documents"):
        if not isinstance(document.get("id"), str) or not isinstance(document.get("score"), int | float):
            yield "a document has no id or no score"


def _check_parts(name: str, parts: object) -> Iterator[str]:
    if not isinstance(parts, list):
        yield f"{name} has no parts"
        return
    for part in parts:
        fields = PARTS.get(str(part.get("type"))) if isinstance(part, dict) else None
        if fields is None:
            yield f"{name} has a part of no type"
            continue
        for field, expected in fields.items():
            if field not in part or not isinstance(part[field], expected):
                yield f"{name} has a part without {field}"


def _read(span: ReceivedSpan, name: str) -> list[Any]:
    value = span.attributes.get(name)
    if value is None:
        return []
    found = json.loads(str(value))
    assert isinstance(found, list), name
    return found


UNITS: Final = {"gen_ai.client.token.usage": "{token}", "gen_ai.client.operation.duration": "s"}


def check_points(points: Sequence[ReceivedPoint]) -> Iterator[str]:
    """Everything that is wrong with the points of a request."""
    for point in points:
        for finding in _check_point(point):
            yield f"{point.metric}: {finding}"


def _check_point(point: ReceivedPoint) -> Iterator[str]:
    if UNITS.get(point.metric) != point.unit:
        yield f"it has the unit {point.unit!r}"
    if point.temporality != DELTA:
        yield "it is no delta"
    if len(point.buckets) != len(point.bounds) + 1 or sum(point.buckets) != point.count or not point.count:
        yield "its buckets do not add up"
    if list(point.bounds) != sorted(set(point.bounds)):
        yield "its bounds are not in their order"
    if not EARLIEST_NANOSECONDS < point.start_nanoseconds < point.time_nanoseconds:
        yield "its times are not in their order"
    for name in ("gen_ai.operation.name", "gen_ai.provider.name"):
        if not point.attributes.get(name):
            yield f"it has no {name}"
    is_usage = point.metric.endswith("token.usage")
    if is_usage != (point.attributes.get("gen_ai.token.type") in ("input", "output")):
        yield "its type of tokens is missing or none"
    if not point.resource.get("service.name"):
        yield "its resource does not say where it comes from"
