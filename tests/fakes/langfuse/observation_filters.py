"""The filters of an observation read, plain parameters and structured `filter`, as conditions on a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.fakes.langfuse.request_body import RefusedRequestError

Condition = tuple[str, Callable[[Any], bool], frozenset[str] | None]
"""A column, the test for its value, and the values that alone can pass it when they are known."""

TEXT_COLUMNS = (
    "id", "traceId", "sessionId", "userId", "name", "type", "level", "environment", "version",
    "parentObservationId", "traceName",
)  # fmt: skip
SIMPLE_FILTERS = tuple(column for column in TEXT_COLUMNS if column not in {"id", "traceName"})

TEXT_OPERATORS: Mapping[tuple[str, str], Callable[[Any, Any], bool]] = {
    ("string", "="): lambda found, value: bool(found == value),
    ("string", "contains"): lambda found, value: value in (found or ""),
    ("string", "starts with"): lambda found, value: (found or "").startswith(value),
    ("string", "ends with"): lambda found, value: (found or "").endswith(value),
    ("stringOptions", "any of"): lambda found, value: found in value,
    ("stringOptions", "none of"): lambda found, value: found not in value,
    ("null", "is null"): lambda found, _value: found is None,
    ("null", "is not null"): lambda found, _value: found is not None,
}
TIME_OPERATORS: Mapping[str, Callable[[datetime, datetime], bool]] = {
    ">": lambda found, value: found > value,
    "<": lambda found, value: found < value,
    ">=": lambda found, value: found >= value,
    "<=": lambda found, value: found <= value,
}


def read_conditions(query: Mapping[str, list[str]]) -> list[Condition]:
    """What a row must fulfil, from the plain parameters and the `filter` of a query."""
    conditions = [_condition(item) for item in _filter(query)]
    # A filter wins over the plain parameter for the same column; parameters for other columns still hold.
    taken = {column for column, _, _ in conditions}
    conditions.extend(
        _one_of(column, query[column]) for column in SIMPLE_FILTERS if column in query and column not in taken
    )
    root = single_value(query, "isRootObservation")
    if root is not None and "isRootObservation" not in taken:
        conditions.append(("isRootObservation", lambda found: found is (root == "true"), None))
    for parameter, operator in (("fromStartTime", ">="), ("toStartTime", "<")):
        text = single_value(query, parameter)
        if text is not None and "startTime" not in taken:
            conditions.append(
                _condition({"type": "datetime", "column": "startTime", "operator": operator, "value": text})
            )
    return conditions


def _condition(item: Any) -> Condition:
    if not isinstance(item, dict):
        raise RefusedRequestError(400, "A filter is an object")
    kind, column, operator = (str(item.get(key)) for key in ("type", "column", "operator"))
    value = item.get("value")
    if kind == "datetime" and column in {"startTime", "endTime"} and operator in TIME_OPERATORS:
        compare, moment = TIME_OPERATORS[operator], moment_of(value)
        return column, lambda found: compare(moment_of(found), moment), None
    if (
        kind == "boolean"
        and column == "isRootObservation"
        and operator in {"=", "<>"}
        and isinstance(value, bool)
    ):
        return column, lambda found: (found is value) is (operator == "="), None
    test = TEXT_OPERATORS.get((kind, operator))
    if test is None or column not in TEXT_COLUMNS or not _fits(kind, value):
        raise RefusedRequestError(
            400, f"Invalid filter: type {kind!r}, column {column!r}, operator {operator!r}"
        )
    wanted = {"any of": value, "=": [value]}.get(operator)
    return column, lambda found: test(found, value), None if wanted is None else frozenset(wanted)


def _one_of(column: str, values: list[str]) -> Condition:
    # An empty value asks for rows that have none.
    wanted = {value or None for value in values}
    return column, lambda found: found in wanted, frozenset(values)


def _fits(kind: str, value: Any) -> bool:
    if kind == "stringOptions":
        return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    return value == "" if kind == "null" else isinstance(value, str)


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
