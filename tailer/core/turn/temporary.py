"""Whether a row belongs to a temporary chat: the row itself, its question or its conversation says so.

Not every row says it. Stop stores an answer without the flag (until 0.8.7), an edited artifact takes the expiry date
away (until 0.8.4), and the rows of assistants never have either. Their conversation does.
"""

from dataclasses import replace
from typing import Final

from tailer.core.librechat.conversations import Conversation
from tailer.core.librechat.messages import Message

ASSISTANTS: Final = ("assistants", "azureAssistants")
"""The endpoints whose rows are stored by a way of their own."""
_SHORTEST_LIFE_SECONDS: Final = 3_600
"""LibreChat keeps a temporary chat for an hour at least (`MIN_RETENTION_HOURS`)."""


def is_temporary(
    message: Message, conversation: Conversation | None, question: Message | None = None
) -> bool:
    """Whether a row, its question or its conversation says that the chat is temporary.

    A conversation that has only an expiry date was stored until 0.8.5, where that is the sign; it counts for rows of
    those releases. An expiry date alone makes no temporary row of a conversation that is none (retention modes).
    """
    lasts = conversation is not None and conversation.temporary is False
    if any(row.temporary and not (row.temporary_by_expiry and lasts) for row in (message, question) if row):
        return True
    if conversation is None:
        return False
    return conversation.temporary is True or (conversation.temporary is None and not message.says_temporary)


def settle_temporary(
    message: Message,
    conversation: Conversation | None,
    question: Message | None,
    *,
    now_seconds: float | None,
) -> Message:
    """The row of a turn, temporary if anything says so, or if it may be what is left of a temporary chat.

    `now_seconds` is since 1970; without it every row may be as old as that takes.
    """
    made = message.inserted_seconds
    is_young = now_seconds is not None and made is not None and made > now_seconds - _SHORTEST_LIFE_SECONDS
    left_over = not is_young and _is_left_over(message, conversation, question)
    temporary = left_over or is_temporary(message, conversation, question)
    return message if temporary is message.temporary else replace(message, temporary=temporary)


def _is_left_over(message: Message, conversation: Conversation | None, question: Message | None) -> bool:
    """Whether a row may have outlived a temporary chat.

    LibreChat deletes a conversation with all its rows. What MongoDB lets expire leaves the rows without a date behind.
    """
    if conversation is not None or message.expires_milliseconds is not None:
        return False
    if message.endpoint in ASSISTANTS:
        return True
    # From 0.8.6 on every row says it, but for the answers that were stopped.
    is_silent = message.unfinished or not message.says_temporary
    return question is None and not message.created_by_user and is_silent
