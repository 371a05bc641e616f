"""A row of `messages` as the tailer uses it: all of it for a turn's own rows, and of earlier ones what a history shows.

The readers take what is sound and leave out the rest. Only a row without ids is unusable: that is a
`MalformedDocument`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tailer.core.identity import DocumentKey, inserted_seconds, is_api_response
from tailer.core.librechat.attached_files import AttachedFile, read_attached_files
from tailer.core.librechat.bson_values import (
    Document,
    amount,
    count,
    filled_string,
    identifier,
    mapping,
    milliseconds,
    string,
    strings,
)
from tailer.core.librechat.content import Part, read_parts
from tailer.core.librechat.media import without_data_uris
from tailer.core.librechat.replay import Replay, replay_row
from tailer.core.librechat.sources import SourceList, read_quotes, read_skills, read_sources
from tailer.core.light_dataclass import light_dataclass


class MalformedDocument(Exception):
    """A row that cannot be read as a row of its collection. It names the field and never quotes the content."""

    def __init__(self, collection: str, key: str, field: str) -> None:
        super().__init__(f"{collection} document {key}: field {field} is missing or has the wrong type")
        self.collection = collection
        self.key = key
        self.field = field


@light_dataclass(frozen=True, slots=True)
class ReportedUsage:
    """`metadata.usage` (0.8.7 and later): all model calls of the turn, `input` without cache, cost in USD."""

    input: int
    output: int
    cache_write: int
    cache_read: int
    cost: float | None


FEEDBACK_TAGS = frozenset(
    {
        "not_matched",
        "inaccurate",
        "bad_style",
        "missing_image",
        "unjustified_refusal",
        "not_helpful",
        "other",
        "accurate_reliable",
        "creative_solution",
        "clear_well_written",
        "attention_to_detail",
    }
)
"""The tags of LibreChat's own client (`FEEDBACK_REASON_KEYS`). The database takes any value: another one is a text."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """`feedback` of a response (0.7.9 and later): thumbs up or down, a tag (mostly from LibreChat's list), a text."""

    rating: str
    tag: str | None
    text: str | None


@light_dataclass(frozen=True, slots=True)
class SubagentTask:
    """`subagentTask` of a row in a detached sub-agent's conversation (after 0.8.8-rc1): how the task stands, `running`,
    `completed`, `error` or `cancelled`, and the message id of the turn that started it."""

    status: str | None
    parent_run_id: str | None

    @property
    def has_failed(self) -> bool:
        """Whether the task ended in an error."""
        return self.status == "error"

    @property
    def was_cancelled(self) -> bool:
        """Whether the task was stopped."""
        return self.status == "cancelled"


@light_dataclass(frozen=True, slots=True)
class Message:
    """One row of `messages`: a user's question or a response; only `isCreatedByUser` distinguishes them.

    `says_temporary`: the row itself says if its chat is temporary. Every row does since 0.8.6.
    """

    key: DocumentKey
    message_id: str
    conversation_id: str
    parent_message_id: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None
    created_by_user: bool = False
    sender: str | None = None
    text: str | None = None
    quotes: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    model: str | None = None
    endpoint: str | None = None
    token_count: int | None = None
    unfinished: bool = False
    error: bool = False
    finish_reason: str | None = None
    usage: ReportedUsage | None = None
    run_id: str | None = None
    context_tokens: int | None = None
    instruction_tokens: int | None = None
    sampling_decided: bool = False
    native_destinations: tuple[str, ...] = ()
    temporary: bool = False
    temporary_by_expiry: bool = False
    expires_milliseconds: int | None = None
    files: tuple[AttachedFile, ...] = ()
    skills: tuple[str, ...] = ()
    sources: tuple[SourceList, ...] = ()
    feedback: Feedback | None = None
    created_milliseconds: int | None = None
    updated_milliseconds: int | None = None
    inserted_seconds: int | None = None
    says_temporary: bool = True
    subagent_task: SubagentTask | None = None
    _replay: Replay | None = field(init=False, default=None, compare=False, repr=False)

    @property
    def is_of_api(self) -> bool:
        """Whether the agents API stored this response."""
        return not self.created_by_user and is_api_response(self.message_id, self.parent_message_id)

    @property
    def replay(self) -> Replay:
        """The row as chat messages: made once, however many turns show it in their history."""
        known = self._replay
        if known is None:
            known = replay_row(self.text, self.parts, created_by_user=self.created_by_user)
            object.__setattr__(self, "_replay", known)
        return known

    @property
    def holds_notice(self) -> bool:
        """Whether the text is LibreChat's own: of an error, or of a sub-agent's task that was cancelled."""
        task = self.subagent_task
        return self.error or (task is not None and (task.has_failed or task.was_cancelled))


def read_message(key: DocumentKey, document: Document) -> Message:
    """Read a row of `messages`; raises `MalformedDocument` when it has no `messageId` or `conversationId`."""
    get = document.get
    message_id = filled_string(get("messageId"))
    if message_id is None:
        raise MalformedDocument("messages", key, "messageId")
    conversation_id = filled_string(get("conversationId"))
    if conversation_id is None:
        raise MalformedDocument("messages", key, "conversationId")
    metadata = mapping(get("metadata"))
    context = mapping(metadata.get("contextUsage"))
    breakdown = mapping(context.get("breakdown"))
    # Until 0.8.5 the expiry date is the only sign of a temporary chat; later rows say it themselves.
    says_temporary, expires = "isTemporary" in document, get("expiredAt")
    by_expiry = not says_temporary and expires is not None
    quotes = read_quotes(document)
    content, attachments, feedback = get("content"), get("attachments"), get("feedback")
    return Message(
        key=key,
        message_id=message_id,
        conversation_id=conversation_id,
        parent_message_id=filled_string(get("parentMessageId")),
        user_id=identifier(get("user")),
        tenant_id=filled_string(get("tenantId")),
        created_by_user=get("isCreatedByUser") is True,
        sender=filled_string(get("sender")),
        text=merge_quotes(quotes, string(get("text"))),
        quotes=quotes,
        parts=read_parts(content) if content else (),
        model=filled_string(get("model")),
        endpoint=filled_string(get("endpoint")),
        token_count=count(get("tokenCount")),
        unfinished=get("unfinished") is True,
        error=get("error") is True,
        finish_reason=filled_string(get("finish_reason")),
        usage=_read_reported_usage(metadata.get("usage")),
        run_id=filled_string(context.get("runId")),
        context_tokens=count(breakdown.get("maxContextTokens")),
        instruction_tokens=count(breakdown.get("instructionTokens")),
        sampling_decided="langfuseSampled" in document,
        native_destinations=strings(get("langfuseDestinationIds")),
        temporary=by_expiry or get("isTemporary") is True,
        temporary_by_expiry=by_expiry,
        expires_milliseconds=None if expires is None else milliseconds(expires),
        files=read_attached_files(get("files"), attachments),
        skills=read_skills(document),
        sources=read_sources(attachments) if attachments else (),
        feedback=None if feedback is None else _read_feedback(feedback),
        created_milliseconds=milliseconds(get("createdAt")),
        updated_milliseconds=milliseconds(get("updatedAt")),
        inserted_seconds=inserted_seconds(key),
        says_temporary=says_temporary,
        subagent_task=_read_subagent_task(get("subagentTask")),
    )


def read_earlier(key: DocumentKey, document: Document) -> Message:
    """Read of a row what a history shows: its ids, its role and its words, and whether it says that it is temporary.
    Everything else is as if it were not stored.

    A long conversation is mostly history, and the rest of a row is more work than its words. Raises `MalformedDocument`
    like `read_message`.
    """
    get = document.get
    message_id, conversation_id = filled_string(get("messageId")), filled_string(get("conversationId"))
    if message_id is None or conversation_id is None:
        field_name = "messageId" if message_id is None else "conversationId"
        raise MalformedDocument("messages", key, field_name)
    content, quotes = get("content"), read_quotes(document)
    # In the order of the fields: there are a hundred rows for a turn, and names take longer than the rest.
    message = Message(
        key,
        message_id,
        conversation_id,
        None,  # parent
        None,  # user
        None,  # tenant
        get("isCreatedByUser") is True,
        None,  # sender
        merge_quotes(quotes, string(get("text"))),
        quotes,
        read_parts(content) if content else (),
    )
    return replace(message, temporary=True) if get("isTemporary") is True else message


def merge_quotes(quotes: Sequence[str], text: str | None) -> str | None:
    """A text, preceded by the excerpts that it quotes, as LibreChat sends it to the model, without bytes."""
    if quotes:
        blocks = ["\n".join(f"> {line}" if line else ">" for line in quote.split("\n")) for quote in quotes]
        text = "\n\n".join([*blocks, text] if text else blocks)
    return None if text is None else without_data_uris(text)


def _read_subagent_task(value: object) -> SubagentTask | None:
    task = mapping(value)
    if not task:
        return None
    return SubagentTask(filled_string(task.get("status")), filled_string(task.get("parentRunId")))


def _read_feedback(value: object) -> Feedback | None:
    feedback = mapping(value)
    rating = feedback.get("rating")
    if rating not in ("thumbsUp", "thumbsDown"):
        return None
    tag = feedback.get("tag")
    key = filled_string(tag) or filled_string(mapping(tag).get("key"))
    return Feedback(str(rating), key, filled_string(feedback.get("text")))


def _read_reported_usage(value: object) -> ReportedUsage | None:
    if value is None:
        return None
    usage = mapping(value)
    input_tokens, output_tokens = count(usage.get("input")), count(usage.get("output"))
    if input_tokens is None or output_tokens is None:
        return None
    cost = amount(usage.get("cost"))
    return ReportedUsage(
        input=input_tokens,
        output=output_tokens,
        cache_write=count(usage.get("cacheWrite")) or 0,
        cache_read=count(usage.get("cacheRead")) or 0,
        cost=cost if cost is not None and cost >= 0 else None,
    )
