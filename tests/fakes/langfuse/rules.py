"""What a span must be for Langfuse to keep it as it was meant: ids, times, attributes, a trace in one voice.

Langfuse itself takes most of this without a word and stores something else. A test should fail instead, so
every rule has a name and every violation says which span broke it. Content has rules in `content_rules`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.content_rules import check_content
from tests.fakes.langfuse.otlp import DecodedSpan, Unsupported

TRACE_ID = re.compile(r"[0-9a-f]{32}")
SPAN_ID = re.compile(r"[0-9a-f]{16}")
ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")
DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+=-]+)*;base64,")
LONGEST_NAME = 200
# A count of seconds, milliseconds or microseconds since 1970 stays below this one.
EARLIEST_NANOSECONDS = 10**17
EVERYWHERE = (names.TRACE_NAME, names.SESSION_ID, names.USER_ID, names.ENVIRONMENT)

Finding = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits in bytes, and the attributes that every span of a trace must carry with the same value."""

    body_limit_bytes: int = 16 * 1024 * 1024
    decompressed_limit_bytes: int = 64 * 1024 * 1024
    span_limit_bytes: int = 9_500_000
    everywhere: tuple[str, ...] = EVERYWHERE


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule; ids and name are empty when the request as a whole is at fault."""

    rule: str
    message: str
    trace_id: str = ""
    span_id: str = ""
    span_name: str = ""

    def __str__(self) -> str:
        if not self.span_id:
            return f"{self.rule}: {self.message}"
        return f"span {self.span_name!r} ({self.trace_id}/{self.span_id}): {self.rule}: {self.message}"


def check_batch(
    spans: Sequence[DecodedSpan], *, rules: Rules, voice_of: Callable[[str], Mapping[str, object] | None]
) -> list[Violation]:
    """All violations of a batch; `voice_of` tells what a stored trace says for `rules.everywhere`."""
    voices: dict[str, Mapping[str, object]] = {}
    violations: list[Violation] = []
    for span in spans:
        findings = list(check_span(span, rules=rules))
        voice = {key: span.attributes.get(key) for key in rules.everywhere}
        expected = voices.setdefault(span.trace_id, voice_of(span.trace_id) or voice)
        findings.extend(
            (
                "trace_not_equal",
                f"{key} is {voice[key]!r} here and {expected.get(key)!r} elsewhere in the trace",
            )
            for key in rules.everywhere
            if voice[key] not in {None, "", expected.get(key)}
        )
        violations.extend(
            Violation(rule, message, span.trace_id, span.span_id, span.name) for rule, message in findings
        )
    return violations


def check_span(span: DecodedSpan, *, rules: Rules) -> Iterator[Finding]:
    """The findings on one span by itself."""
    yield from _check_identity(span)
    yield from _check_times(span)
    if span.size_bytes > rules.span_limit_bytes:
        yield "span_too_large", f"{span.size_bytes} bytes, the limit is {rules.span_limit_bytes}"
    for key in span.repeated_keys:
        yield "attribute_repeated", f"{key} is given more than once"
    for key, value in span.attributes.items():
        yield from _check_attribute(key, value)
    for key in rules.everywhere:
        if span.attributes.get(key) in {None, ""}:
            yield "missing_on_span", f"{key} must be on every span"
    yield from _check_trace_context(span)
    yield from check_content(span)


def _check_identity(span: DecodedSpan) -> Iterator[Finding]:
    if not TRACE_ID.fullmatch(span.trace_id) or not span.trace_id.strip("0"):
        yield (
            "trace_id",
            f"{span.trace_id!r} must be 16 bytes, not all zero, in JSON 32 lower case hex digits",
        )
    if not SPAN_ID.fullmatch(span.span_id) or not span.span_id.strip("0"):
        yield "span_id", f"{span.span_id!r} must be 8 bytes, not all zero, in JSON 16 lower case hex digits"
    parent = span.parent_span_id
    if parent is not None and (not SPAN_ID.fullmatch(parent) or not parent.strip("0")):
        yield "parent_span_id", f"{parent!r} must be absent, or 8 bytes, not all zero"
    if parent is not None and parent == span.span_id:
        yield "parent_span_id", "a span cannot be its own parent"
    if not span.name:
        yield "name", "a span must have a name"


def _check_times(span: DecodedSpan) -> Iterator[Finding]:
    if not span.start_nanoseconds or not span.end_nanoseconds:
        yield "timestamp_zero", "start and end must both be given"
    elif min(span.start_nanoseconds, span.end_nanoseconds) < EARLIEST_NANOSECONDS:
        yield "timestamp_unit", "times are nanoseconds since 1970"
    if span.start_nanoseconds > span.end_nanoseconds > 0:
        yield "ends_before_start", f"starts at {span.start_nanoseconds}, ends at {span.end_nanoseconds}"


def _check_attribute(key: str, value: object) -> Iterator[Finding]:
    if isinstance(value, Unsupported):
        yield (
            "attribute_value",
            f"{key} is of the kind {value.shape}: only primitives and arrays of strings are read",
        )
        return
    if isinstance(value, float) and not math.isfinite(value):
        yield "attribute_value", f"{key} is not a finite number"
    if key in names.FORBIDDEN_ATTRIBUTES:
        yield "forbidden_attribute", f"{key}: input and output belong on the root observation"
    elif key.startswith("langfuse."):
        yield from _check_own_attribute(key, value)
    for text in value if isinstance(value, tuple) else (value,):
        if isinstance(text, str) and ";base64," in text and DATA_URI.search(text):
            yield "data_uri", f"{key} carries base64 data, which Langfuse would store as text"


def _check_own_attribute(key: str, value: object) -> Iterator[Finding]:
    if key.startswith(names.METADATA_PREFIXES):
        if key in names.METADATA_PREFIXES:
            yield "unknown_attribute", f"{key} names no metadata key"
    elif key not in names.KNOWN_ATTRIBUTES:
        yield "unknown_attribute", f"{key} is no attribute Langfuse knows"
    elif (
        (key in names.TEXT_ATTRIBUTES and not isinstance(value, str))
        or (key in names.BOOLEAN_ATTRIBUTES and not isinstance(value, bool))
        or (key == names.TRACE_TAGS and not isinstance(value, tuple))
        or (key == names.PROMPT_VERSION and (isinstance(value, bool) or not isinstance(value, int)))
    ):
        yield "attribute_type", f"{key} has the wrong type {type(value).__name__}"


def _check_trace_context(span: DecodedSpan) -> Iterator[Finding]:
    environment = span.text(names.ENVIRONMENT)
    if environment and not ENVIRONMENT.fullmatch(environment):
        yield "environment", f"{environment!r} would be shown as another one"
    for key in (names.SESSION_ID, names.USER_ID):
        value = span.attributes.get(key)
        if value is not None and not isinstance(value, str):
            yield "attribute_type", f"{key} must be a string"
        elif value is not None and len(value) > LONGEST_NAME:
            yield "too_long", f"{key} has {len(value)} characters, the limit is {LONGEST_NAME}"
    tags = span.attributes.get(names.TRACE_TAGS)
    if isinstance(tags, tuple):
        for tag in tags:
            if not tag or len(tag) > LONGEST_NAME:
                yield "tags", f"a tag has {len(tag)} characters, it must have 1 to {LONGEST_NAME}"
