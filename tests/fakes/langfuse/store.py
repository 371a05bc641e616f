"""Keeps what the fake accepted, in order of arrival, and answers for it: duplicates, orphans, sums of bytes.

It never refuses: the rules did that before. In light mode it counts ids and keeps no content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.content_rules import parse_json
from tests.fakes.langfuse.otlp import AttributeValue, DecodedSpan


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """An accepted span, its objects and lists parsed; `arrival` counts from 0, `received_at` is seconds since 1970."""

    arrival: int
    received_at: float
    span: DecodedSpan
    input: Any
    output: Any
    usage_details: Mapping[str, int]
    cost_details: Mapping[str, float]

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.span.trace_id

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return self.span.span_id

    @property
    def parent_span_id(self) -> str | None:
        """16 hex digits, None on a root."""
        return self.span.parent_span_id

    @property
    def name(self) -> str:
        """The observation's name."""
        return self.span.name

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """The attributes as they were sent."""
        return self.span.attributes

    @property
    def type(self) -> str:
        """The observation's type in lower case, as sent."""
        return self.span.text(names.TYPE) or ""

    @property
    def session_id(self) -> str:
        """The conversation."""
        return self.span.text(names.SESSION_ID) or ""

    @property
    def user_id(self) -> str:
        """Whose trace it is."""
        return self.span.text(names.USER_ID) or ""

    @property
    def metadata(self) -> dict[str, AttributeValue]:
        """The observation's own metadata by key."""
        return self.prefixed(names.METADATA_PREFIX)

    @property
    def trace_metadata(self) -> dict[str, AttributeValue]:
        """The trace's metadata by key."""
        return self.prefixed(names.TRACE_METADATA_PREFIX)

    def prefixed(self, prefix: str) -> dict[str, AttributeValue]:
        """Attributes under `prefix`, by what follows it."""
        return {key[len(prefix) :]: value for key, value in self.attributes.items() if key.startswith(prefix)}

    def as_json(self) -> dict[str, Any]:
        """Everything about the span, for the control routes."""
        return {
            "arrival": self.arrival,
            "traceId": self.trace_id,
            "spanId": self.span_id,
            "parentSpanId": self.parent_span_id,
            "name": self.name,
            "type": self.type,
            "startNanoseconds": self.span.start_nanoseconds,
            "endNanoseconds": self.span.end_nanoseconds,
            "statusCode": self.span.status_code,
            "statusMessage": self.span.status_message,
            "scopeName": self.span.scope_name,
            "input": self.input,
            "output": self.output,
            "usageDetails": dict(self.usage_details),
            "costDetails": dict(self.cost_details),
            "attributes": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in self.attributes.items()
            },
        }


@dataclass(slots=True)
class SpanStore:
    """Accepted spans by arrival and by trace; `copies` counts how often each (trace id, span id) arrived."""

    light: bool = False
    spans: list[StoredSpan] = field(default_factory=list)
    by_trace: dict[str, list[StoredSpan]] = field(default_factory=dict)
    copies: Counter[tuple[str, str]] = field(default_factory=Counter)
    light_copies: Counter[bytes] = field(default_factory=Counter)
    light_arrivals: dict[bytes, float] = field(default_factory=dict)
    deleted_trace_ids: list[str] = field(default_factory=list)
    arrived: int = 0
    batches: int = 0
    wire_bytes: int = 0
    body_bytes: int = 0

    def add(
        self, spans: Sequence[DecodedSpan], *, received_at: float, wire_bytes: int, body_bytes: int
    ) -> None:
        """Keep an accepted batch."""
        self._count_batch(len(spans), wire_bytes=wire_bytes, body_bytes=body_bytes)
        for span in spans:
            stored = StoredSpan(
                arrival=self.arrived,
                received_at=received_at,
                span=span,
                input=_content(span, names.INPUT),
                output=_content(span, names.OUTPUT),
                usage_details=parse_json(span.text(names.USAGE_DETAILS) or "{}"),
                cost_details=parse_json(span.text(names.COST_DETAILS) or "{}"),
            )
            self.arrived += 1
            self.spans.append(stored)
            self.by_trace.setdefault(span.trace_id, []).append(stored)
            self.copies[span.key] += 1

    def add_light(
        self, keys: Sequence[bytes], *, received_at: float, wire_bytes: int, body_bytes: int
    ) -> None:
        """Count an accepted batch, and keep when each trace was last added to."""
        self._count_batch(len(keys), wire_bytes=wire_bytes, body_bytes=body_bytes)
        self.arrived += len(keys)
        self.light_copies.update(keys)
        self.light_arrivals.update(dict.fromkeys((key[:16] for key in keys), received_at))

    def unique_count(self) -> int:
        """How many different (trace id, span id) are stored."""
        return len(self.light_copies if self.light else self.copies)

    def trace_count(self) -> int:
        """How many different traces are stored."""
        return len(self.light_arrivals) if self.light else len(self.by_trace)

    def arrivals(self) -> dict[str, float]:
        """When the last span of each trace arrived, in seconds since 1970."""
        if self.light:
            return {trace_id.hex(): at for trace_id, at in self.light_arrivals.items()}
        return {trace_id: spans[-1].received_at for trace_id, spans in self.by_trace.items()}

    def duplicates(self) -> list[tuple[str, str]]:
        """(trace id, span id) of everything that was accepted more than once."""
        if self.light:
            return [(key[:16].hex(), key[16:].hex()) for key, count in self.light_copies.items() if count > 1]
        return [key for key, count in self.copies.items() if count > 1]

    def unresolved_parents(self) -> list[tuple[str, str]]:
        """(trace id, span id) of every span whose parent never arrived in the same trace."""
        return [
            stored.span.key
            for stored in self.spans
            if stored.parent_span_id is not None
            and (stored.trace_id, stored.parent_span_id) not in self.copies
        ]

    def voice_of(self, trace_id: str) -> Mapping[str, object] | None:
        """The attributes of the first stored span of a trace: what all others must agree with."""
        stored = self.by_trace.get(trace_id)
        return stored[0].attributes if stored else None

    def delete_traces(self, trace_ids: Iterable[str]) -> None:
        """Drop every span of the traces; that they were there stays counted in `arrived`."""
        doomed = set(trace_ids)
        self.deleted_trace_ids.extend(sorted(doomed))
        self.spans = [stored for stored in self.spans if stored.trace_id not in doomed]
        for trace_id in doomed:
            for stored in self.by_trace.pop(trace_id, []):
                self.copies.pop(stored.span.key, None)
        if self.light:
            wanted = {bytes.fromhex(trace_id) for trace_id in doomed}
            self.light_copies = Counter({k: n for k, n in self.light_copies.items() if k[:16] not in wanted})
            for trace_id_bytes in wanted:
                self.light_arrivals.pop(trace_id_bytes, None)

    def _count_batch(self, span_count: int, *, wire_bytes: int, body_bytes: int) -> None:
        self.batches += 1 if span_count else 0
        self.wire_bytes += wire_bytes
        self.body_bytes += body_bytes


def _content(span: DecodedSpan, key: str) -> Any:
    """A text as it is; what looks like an object or a list as that, which is how Langfuse shows it."""
    text = span.text(key)
    if text is None or not text.startswith(("{", "[")):
        return text
    try:
        return parse_json(text)
    except ValueError:
        return text
