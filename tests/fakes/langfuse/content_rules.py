"""What Langfuse must be able to read inside an observation: JSON texts, level, type, usage and cost.

The numbers matter most: Langfuse drops a usage value it cannot use without a word, estimates tokens when
there are none, and leaves the total empty when cost comes without one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NoReturn

from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.otlp import DecodedSpan

Finding = tuple[str, str]


def parse_json(text: str) -> Any:
    """The JSON value of `text`; ValueError also for NaN and Infinity, which JSON does not have."""
    return json.loads(text, parse_constant=_refuse_constant)


def is_count(value: object) -> bool:
    """Whether `value` is a whole number of at least zero; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_amount(value: object) -> bool:
    """Whether `value` is a finite number of at least zero; true and false are none."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    )


def check_content(span: DecodedSpan) -> Iterator[Finding]:
    """The findings on type, level, texts, usage and cost of one span."""
    observation_type = span.attributes.get(names.TYPE)
    if observation_type not in names.OBSERVATION_TYPES:
        yield (
            "observation_type",
            f"{observation_type!r} is none of {', '.join(sorted(names.OBSERVATION_TYPES))}",
        )
    level = span.attributes.get(names.LEVEL)
    if level is not None and level not in names.LEVELS:
        yield "level", f"{level!r} is none of {', '.join(sorted(names.LEVELS))}"
    parameters = span.text(names.MODEL_PARAMETERS)
    if parameters is not None and not isinstance(_parsed(parameters), dict):
        yield "json", f"{names.MODEL_PARAMETERS} is not a JSON object"
    yield from _check_usage(span)
    yield from _check_cost(span)
    yield from _check_estimation(span)
    yield from _check_first_token(span)


def _check_usage(span: DecodedSpan) -> Iterator[Finding]:
    text = span.text(names.USAGE_DETAILS)
    if text is None:
        return
    usage = _parsed(text)
    if not isinstance(usage, dict):
        yield "json", f"{names.USAGE_DETAILS} is not a JSON object"
        return
    for key, value in usage.items():
        if key not in names.USAGE_KEYS:
            yield "usage_details", f"{key!r} is no known usage key"
        if not is_count(value):
            yield "usage_details", f"{key!r} is {value!r}, not a whole number of at least zero"


def _check_cost(span: DecodedSpan) -> Iterator[Finding]:
    text = span.text(names.COST_DETAILS)
    if text is None:
        return
    cost = _parsed(text)
    if not isinstance(cost, dict):
        yield "json", f"{names.COST_DETAILS} is not a JSON object"
        return
    for key, value in cost.items():
        if not is_amount(value):
            yield "cost_details", f"{key!r} is {value!r}, not a finite number of at least zero"
    if "total" not in cost:
        yield "cost_details", "total is missing: Langfuse calculates no price and shows no total"


def _check_estimation(span: DecodedSpan) -> Iterator[Finding]:
    if (
        span.attributes.get(names.TYPE) == "generation"
        and span.text(names.MODEL)
        and not any(_filled(span.text(key)) for key in (names.USAGE_DETAILS, names.COST_DETAILS))
    ):
        yield (
            "server_would_tokenise",
            "a model without usage and cost: the server would tokenise the text itself, whatever the level",
        )
        return
    usage = _parsed(span.text(names.USAGE_DETAILS) or "{}")
    if (
        span.text(names.MODEL)
        and not _filled(span.text(names.COST_DETAILS))
        and isinstance(usage, dict)
        and usage
        and all(key.startswith("output") for key in usage)
    ):
        yield "server_would_price", "a model with tokens of the answer only: the server would price that half"


def _check_first_token(span: DecodedSpan) -> Iterator[Finding]:
    text = span.text(names.COMPLETION_START_TIME)
    if text is None:
        return
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        yield "completion_start_time", "not an ISO 8601 time"
        return
    if moment.tzinfo is None:
        yield "completion_start_time", "an ISO 8601 time needs its zone"


def _filled(text: str | None) -> bool:
    details = _parsed(text) if text is not None else None
    return isinstance(details, dict) and bool(details)


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        return error


def _refuse_constant(constant: str) -> NoReturn:
    message = f"{constant} is not JSON"
    raise ValueError(message)
