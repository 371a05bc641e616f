"""Reads of observations: GET /api/public/v2/observations with traces, field groups and cursor, and single ones.

Rows are never deduplicated, as in Langfuse: what was sent twice is read twice. Stricter than Langfuse, a
query parameter or filter that it does not know is refused instead of ignored.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.content_rules import parse_json
from tests.fakes.langfuse.observation_filters import moment_of, single_value, wanted_sessions, wanted_traces
from tests.fakes.langfuse.request_body import RefusedRequestError
from tests.fakes.langfuse.store import SpanStore, StoredSpan

Row = dict[str, Any]

FIELD_GROUPS: Mapping[str, tuple[str, ...]] = {
    "core": (),
    "basic": (
        "name", "level", "statusMessage", "version", "environment", "bookmarked", "public", "userId",
        "sessionId", "isRootObservation",
    ),
    "time": ("completionStartTime", "createdAt", "updatedAt"),
    "io": ("input", "output"),
    "metadata": ("metadata",),
    "model": ("model", "internalModelId", "modelParameters"),
    "usage": ("usageDetails", "costDetails", "totalCost", "usagePricingTierName"),
    "prompt": ("promptId", "promptName", "promptVersion"),
    "metrics": ("latency", "timeToFirstToken"),
    "trace_context": ("tags", "release", "traceName"),
}  # fmt: skip
ALWAYS = (
    "id", "traceId", "startTime", "endTime", "projectId", "parentObservationId", "type",
    "modelId", "inputPrice", "outputPrice", "totalPrice",
)  # fmt: skip
PARAMETERS = frozenset({"traceId", "filter", "fields", "expandMetadata", "limit", "cursor", "parseIoAsJson"})
METADATA_LENGTH = 200
LARGEST_PAGE = 1000
# OpenTelemetry's status code for an error.
STATUS_ERROR = 2


def read_observations(
    store: SpanStore,
    query: Mapping[str, list[str]],
    *,
    project_id: str,
    visible_until: float,
    shown_since: float = 0.0,
) -> dict[str, Any]:
    """The answer to a read: rows newest first that arrived up to `visible_until` and began at `shown_since` or later
    (seconds since 1970)."""
    unknown = set(query) - PARAMETERS
    if unknown:
        raise RefusedRequestError(400, f"Unknown query parameters {sorted(unknown)}")
    if single_value(query, "parseIoAsJson") == "true":
        raise RefusedRequestError(400, "parseIoAsJson=true is no longer supported")
    limit = _limit(query)
    trace_ids, sessions = wanted_traces(query), wanted_sessions(query)
    groups = [
        group for group in (single_value(query, "fields") or "core,basic").split(",") if group in FIELD_GROUPS
    ]
    wanted = [*ALWAYS, *(name for group in groups for name in FIELD_GROUPS[group])]
    expanded = set((single_value(query, "expandMetadata") or "").split(","))
    cursor = _cursor(query)

    rows = [
        row
        for stored in _candidates(store, trace_ids)
        if stored.received_at <= visible_until
        and stored.span.start_nanoseconds >= shown_since * 1e9
        and (sessions is None or stored.session_id in sessions)
        for row in [observation_row(stored, project_id=project_id, expanded=expanded)]
    ]
    rows.sort(key=_position, reverse=True)
    if cursor is not None:
        rows = [row for row in rows if _position(row) < cursor]
    page = rows[:limit]
    meta = {"cursor": _encode_cursor(page[-1])} if page and len(rows) > limit else {}
    return {"data": [{name: row[name] for name in wanted} for row in page], "meta": meta}


def observation_row(stored: StoredSpan, *, project_id: str, expanded: set[str]) -> Row:
    """All fields of one observation; times are cut to milliseconds as Langfuse stores them."""
    span = stored.span
    start, end = _milliseconds(span.start_nanoseconds), _milliseconds(span.end_nanoseconds)
    first_token = span.text(names.COMPLETION_START_TIME)
    received = _iso(int(stored.received_at * 1000))
    metadata = _metadata(stored)
    return {
        "id": stored.span_id,
        "traceId": stored.trace_id,
        "startTime": _iso(start),
        "endTime": _iso(end),
        "projectId": project_id,
        "parentObservationId": stored.parent_span_id,
        "type": stored.type.upper(),
        "modelId": None,
        "inputPrice": None,
        "outputPrice": None,
        "totalPrice": None,
        "name": stored.name,
        "level": span.text(names.LEVEL) or ("ERROR" if span.status_code == STATUS_ERROR else "DEFAULT"),
        "statusMessage": span.text(names.STATUS_MESSAGE) or span.status_message,
        "version": span.text(names.VERSION) or "",
        "environment": span.text(names.ENVIRONMENT),
        "bookmarked": False,
        "public": span.attributes.get(names.TRACE_PUBLIC, False),
        "userId": stored.user_id,
        "sessionId": stored.session_id,
        "isRootObservation": stored.parent_span_id is None or span.attributes.get(names.IS_APP_ROOT) is True,
        "completionStartTime": first_token,
        "createdAt": received,
        "updatedAt": received,
        "input": span.text(names.INPUT),
        "output": span.text(names.OUTPUT),
        "metadata": {
            key: value[:METADATA_LENGTH] if isinstance(value, str) and key not in expanded else value
            for key, value in metadata.items()
        },
        "model": span.text(names.MODEL) or "",
        "internalModelId": None,
        "modelParameters": span.text(names.MODEL_PARAMETERS),
        "usageDetails": _with_total(stored.usage_details),
        "costDetails": dict(stored.cost_details),
        "totalCost": stored.cost_details.get("total"),
        "usagePricingTierName": None,
        "promptId": None,
        "promptName": span.text(names.PROMPT_NAME),
        "promptVersion": span.attributes.get(names.PROMPT_VERSION),
        "latency": (end - start) / 1000 if end > start else None,
        "timeToFirstToken": _seconds_between(start, first_token),
        "tags": list(tags) if isinstance(tags := span.attributes.get(names.TRACE_TAGS), tuple) else [],
        "release": span.text(names.RELEASE) or "",
        "traceName": span.text(names.TRACE_NAME),
    }


def has_observation(store: SpanStore, observation_id: str, *, visible_until: float) -> bool:
    """Whether an observation is there; one read of it says no more of its copies."""
    return any(
        stored.span_id == observation_id and stored.received_at <= visible_until for stored in store.spans
    )


def _candidates(store: SpanStore, trace_ids: frozenset[str] | None) -> Iterable[StoredSpan]:
    if trace_ids is None:
        return store.spans
    return [stored for trace_id in trace_ids for stored in store.by_trace.get(trace_id, [])]


def _metadata(stored: StoredSpan) -> dict[str, Any]:
    """As Langfuse 4.16 puts it together: of one name the trace's value wins, and every value is read as JSON."""
    span = stored.span
    copied: dict[str, Any] = {}
    if not span.scope_name.startswith("langfuse-sdk"):
        copied = {
            f"attributes.{key}": value
            for key, value in span.attributes.items()
            if not key.startswith(names.METADATA_PREFIXES) and key not in {names.INPUT, names.OUTPUT}
        }
    found = {**copied, "scope.name": span.scope_name, **stored.metadata, **stored.trace_metadata}
    return {key: _as_json(value) for key, value in found.items()}


