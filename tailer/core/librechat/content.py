"""The parts of a response (`messages.content[]`), read into what a trace needs of them.

Part types are LibreChat's `ContentTypes`. A part of an unknown type is kept by its name, so that a new release shows
up in a count and not as a lost turn. Arrays can have holes (null) on partial saves.
"""

import re
from dataclasses import dataclass

from tailer.core.json_text import decode_json, encode_json
from tailer.core.librechat.bson_values import (
    Document,
    count,
    duration_milliseconds,
    filled_string,
    mapping,
    milliseconds,
    sequence,
    string,
)
from tailer.core.librechat.media import describe_media, is_media, without_bytes, without_data_uris
from tailer.core.light_dataclass import light_dataclass

_FAILED_TOOL_PREFIX = "Error: "
_FAILED_TOOL_SUFFIX = "Please fix your mistakes."
_FAILED_TOOL_BEGINNINGS = ("Error: [MCP]", "Error processing tool", "Something went wrong when trying to ")
"""How LibreChat reports that a server or a provider refused (MCP, image generation), and that a tool threw."""
_FAILED_ACTION = re.compile(r"API call to \S{1,300} failed: ")
"""How an action reports that its server refused or did not answer (ActionService)."""
_QUIET_TYPES = frozenset({"activity_label", "text_delta", "reasoning_label"})
"""Parts of LibreChat's interface that do not belong to a turn."""
_WITHOUT_OUTPUT = frozenset({"retrieval", "file_search"})
"""Tools of the assistants endpoints whose results are not stored."""
_HAND_OFF_PREFIX = "lc_transfer_to_"
_SUBAGENT_TOOL = "subagent"
_DEEPEST_SUBAGENT = 4
"""How deep sub-agents of sub-agents are read. A deeper call of one is a tool without inner parts."""


@light_dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of the answer. Parts of one `group_id` are answers of agents that ran side by side."""

    text: str
    agent_id: str | None = None
    group_id: int | None = None


@light_dataclass(frozen=True, slots=True)
class ReasoningPart:
    """A piece of the model's reasoning (`think`); never part of the answer."""

    text: str
    agent_id: str | None = None
    group_id: int | None = None


@light_dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool: `arguments` as stored (JSON text or an object), `output` None without output.

    `status` is how its step ended, if that is stored (agents library 3.4.6); `lacks_output`: the call never finished.
    A hand-off has no output: the receiver goes on.
    `inner` are the parts of the sub-agent that the call started (`subagent_content`).
    """

    call_id: str | None
    name: str
    arguments: object
    output: str | None
    failed: bool
    awaits_approval: bool
    duration_milliseconds: int | None
    agent_id: str | None = None
    group_id: int | None = None
    status: str | None = None
    lacks_output: bool = False
    inner: tuple["Part", ...] = ()

    @property
    def is_subagent(self) -> bool:
        """Whether the call runs another agent and returns its answer."""
        return self.name == _SUBAGENT_TOOL or bool(self.inner)

    @property
    def subagent_type(self) -> str | None:
        """What the call says to run: an agent's id, or a kind of agent such as `self`."""
        return filled_string(self._read_argument("subagent_type")) if self.is_subagent else None

    @property
    def is_detached(self) -> bool:
        """Whether it started a sub-agent that outlives it (LibreChat 0.8.8): its output names the task, and no model
        wrote it."""
        return self.is_subagent and not self.inner and self._read_argument("run_in_background") is True

    def _read_argument(self, name: str) -> object:
        arguments = decode_json(self.arguments) if isinstance(self.arguments, str) else self.arguments
        return mapping(arguments).get(name)

    @property
    def receiver_id(self) -> str | None:
        """The agent that a hand-off passes the conversation to."""
        return self.name.removeprefix(_HAND_OFF_PREFIX) if self.is_hand_off else None

    @property
    def is_hand_off(self) -> bool:
        """Whether the call passes the conversation to another agent."""
        return self.name.startswith(_HAND_OFF_PREFIX)

    @property
    def has_handed_over(self) -> bool:
        """Whether it is a hand-off of which it is stored that it ended (LibreChat 0.8.8)."""
        return self.is_hand_off and self.status == "completed"


@dataclass(frozen=True, slots=True)
class ErrorPart:
    """The provider's or a tool's failure: the only error signal of agent-framework turns."""

    message: str


@dataclass(frozen=True, slots=True)
class SteerPart:
    """A user message that was inserted into a running answer."""

    text: str
    created_milliseconds: int | None = None


@dataclass(frozen=True, slots=True)
class SummaryPart:
    """A compaction of the history before this point; `boundary_id` is the last message that it replaces."""

    text: str
    model: str | None = None
    boundary_id: str | None = None


@dataclass(frozen=True, slots=True)
class HandOffPart:
    """The marker that another agent takes over (`agent_update`)."""

    agent_id: str | None


@dataclass(frozen=True, slots=True)
class OtherPart:
    """A part that carries no text of the turn, or whose type this release does not know."""

    type: str

    @property
    def is_unknown(self) -> bool:
        """Whether this release does not know its type."""
        return self.type not in _QUIET_TYPES


