"""A tool call as an observation, and the sub-agent that it ran."""

from tailer.core.json_text import decode_json, encode_json
from tailer.core.librechat.bson_values import filled_string, mapping
from tailer.core.librechat.content import ToolCall
from tailer.core.trace.bounds import Allowance
from tailer.core.trace.generations import Frame
from tailer.core.trace.observations import Level, Observation, ObservationType

_MOST_STATUS_CHARACTERS = 40
_CHARGED_ELSEWHERE = frozenset({"image_gen_oai", "image_edit_oai", "dalle", "stable-diffusion", "flux"})
"""Tools that call a paid model of their own, of which LibreChat writes no transaction."""


def build_tool(
    frame: Frame, call: ToolCall, allowance: Allowance, *, finished: bool, agent_name: str | None
) -> Observation:
    """The tool's arguments and output; `finished` says that the turn ended normally."""
    known = call.duration_milliseconds is not None
    metadata = {"timing": "duration stored" if known else "order only"}
    if call.call_id is not None:
        metadata["tool_call_id"] = call.call_id
    if call.agent_id is not None:
        metadata["agent_id"] = call.agent_id
        if agent_name is not None and agent_name != call.agent_id:
            metadata["agent_name"] = agent_name
    if call.name in _CHARGED_ELSEWHERE:
        metadata["cost"] = "not stored"
    missing = call.lacks_output or (call.output is None and not finished and not call.has_handed_over)
    level = Level.ERROR if call.failed else Level.WARNING if missing else Level.DEFAULT
    status = _describe_failure(call) if call.failed else "no output was stored" if missing else None
    return Observation(
        id=frame.id,
        parent_id=frame.parent_id,
        type=ObservationType.TOOL,
        name=frame.name,
        start_milliseconds=frame.start_milliseconds,
        end_milliseconds=frame.end_milliseconds,
        level=level,
        status_message=status,
        input=_show_arguments(call.arguments, allowance),
        output=allowance.take(call.output) if call.output is not None else None,
        metadata=metadata,
    )


def _describe_failure(call: ToolCall) -> str:
    if call.status is None or call.status == "completed":
        return "the tool failed"
    return f"the tool ended as {call.status[:_MOST_STATUS_CHARACTERS]}"


def build_subagent(frame: Frame, call: ToolCall, agent_id: str | None, allowance: Allowance) -> Observation:
    """The agent that a call ran: its question and its answer."""
    arguments = decode_json(call.arguments) if isinstance(call.arguments, str) else call.arguments
    asked = filled_string(mapping(arguments).get("description"))
    return Observation(
        id=frame.id,
        parent_id=frame.parent_id,
        type=ObservationType.AGENT,
        name=frame.name,
        start_milliseconds=frame.start_milliseconds,
        end_milliseconds=frame.end_milliseconds,
        level=Level.ERROR if call.failed else Level.DEFAULT,
        input=allowance.take(asked) if asked is not None else None,
        output=allowance.take(call.output) if call.output is not None and not call.is_detached else None,
        metadata={} if agent_id is None else {"agent_id": agent_id},
    )


def _show_arguments(arguments: object, allowance: Allowance) -> object:
    if arguments is None:
        return None
    text = arguments if isinstance(arguments, str) else encode_json(arguments)
    # What was cut is no JSON and stays text.
    return decode_json(allowance.take(text))
