"""An observation as a span of OpenTelemetry's GenAI semantic conventions, release 1.41.

What LibreChat stores and the conventions do not name stands under `librechat.`; `docs/otlp.md` has all of it as a
table. What an observation withholds is not here either: everything is taken from the trace as the content policy left
it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tailer.core.json_text import encode_json
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.otlp.messages import output_messages, split_instructions
from tailer.otlp.providers import find_provider
from tailer.otlp.requests import describe_request
from tailer.otlp.wire import Attributes, Value

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"
_LABEL_CHARACTERS: Final = 200
_METADATA_CHARACTERS: Final = 4_000
_STATUS_CODE: Final = re.compile(r"\s*([45]\d\d)\b")
_ERROR_TYPE: Final = re.compile(r'"type"\s*:\s*"([a-z_]{1,60})"')
_UNNAMED_AGENTS: Final = frozenset({"agent", "sub-agent", "turn"})
"""Names of observations that stand for an agent without a name, or with one that is withheld."""
_NAMED_METADATA: Final[Mapping[str, str]] = {
    "agent_id": "gen_ai.agent.id",
    "agent_name": "gen_ai.agent.name",
    "cost_source": "librechat.cost.source",
    "tool_call_id": "gen_ai.tool.call.id",
    "usage_source": "librechat.usage.source",
}
"""What the conventions, or our own groups, have a place for; other metadata becomes `librechat.<name>`."""
_COST: Final[Mapping[str, str]] = {
    "input": "librechat.cost.input",
    "input_cached_tokens": "librechat.cost.cache_read",
    "input_cache_creation": "librechat.cost.cache_creation",
    "output": "librechat.cost.output",
    "total": "librechat.cost.total",
}


class Kind(IntEnum):
    """The kinds of spans in use (`Span.SpanKind`)."""

    INTERNAL = 1
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class SpanShape:
    """What is special about a span; `failure` is the message of one that failed, None for the others."""

    name: str
    kind: Kind
    attributes: Attributes
    failure: str | None


def describe_span(trace: Trace, item: Observation, *, leads: bool) -> SpanShape:
    """The span of an observation. The one that `leads` carries what is true of the whole trace."""
    kind, name, attributes = _DESCRIBE[item.type](trace, item)
    attributes["librechat.name"] = _label(item.name)
    if trace.session_id:
        attributes["gen_ai.conversation.id"] = _label(trace.session_id)
    if trace.user_id is not None:
        attributes["user.id"] = _label(trace.user_id)
    if leads:
        _add_trace(attributes, trace)
    _add_metadata(attributes, item.metadata, without=_USED.get(item.type, frozenset()))
    failed = item.level is Level.ERROR
    if failed:
        attributes["error.type"] = _error_type(trace, item)
    elif item.level is not Level.DEFAULT:
        attributes["librechat.level"] = item.level.value
    if item.status_message is not None and not failed:
        attributes["librechat.status_message"] = item.status_message
    return SpanShape(_label(name), kind, attributes, (item.status_message or "") if failed else None)


def _describe_agent(trace: Trace, item: Observation) -> tuple[Kind, str, dict[str, Value]]:
    named = trace.metadata if item.parent_id is None else item.metadata
    agent = named.get("agent_name")
    if agent is None and item.parent_id is not None and item.name not in _UNNAMED_AGENTS:
        agent = item.name
    found: dict[str, Value] = {"gen_ai.operation.name": "invoke_agent"}
    _add_provider(found, trace, item, None)
    if agent is not None:
        found["gen_ai.agent.name"] = _label(agent)
    if named.get("agent_id"):
        found["gen_ai.agent.id"] = _label(named["agent_id"])
    _add_messages(found, item)
    return Kind.INTERNAL, " ".join(filter(None, ("invoke_agent", agent))), found


def _describe_generation(trace: Trace, item: Observation) -> tuple[Kind, str, dict[str, Value]]:
    model = item.model or item.metadata.get("model")
    found: dict[str, Value] = {"gen_ai.operation.name": "chat"}
    _add_provider(found, trace, item, model)
    if model is not None:
        found["gen_ai.request.model"] = _label(model)
    found.update(describe_request(item.model_parameters or {}))
    found.update(_usage(item.usage or {}))
    found.update(
        {_COST.get(name, f"librechat.cost.{name}"): float(cost) for name, cost in (item.cost or {}).items()}
    )
    _add_messages(found, item)
    return Kind.CLIENT, " ".join(filter(None, ("chat", model))), found


def _describe_tool(_: Trace, item: Observation) -> tuple[Kind, str, dict[str, Value]]:
    found: dict[str, Value] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": _label(item.name),
        "gen_ai.tool.type": "function",
    }
    if item.input is not None:
        found["gen_ai.tool.call.arguments"] = _content(item.input)
    if item.output is not None:
        found["gen_ai.tool.call.result"] = _content(item.output)
    return Kind.INTERNAL, f"execute_tool {item.name}", found


def _describe_retrieval(_: Trace, item: Observation) -> tuple[Kind, str, dict[str, Value]]:
    found: dict[str, Value] = {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": _label(item.name),
    }
    query = item.input.get("query") if isinstance(item.input, Mapping) else item.input
    if query is not None or item.input is not None:
        found["gen_ai.retrieval.query.text"] = _content(item.input if query is None else query)
    if item.output is not None:
        documents, scored = _documents(item.output)
        # The convention's form requires a score, which LibreChat has for some searches only.
        found["gen_ai.retrieval.documents" if scored else "librechat.retrieval.documents"] = documents
    return Kind.CLIENT, f"retrieval {item.name}", found


def _describe_event(_: Trace, item: Observation) -> tuple[Kind, str, dict[str, Value]]:
    found: dict[str, Value] = {}
    if item.input is not None:
        found["librechat.input"] = _content(item.input)
    if item.output is not None:
        found["librechat.output"] = _content(item.output)
    return Kind.INTERNAL, f"librechat.{item.name}", found


_DESCRIBE: Final[
    Mapping[ObservationType, Callable[[Trace, Observation], tuple[Kind, str, dict[str, Value]]]]
] = {
    ObservationType.AGENT: _describe_agent,
    ObservationType.GENERATION: _describe_generation,
    ObservationType.TOOL: _describe_tool,
    ObservationType.RETRIEVER: _describe_retrieval,
    ObservationType.EVENT: _describe_event,
}
_USED: Final[Mapping[ObservationType, frozenset[str]]] = {
    # The reasoning is a part of the message.
    ObservationType.AGENT: frozenset({"reasoning"}),
    ObservationType.GENERATION: frozenset({"model", "reasoning"}),
}


def _add_trace(attributes: dict[str, Value], trace: Trace) -> None:
    attributes["librechat.trace.name"] = _label(trace.name)
    if trace.tags:
        attributes["librechat.tags"] = trace.tags
    for name, value in trace.metadata.items():
        attributes.setdefault(_NAMED_METADATA.get(name, f"librechat.{name}"), value[:_METADATA_CHARACTERS])


def _add_metadata(
    attributes: dict[str, Value], metadata: Mapping[str, str], *, without: frozenset[str]
) -> None:
    for name, value in metadata.items():
        if name in without:
            continue
        attribute = _NAMED_METADATA.get(name, f"librechat.{name}")
        if attributes.setdefault(attribute, value) != value and name not in _NAMED_METADATA:
            # The trace says something else under this name.
            attributes[f"librechat.observation.{name}"] = value


def _add_provider(found: dict[str, Value], trace: Trace, item: Observation, model: str | None) -> None:
    asked = trace.metadata.get("agent_id")
    own = trace.provider if item.metadata.get("agent_id", asked) == asked else None
    if model is None:
        models = (each.model or each.metadata.get("model") for each in trace.observations)
        model = next((each for each in models if each is not None), None)
    provider, guessed = find_provider(trace.metadata.get("endpoint"), own, model)
    found["gen_ai.provider.name"] = provider
    if guessed:
        found["librechat.provider.source"] = "model"


def _add_messages(found: dict[str, Value], item: Observation) -> None:
    instructions, asked = split_instructions(item.input)
    reason = {Level.DEFAULT: "stop", Level.ERROR: "error", Level.WARNING: "unknown"}[item.level]
    answered = output_messages(item.output, reasoning=item.metadata.get("reasoning"), finish_reason=reason)
    for name, value in (
        ("gen_ai.system_instructions", instructions),
        ("gen_ai.input.messages", asked),
        ("gen_ai.output.messages", answered),
    ):
        if value:
            found[name] = encode_json(value)


def _usage(usage: Mapping[str, int]) -> dict[str, Value]:
    """The convention's totals from LibreChat's exclusive buckets: the tokens of the prompt with those of the cache."""
    found: dict[str, Value] = {}
    prompt = [count for name, count in usage.items() if name.startswith("input")]
    if prompt:
        found["gen_ai.usage.input_tokens"] = sum(prompt)
    if "output" in usage:
        found["gen_ai.usage.output_tokens"] = usage["output"]
    if "input_cached_tokens" in usage:
        found["gen_ai.usage.cache_read.input_tokens"] = usage["input_cached_tokens"]
    if "input_cache_creation" in usage:
        found["gen_ai.usage.cache_creation.input_tokens"] = usage["input_cache_creation"]
    return found


def _documents(output: object) -> tuple[str, bool]:
    """The sources that a search found as JSON, and whether each has what the convention's form requires."""
    if not isinstance(output, list | tuple) or not all(isinstance(each, Mapping) for each in output):
        return _content(output), False
    documents = []
    for number, each in enumerate(output, 1):
        known = dict(each)
        named = str(known.pop("address", None) or known.get("name") or number)
        score = known.pop("relevance", None)
        documents.append({"id": named, **({} if score is None else {"score": score}), **known})
    return encode_json(documents), bool(documents) and all("score" in each for each in documents)


def _error_type(trace: Trace, item: Observation) -> str:
    """A status or a type that the message names, the kind of failure that LibreChat's own fields tell, or `_OTHER`."""
    message = item.status_message or ""
    status = _STATUS_CODE.match(message)
    if status is not None:
        return status[1]
    named = _ERROR_TYPE.search(message[:_LABEL_CHARACTERS])
    if named is not None:
        return named[1]
    if item.type is ObservationType.TOOL:
        return "tool_error"
    return "unanswered" if trace.metadata.get("outcome") == "unanswered" else "_OTHER"


def _content(value: object) -> str:
    """A text as it is, everything else as JSON."""
    return value if isinstance(value, str) else encode_json(value)


def _label(text: str) -> str:
    """A name or an id, which any program may have stored at any length."""
    return text[:_LABEL_CHARACTERS]
