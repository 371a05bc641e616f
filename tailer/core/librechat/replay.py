"""A row as chat messages, in OpenAI's shape: how LibreChat replays it to the model with the next question."""

from collections.abc import Sequence

from tailer.core.json_text import encode_json
from tailer.core.librechat.content import Part, SteerPart, SummaryPart, TextPart, ToolCall
from tailer.core.light_dataclass import light_dataclass

ChatMessage = dict[str, object]
"""`{role, content}` with `tool_calls` or `tool_call_id` where they belong. Those of a row are shared by all prompts
that show it, and are not changed."""


@light_dataclass(frozen=True, slots=True)
class Replay:
    """The chat messages of a row, and the bytes of their texts and calls in UTF-8."""

    chat: tuple[ChatMessage, ...]
    text_bytes: int


def replay_row(text: str | None, parts: Sequence[Part], *, created_by_user: bool) -> Replay:
    """The replay of a row with this text and these parts."""
    chat: list[ChatMessage]
    if created_by_user:
        chat = [{"role": "user", "content": text or ""}]
    elif not parts:
        chat = [{"role": "assistant", "content": text or ""}]
    else:
        chat = chat_from_parts(parts)
    return Replay(tuple(chat), _text_bytes(chat))


def has_summary(parts: Sequence[Part]) -> bool:
    """Whether a row with these parts replaces all rows before it."""
    if SummaryPart not in map(type, parts):
        return False
    return any(isinstance(part, SummaryPart) and part.text for part in parts)


def chat_from_parts(parts: Sequence[Part]) -> list[ChatMessage]:
    """A response's parts as LibreChat replays them: answers, tool calls with results, steering as user messages."""
    chat: list[ChatMessage] = []
    for part in parts:
        if isinstance(part, TextPart):
            if part.text:
                chat.append({"role": "assistant", "content": part.text})
        elif isinstance(part, ToolCall):
            chat.append({"role": "assistant", "content": "", "tool_calls": [tool_call_shape(part)]})
            if part.output is not None:
                chat.append({"role": "tool", "tool_call_id": part.call_id or "", "content": part.output})
        elif isinstance(part, SteerPart) and part.text:
            chat.append({"role": "user", "content": part.text})
        elif isinstance(part, SummaryPart) and part.text:
            chat = [{"role": "system", "content": part.text}]
    return chat


def tool_call_shape(call: ToolCall) -> ChatMessage:
    """A tool call in OpenAI's shape, which Langfuse understands."""
    arguments = call.arguments if isinstance(call.arguments, str) else encode_json(call.arguments or {})
    return {
        "id": call.call_id or "",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _text_bytes(chat: Sequence[ChatMessage]) -> int:
    size = 0
    for message in chat:
        text = str(message["content"])
        size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        calls = message.get("tool_calls")
        if calls:
            size += len(encode_json(calls))
    return size