def _as_json(value: Any) -> Any:
    try:
        return parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _limit(query: Mapping[str, list[str]]) -> int:
    text = single_value(query, "limit") or "50"
    if not text.isdecimal() or int(text) > LARGEST_PAGE:
        raise RefusedRequestError(400, f"limit must be a number up to {LARGEST_PAGE}")
    return int(text)


Position = tuple[str, str, str]


def _position(row: Row) -> Position:
    return row["startTime"], row["traceId"], row["id"]


def _encode_cursor(row: Row) -> str:
    start, trace_id, observation_id = _position(row)
    document = {"lastStartTimeTo": start, "lastTraceId": trace_id, "lastId": observation_id}
    return base64.b64encode(json.dumps(document).encode()).decode()


def _cursor(query: Mapping[str, list[str]]) -> Position | None:
    text = single_value(query, "cursor")
    if text is None:
        return None
    try:
        document = json.loads(base64.b64decode(text, validate=True))
        return document["lastStartTimeTo"], document["lastTraceId"], document["lastId"]
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise RefusedRequestError(400, "Invalid cursor format") from error


def _milliseconds(nanoseconds: int) -> int:
    return nanoseconds // 1_000_000


def _iso(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // 1000, tz=UTC).replace(
        microsecond=milliseconds % 1000 * 1000
    )
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds_between(start_milliseconds: int, text: str | None) -> float | None:
    return None if text is None else round(moment_of(text).timestamp() - start_milliseconds / 1000, 3)


def _with_total(usage: Mapping[str, int]) -> dict[str, int]:
    return {**usage, "total": usage.get("total", sum(usage.values()))} if usage else {}
