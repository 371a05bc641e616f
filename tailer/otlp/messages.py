"""Chat messages in the JSON form of the GenAI conventions: roles with parts (`gen_ai-input-messages.json`,
`gen-ai-output-messages.json`, `gen-ai-system-instructions.json` of semantic conventions 1.41).

What comes in is what an observation holds: a text, or messages in OpenAI's shape. After a mask that failed it may be
any text, and after a later release anything: every value gives a valid message.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from tailer.core.json_text import decode_json, encode_json

Message: TypeAlias = dict[str, object]


def split_instructions(value: object) -> tuple[list[Message], list[Message]]:
    """The leading system messages as parts of instructions, and the messages after them."""
    messages = _messages_of(value, role="user")
    instructions: list[Message] = []
    while messages and messages[0]["role"] == "system":
        parts = messages.pop(0)["parts"]
        instructions += parts if isinstance(parts, list) else []
    return instructions, messages


def output_messages(value: object, *, reasoning: str | None, finish_reason: str) -> list[Message]:
    """The one message that a model or an agent wrote, its reasoning first."""
    messages = [] if value is None else _messages_of(value, role="assistant")
    parts = [part for message in messages for part in _parts_in(message)]
    if reasoning:
        parts.insert(0, {"type": "reasoning", "content": reasoning})
    if not parts:
        return []
    if finish_reason == "stop" and parts[-1]["type"] == "tool_call":
        finish_reason = "tool_call"
    return [{"role": "assistant", "parts": parts, "finish_reason": finish_reason}]


def _messages_of(value: object, *, role: str) -> list[Message]:
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [_message_of(item, role) for item in value]
    return [_message_of(value, role)]


def _message_of(value: object, role: str) -> Message:
    if not isinstance(value, Mapping):
        return {"role": role, "parts": [_text(value)]}
    own_role = value.get("role")
    said = own_role if isinstance(own_role, str) else role
    content, calls = value.get("content"), value.get("tool_calls")
    if said == "tool":
        answered: Message = {"type": "tool_call_response", "response": content}
        if value.get("tool_call_id"):
            answered["id"] = str(value["tool_call_id"])
        return {"role": said, "parts": [answered]}
    parts = [_text(content)] if content not in (None, "") else []
    if isinstance(calls, Sequence) and not isinstance(calls, str):
        parts += [_tool_call(call) for call in calls]
    if not parts and content is None:
        # A mapping of another shape is shown whole.
        parts = [_text(dict(value))]
    return {"role": said, "parts": parts}


def _tool_call(call: object) -> Message:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        return _text(call)
    arguments = function.get("arguments")
    part: Message = {"type": "tool_call", "name": str(function.get("name") or "")}
    if call.get("id"):
        part["id"] = str(call["id"])
    if arguments not in (None, ""):
        part["arguments"] = decode_json(arguments) if isinstance(arguments, str) else arguments
    return part


def _text(value: object) -> Message:
    return {"type": "text", "content": value if isinstance(value, str) else encode_json(value)}


def _parts_in(message: Message) -> list[Message]:
    parts = message["parts"]
    return list(parts) if isinstance(parts, list) else []
