"""The conversation before a question, as chat messages, from the chain of `parentMessageId`.

It is an approximation of the prompt, and marked as one: LibreChat adds instructions, tools and files that it does not
store, and prunes to the model's window.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tailer.core.librechat.content import SummaryPart
from tailer.core.librechat.messages import Message
from tailer.core.librechat.replay import ChatMessage, has_summary
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.turns import TurnRecord

_LEAST_CUT_BYTES = 200
"""A shorter beginning of a message says nothing."""


@light_dataclass(frozen=True, slots=True)
class Prompt:
    """The chat messages of a turn, oldest first, and how many earlier rows the byte limit left out; `is_cut`: there are
    more than that, and it is not known how many."""

    messages: tuple[ChatMessage, ...]
    left_out: int
    is_cut: bool = False


def without_temporary_rows(record: TurnRecord) -> TurnRecord:
    """The record of a lasting turn without the rows of its history that say that they are temporary.

    LibreChat (0.8.6 and later) makes a temporary chat a lasting one with the first message that is sent so, as after a
    reload of its page. What was written before stays temporary.
    """
    lasting = tuple([message for message in record.history if not _says_temporary(message)])
    left_out = len(record.history) - len(lasting)
    return replace(record, history=lasting, history_left_out=record.history_left_out + left_out)


def has_temporary_rows(record: TurnRecord) -> bool:
    """Whether some rows of the history of a lasting turn are temporary."""
    anchor = record.response or record.question
    return any(map(_says_temporary, record.history)) and anchor is not None and not anchor.temporary


def _says_temporary(message: Message) -> bool:
    return message.temporary and not message.temporary_by_expiry


def take_beginning(text: str, length: int) -> str:
    """So many characters of a text, as they are."""
    return text[:length]


def build_prompt(
    record: TurnRecord, *, byte_limit: int, begin: Callable[[str, int], str] = take_beginning
) -> Prompt:
    """System prompt, ancestors and question as chat messages.

    The byte limit removes the oldest ancestors first; of the first one beyond it, the beginning is shown, which `begin`
    takes from its text. A summary replaces what came before it, also one that the answer's own run made.
    """
    kept: list[Sequence[ChatMessage]] = []
    spent, left_out = 0, 0
    own = _own_summary(record)
    replaced_from = _replaced_from(record, own)
    history = _since_summary(record.history)
    for position, message in enumerate(history):
        if position == replaced_from:
            break
        row = message.replay
        if spent + row.text_bytes > byte_limit:
            left_out = len(history) - position
            beginning = _cut(row.chat, byte_limit - spent, begin)
            if beginning:
                kept.append(beginning)
                left_out -= 1
            break
        spent += row.text_bytes
        kept.append(row.chat)
    messages = [*_system_messages(record)]
    if own is not None:
        messages.append({"role": "system", "content": own.text})
    for chat in reversed(kept):
        messages.extend(chat)
    if record.question is not None:
        messages.append({"role": "user", "content": record.question.text or ""})
    if own is not None or (history and has_summary(history[-1].parts)):
        return Prompt(tuple(messages), left_out)
    return Prompt(tuple(messages), left_out + record.history_left_out, record.history_cut)


def _since_summary(history: Sequence[Message]) -> Sequence[Message]:
    """The ancestors that no older summary replaces, newest first."""
    newest_first = history[::-1]
    for position, message in enumerate(newest_first, 1):
        if has_summary(message.parts):
            return newest_first[:position]
    return newest_first


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


def _cut(chat: Sequence[ChatMessage], limit: int, begin: Callable[[str, int], str]) -> list[ChatMessage]:
    """The beginning of a row that is too long, as one message with a mark; nothing if too little would be left."""
    if limit < _LEAST_CUT_BYTES or not chat:
        return []
    texts = [str(message["content"]) for message in chat if message["content"]]
    text = "\n".join(texts)
    encoded = text.encode("utf-8", "replace")
    if not encoded:
        return []
    kept = encoded[:limit].decode("utf-8", "ignore")
    missing = len(encoded) - len(kept.encode())
    return [
        {"role": chat[0]["role"], "content": f"{begin(text, len(kept))}… [cut: {missing} bytes left out]"}
    ]


def _system_messages(record: TurnRecord) -> Sequence[ChatMessage]:
    instructions = record.agent.instructions if record.agent is not None else None
    if instructions is None and record.conversation is not None:
        instructions = record.conversation.prompt_prefix
    return [{"role": "system", "content": instructions}] if instructions else []