Part = TextPart | ReasoningPart | ToolCall | ErrorPart | SteerPart | SummaryPart | HandOffPart | OtherPart


def read_parts(value: object, *, depth: int = 0) -> tuple[Part, ...]:
    """The parts of a `content` array, in order. Holes, and elements that are not documents, are left out."""
    if not value:
        return ()
    items = _without_earlier_states([item for item in sequence(value) if isinstance(item, dict)])
    return tuple([_read_part(item, depth) for item in items])


def _without_earlier_states(items: list[Document]) -> list[Document]:
    """The parts without those of running tool calls that are done: the assistants endpoints store both."""
    calls = [item for item in items if "tool_call" in item]
    done = {_identity(item) for item in calls if _progress(item) == 1} - {None} if calls else None
    if not done:
        return items
    return [item for item in items if _progress(item) == 1 or _identity(item) not in done]


def _identity(item: Document) -> tuple[str, str] | None:
    call = mapping(item.get("tool_call"))
    call_id, nested = filled_string(call.get("id")), mapping(call.get("code_interpreter"))
    return (call_id, encode_json(nested.get("input"))) if call_id is not None and nested else None


def _progress(item: Document) -> object:
    return mapping(item.get("tool_call")).get("progress")


def _read_part(part: Document, depth: int) -> Part:
    agent_id, group_id = filled_string(part.get("agentId")), count(part.get("groupId"))
    match part.get("type"):
        case "text":
            return TextPart(without_data_uris(_inner_text(part.get("text"))), agent_id, group_id)
        case "think":
            return ReasoningPart(_inner_text(part.get("think")), agent_id, group_id)
        case "tool_call":
            return _read_tool_call(mapping(part.get("tool_call")), agent_id, group_id, depth)
        case "error":
            return ErrorPart(_inner_text(part.get("error")) or _inner_text(part.get("text")))
        case "steer":
            return SteerPart(_inner_text(part.get("steer")), milliseconds(part.get("createdAt")))
        case "summary":
            return _read_summary(part)
        case "agent_update":
            return HandOffPart(filled_string(mapping(part.get("agent_update")).get("agentId")))
        case media if is_media(media):
            return TextPart(describe_media(part), agent_id, group_id)
        case unknown:
            return OtherPart(string(unknown) or "untyped")


def _inner_text(value: object) -> str:
    """Text is stored as it is, or as `{value, annotations}` by the assistants endpoints."""
    return string(value) or string(mapping(value).get("value")) or ""


def _read_summary(part: Document) -> SummaryPart:
    pieces = [_inner_text(mapping(item).get("text")) for item in sequence(part.get("content"))]
    text = (
        "".join(pieces)
        or _inner_text(part.get("text"))
        or _inner_text(mapping(part.get("summary")).get("text"))
    )
    boundary = mapping(part.get("boundary"))
    return SummaryPart(text, filled_string(part.get("model")), filled_string(boundary.get("messageId")))


def _read_tool_call(call: Document, agent_id: str | None, group_id: int | None, depth: int) -> ToolCall:
    # The assistants endpoints nest what the agents framework keeps flat.
    kind = string(call.get("type"))
    nested = mapping(call.get("function")) or mapping(call.get("code_interpreter"))
    name = filled_string(call.get("name")) or filled_string(nested.get("name")) or kind or "unnamed"
    arguments = call.get("args")
    if arguments is None:
        arguments = nested.get("arguments", nested.get("input"))
    output = call.get("output", nested.get("output", nested.get("outputs")))
    output_text = output if output is None or isinstance(output, str) else encode_json(output)
    output_text = None if output_text is None else without_bytes(output_text)
    status = filled_string(call.get("runStepStatus"))
    return ToolCall(
        call_id=filled_string(call.get("id")),
        name=name,
        arguments=without_bytes(arguments) if isinstance(arguments, str) else arguments,
        output=output_text,
        failed=_tool_failed(output_text, status, validation_failed=call.get("inputValidationError") is True),
        awaits_approval=isinstance(call.get("approval"), dict) and not output_text,
        duration_milliseconds=duration_milliseconds(call.get("runStepDurationMs")),
        agent_id=agent_id or filled_string(call.get("agentId")),
        group_id=group_id,
        status=status,
        lacks_output=output_text is None
        and call.get("progress") != 1
        and kind not in _WITHOUT_OUTPUT
        and not name.startswith(_HAND_OFF_PREFIX),
        inner=read_parts(call.get("subagent_content"), depth=depth + 1) if depth < _DEEPEST_SUBAGENT else (),
    )


def _tool_failed(output: str | None, status: str | None, *, validation_failed: bool) -> bool:
    """The agents library stores no error flag; it writes the failure into the output (ToolNode)."""
    if validation_failed or (status is not None and status != "completed"):
        return True
    if output is None:
        return False
    if output.startswith(_FAILED_TOOL_BEGINNINGS) or _FAILED_ACTION.match(output):
        return True
    return output.startswith(_FAILED_TOOL_PREFIX) and output.rstrip().endswith(_FAILED_TOOL_SUFFIX)
