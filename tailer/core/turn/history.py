"""The conversation before a question, as chat messages, from the chain of `parentMessageId`.

It is an approximation of the prompt, and marked as one: LibreChat adds instructions, tools and files that it does not
store, and prunes to the model's window.
"""

from collections.abc import Sequence

from tailer.core.json_text import encode_json
from tailer.core.librechat.content import Part, SteerPart, SummaryPart, TextPart, ToolCall
from tailer.core.librechat.documents import Message
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.turns import TurnRecord

_LEAST_CUT_BYTES = 200
"""A shorter beginning of a message says nothing."""

ChatMessage = dict[str, object]
"""`{role, content}` with `tool_calls` or `tool_call_id` where they belong, in OpenAI's shape."""


@light_dataclass(frozen=True, slots=True)
class Prompt:
    """The chat messages of a turn, oldest first, and how many earlier rows the byte limit left out; `is_cut`: there are
    more than that, and it is not known how many."""

    messages: tuple[ChatMessage, ...]
    left_out: int
    is_cut: bool = False


def build_prompt(record: TurnRecord, *, byte_limit: int) -> Prompt:
    """System prompt, ancestors and question as chat messages.

    The byte limit removes the oldest ancestors first; of the first one beyond it, the beginning is shown. A summary
    replaces what came before it, also one that the answer's own run made.
    """
    kept: list[list[ChatMessage]] = []
    spent, left_out = 0, 0
    own = _own_summary(record)
    replaced_from = _replaced_from(record, own)
    history = _since_summary(record.history)
    for position, message in enumerate(history):
        if position == replaced_from:
            break
        chat = _to_chat(message)
        size = _text_bytes(chat)
        if spent + size > byte_limit:
            left_out = len(history) - position
            cut = _cut(chat, byte_limit - spent)
            if cut:
                kept.append(cut)
                left_out -= 1
            break
        spent += size
        kept.append(chat)
    messages = [*_system_messages(record)]
    if own is not None:
        messages.append({"role": "system", "content": own.text})
    for chat in reversed(kept):
        messages.extend(chat)
    if record.question is not None:
        messages.append({"role": "user", "content": record.question.text or ""})
    if own is not None or _is_summary(history[-1:]):
        return Prompt(tuple(messages), left_out)
    return Prompt(tuple(messages), left_out + record.history_left_out, record.history_cut)


def _since_summary(history: Sequence[Message]) -> Sequence[Message]:
    """The ancestors that no older summary replaces, newest first."""
    newest_first = history[::-1]
    last = next((at for at, message in enumerate(newest_first, 1) if _is_summary([message])), None)
    return newest_first[:last]


def _is_summary(messages: Sequence[Message]) -> bool:
    """Whether any of these rows has a summary in it."""
    return any(isinstance(part, SummaryPart) and part.text for message in messages for part in message.parts)


def _own_summary(record: TurnRecord) -> SummaryPart | None:
    """The summary that the answer's own run put in place of the history (0.8.5); one without a boundary tells of
    none."""
    parts = record.response.parts if record.response is not None else ()
    return next(
        (part for part in parts if isinstance(part, SummaryPart) and part.text and part.boundary_id), None
    )


def _replaced_from(record: TurnRecord, summary: SummaryPart | None) -> int | None:
    """Which ancestor, counted from the newest, is the first that a summary replaces: all of them where its boundary
    lies in the answer itself."""
    if summary is None:
        return None
    ids = [message.message_id for message in reversed(record.history)]
    return ids.index(summary.boundary_id) if summary.boundary_id in ids else 0


def _cut(chat: Sequence[ChatMessage], limit: int) -> list[ChatMessage]:
    """The beginning of a row that is too long, as one message with a mark; nothing if too little would be left."""
    if limit < _LEAST_CUT_BYTES or not chat:
        return []
    texts = [str(message["content"]) for message in chat if message["content"]]
    encoded = "\n".join(texts).encode("utf-8", "replace")
    if not encoded:
        return []
    kept = encoded[:limit].decode("utf-8", "ignore")
    missing = len(encoded) - len(kept.encode())
    return [{"role": chat[0]["role"], "content": f"{kept}… [cut: {missing} bytes left out]"}]


def _system_messages(record: TurnRecord) -> Sequence[ChatMessage]:
    instructions = record.agent.instructions if record.agent is not None else None
    if instructions is None and record.conversation is not None:
        instructions = record.conversation.prompt_prefix
    return [{"role": "system", "content": instructions}] if instructions else []


def _to_chat(message: Message) -> list[ChatMessage]:
    if message.created_by_user:
        return [{"role": "user", "content": message.text or ""}]
    if not message.parts:
        return [{"role": "assistant", "content": message.text or ""}]
    return chat_from_parts(message.parts)


def chat_from_parts(parts: Sequence[Part]) -> list[ChatMessage]:
    """A response's parts as LibreChat replays them: answers, tool calls with results, steering as user messages."""
    chat: list[ChatMessage] = []
    for part in parts:
        if isinstance(part, TextPart) and part.text:
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
        size += len(str(message["content"]).encode("utf-8", "replace"))
        calls = message.get("tool_calls")
        if calls:
            size += len(encode_json(calls))
    return size
