"""What a model was asked with: LibreChat's settings by the convention's names, the rest under `librechat.request`."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from tailer.core.json_text import encode_json
from tailer.otlp.wire import Value, fits

_LONGEST_CHARACTERS: Final = 4_000


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _count(value: object) -> int | None:
    number = _number(value)
    if number is None or not number.is_integer() or not fits(int(number)):
        return None
    return int(number)


def _texts(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value) or None


_NAMED: Final[Mapping[str, tuple[str, Callable[[object], Value | None]]]] = {
    "temperature": ("gen_ai.request.temperature", _number),
    "top_p": ("gen_ai.request.top_p", _number),
    "topP": ("gen_ai.request.top_p", _number),
    "top_k": ("gen_ai.request.top_k", _number),
    "topK": ("gen_ai.request.top_k", _number),
    "max_tokens": ("gen_ai.request.max_tokens", _count),
    "maxTokens": ("gen_ai.request.max_tokens", _count),
    "maxOutputTokens": ("gen_ai.request.max_tokens", _count),
    "presence_penalty": ("gen_ai.request.presence_penalty", _number),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", _number),
    "seed": ("gen_ai.request.seed", _count),
    "stop": ("gen_ai.request.stop_sequences", _texts),
}
"""By LibreChat's fields (`conversations`, `agents.model_parameters`), which differ from provider to provider."""


def describe_request(parameters: Mapping[str, object]) -> dict[str, Value]:
    """The attributes of a call's parameters. A value of an unfitting type stays as LibreChat has it."""
    found: dict[str, Value] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        attribute, read = _NAMED.get(name, ("", _nothing))
        known = read(value)
        if known is not None and attribute not in found:
            found[attribute] = known
        else:
            found[f"librechat.request.{name}"] = _as_stored(value)
    return found


def _nothing(_: object) -> None:
    return None


def _as_stored(value: object) -> Value:
    if isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, int) and fits(value):
        return value
    text = value if isinstance(value, str) else encode_json(value)
    return text[:_LONGEST_CHARACTERS]
