"""What remains of a change event without its document: which row, what kind of change, and when.

Events are hints and documents are truth: a hint only decides whether a row is worth reading, and from when on. So a
repeated, late or reordered hint does no harm.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from tailer.core.identity import DocumentKey
from tailer.core.light_dataclass import light_dataclass


class Stream(StrEnum):
    """The tailed collections, one change stream each; transactions only if that is switched on."""

    MESSAGES = "messages"
    CONVERSATIONS = "conversations"
    TRANSACTIONS = "transactions"


class Operation(StrEnum):
    """The operations of a change stream that affect a document."""

    INSERT = "insert"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"


class Interest(StrEnum):
    """What a hint asks for."""

    NOTHING = "nothing"
    TOUCH = "touch"
    QUESTION = "question"
    RESPONSE = "response"
    TITLE = "title"
    DELETION = "deletion"
    SPENDING = "spending"
    FOLLOWUP = "followup"
    """No hint asks for it directly: a change of a row whose turn was sent."""


@light_dataclass(frozen=True, slots=True)
class ChangeHint:
    """One change event. `changed` names the top-level fields that an update set or removed. The ids and flags are known
    for inserts and replacements only.

    `written_milliseconds` is LibreChat's `updatedAt` of this write if it has one, else the server's wall time;
    `cluster_seconds` is the server's. Some values travel along, all of them bounded, because no document holds them for
    long: the `text` of a new question, the `title` and settings of a conversation, and whether a new answer is
    `unfinished`, has the shape of a `stopped` one, and may belong to a `temporary` chat.
    """

    operation: Operation
    document_key: DocumentKey
    cluster_seconds: int
    written_milliseconds: int | None
    changed: frozenset[str]
    message_id: str | None
    parent_message_id: str | None
    created_by_user: bool | None
    conversation_id: str | None = None
    stopped: bool = False
    unfinished: bool = False
    temporary: bool = False
    text: str | None = field(default=None, repr=False)
    title: str | None = field(default=None, repr=False)
    settings: Mapping[str, object] | None = field(default=None, repr=False)


REPLAY = "replay"
"""Stands among changed fields for a turn that an operator sends again: its rows may have been mended for that."""
LEDGER = "ledger"
"""Stands among changed fields for rows of `transactions` that were written after their turn was sent."""

_TURN_FIELDS = frozenset(
    {
        "conversationId",
        "unfinished",
        "content",
        "text",
        "error",
        "finish_reason",
        "metadata",
        "attachments",
        "model",
        "feedback",
    }
)
"""Fields of a message whose change can finish or alter a turn. The rest is bookkeeping (search index, calibration)."""


def classify_message(hint: ChangeHint) -> Interest:
    """What a hint of `messages` asks for."""
    if hint.operation is Operation.DELETE:
        return Interest.DELETION
    if hint.operation is not Operation.UPDATE:
        return Interest.QUESTION if hint.created_by_user else Interest.RESPONSE
    if not _TURN_FIELDS.isdisjoint(hint.changed):
        return Interest.RESPONSE
    # LibreChat saves the question again when it generates a new answer to it; nothing else marks that start.
    return Interest.TOUCH if "updatedAt" in hint.changed else Interest.NOTHING


def classify_conversation(hint: ChangeHint) -> Interest:
    """What a hint of `conversations` asks for: a title generation is complete when its title is stored."""
    if hint.operation is Operation.UPDATE and "title" in hint.changed:
        return Interest.TITLE
    return Interest.NOTHING


def classify_transaction(hint: ChangeHint) -> Interest:
    """What a hint of `transactions` asks for: spending without a message is a call of the agents API."""
    return Interest.SPENDING if hint.operation in (Operation.INSERT, Operation.REPLACE) else Interest.NOTHING


CLASSIFIERS = {
    Stream.MESSAGES: classify_message,
    Stream.CONVERSATIONS: classify_conversation,
    Stream.TRANSACTIONS: classify_transaction,
}
"""How the hints of each stream are read."""

STREAM_OF_INTEREST = {
    Interest.TITLE: Stream.CONVERSATIONS,
    Interest.SPENDING: Stream.TRANSACTIONS,
}
"""Which stream an entry holds back; every other kind holds back `messages`."""
