"""The conditions of an observation read: the traces that are asked for, by parameter or by `filter`.

Langfuse knows many more. Those that no client of the fake sends are refused instead of ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.fakes.langfuse.request_body import RefusedRequestError


def wanted_sessions(query: Mapping[str, list[str]]) -> frozenset[str] | None:
    """The session ids that a query asks for, None for all."""
    filtered = [_read_filter(item) for item in _filter(query) if _column(item) == "sessionId"]
    return frozenset.intersection(*filtered) if filtered else None


def wanted_traces(query: Mapping[str, list[str]]) -> frozenset[str] | None:
    """The trace ids that a query asks for, None for all."""
    filtered = [_read_filter(item) for item in _filter(query) if _column(item) != "sessionId"]
    if filtered:
        # A filter wins over the plain parameter for the same column.
        return frozenset.intersection(*filtered)
    plain = query.get("traceId")
    return None if plain is None else frozenset(plain)


def _column(item: Any) -> Any:
    return item.get("column") if isinstance(item, dict) else None


def _read_filter(item: Any) -> frozenset[str]:
    if not isinstance(item, dict):
        raise RefusedRequestError(400, "A filter is an object")
    kind, column, operator = (item.get(key) for key in ("type", "column", "operator"))
    value = item.get("value")
    known = kind == "stringOptions" and operator == "any of" and column in {"traceId", "sessionId"}
    if not known or not isinstance(value, list):
        raise RefusedRequestError(
            400, f"Invalid filter: type {kind!r}, column {column!r}, operator {operator!r}"
        )
    if not value or not all(isinstance(item, str) for item in value):
        raise RefusedRequestError(400, "Invalid filter: the value is not a list of texts")
    return frozenset(value)


def _filter(query: Mapping[str, list[str]]) -> list[Any]:
    text = single_value(query, "filter")
    if text is None:
        return []
    try:
        items = json.loads(text)
    except ValueError as error:
        raise RefusedRequestError(400, "filter is not valid JSON") from error
    if not isinstance(items, list):
        raise RefusedRequestError(400, "filter is not an array")
    return items


def single_value(query: Mapping[str, list[str]], name: str) -> str | None:
    """The last value of a query parameter, None without one."""
    values = query.get(name)
    return values[-1] if values else None


def moment_of(text: Any) -> datetime:
    """An ISO 8601 time, UTC when it names no zone; refuses anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise RefusedRequestError(400, f"{text!r} is no ISO 8601 time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
