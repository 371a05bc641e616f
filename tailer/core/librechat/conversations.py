"""LibreChat's conversations and agents: the settings that a turn ran with, as stored now and as a change tells them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tailer.core.identity import DocumentKey
from tailer.core.librechat.bson_values import (
    Document,
    filled_string,
    identifier,
    mapping,
    milliseconds,
    sequence,
    strings,
)
from tailer.core.light_dataclass import light_dataclass


@dataclass(frozen=True, slots=True)
class SubagentThread:
    """The reference of a sub-agent's conversation: the conversation and the answer that started it."""

    parent_conversation_id: str | None
    parent_message_id: str | None
    subagent_type: str | None


@light_dataclass(frozen=True, slots=True)
class Conversation:
    """One row of `conversations`: the *current* settings. Those of older turns are overwritten."""

    key: DocumentKey
    conversation_id: str
    user_id: str | None
    title: str | None
    model: str | None
    endpoint: str | None
    agent_id: str | None
    prompt_prefix: str | None
    tags: tuple[str, ...]
    project_id: str | None
    model_spec: str | None
    archived: bool
    settings: Mapping[str, object]
    created_milliseconds: int | None = None
    temporary: bool | None = None
    thread: SubagentThread | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """One row of `agents`: the provider and settings of a saved agent, either today's or those of one of its
    `versions`.

    LibreChat keeps a copy of the agent with every change, oldest first.
    """

    agent_id: str
    name: str | None
    provider: str | None
    model: str | None
    instructions: str | None
    parameters: Mapping[str, object]
    written_milliseconds: int | None = None
    versions: tuple["Agent", ...] = ()


MODEL_PARAMETER_FIELDS = (
    "temperature", "top_p", "topP", "topK", "maxOutputTokens", "maxTokens", "max_tokens", "maxContextTokens",
    "presence_penalty", "frequency_penalty", "stop", "reasoning_effort", "reasoning_summary", "verbosity", "effort",
    "thinking", "thinkingBudget", "thinkingLevel", "promptCache", "useResponsesApi", "web_search",
)  # fmt: skip
"""The settings of a conversation that go to the provider (LibreChat's `conversationPreset`)."""


SETTINGS_FIELDS = frozenset(
    {*MODEL_PARAMETER_FIELDS, "endpoint", "model", "agent_id", "spec", "promptPrefix", "instructions"}
)
"""The fields of a conversation that decide what a model receives."""


def read_conversation(key: DocumentKey, document: Document) -> Conversation | None:
    """Read a row of `conversations`; None when it has no `conversationId`."""
    conversation_id = filled_string(document.get("conversationId"))
    if conversation_id is None:
        return None
    return Conversation(
        key=key,
        conversation_id=conversation_id,
        user_id=identifier(document.get("user")),
        title=filled_string(document.get("title")),
        model=filled_string(document.get("model")),
        endpoint=filled_string(document.get("endpoint")),
        agent_id=filled_string(document.get("agent_id")),
        prompt_prefix=filled_string(document.get("promptPrefix"))
        or filled_string(document.get("instructions")),
        tags=strings(document.get("tags")),
        project_id=filled_string(document.get("chatProjectId")),
        model_spec=filled_string(document.get("spec")),
        archived=document.get("isArchived") is True,
        settings={name: document[name] for name in MODEL_PARAMETER_FIELDS if document.get(name) is not None},
        created_milliseconds=milliseconds(document.get("createdAt")),
        temporary=_read_temporary(document),
        thread=_read_thread(document),
    )


def read_setting_changes(conversation: Conversation, changes: Mapping[str, object | None]) -> Conversation:
    """The conversation with other settings; None stands for a field that is not set."""
    settings = {name: value for name, value in conversation.settings.items() if name not in changes}
    for name in MODEL_PARAMETER_FIELDS:
        if changes.get(name) is not None:
            settings[name] = changes[name]

    def text(name: str, known: str | None) -> str | None:
        return filled_string(changes[name]) if name in changes else known

    prompt = conversation.prompt_prefix
    if "promptPrefix" in changes or "instructions" in changes:
        prompt = filled_string(changes.get("promptPrefix")) or filled_string(changes.get("instructions"))
    return replace(
        conversation,
        model=text("model", conversation.model),
        endpoint=text("endpoint", conversation.endpoint),
        agent_id=text("agent_id", conversation.agent_id),
        model_spec=text("spec", conversation.model_spec),
        prompt_prefix=prompt,
        settings=settings,
    )


def _read_thread(conversation: Document) -> SubagentThread | None:
    thread = mapping(conversation.get("subagentThread")) or conversation
    parent = filled_string(thread.get("parentConversationId"))
    message_id = filled_string(thread.get("parentMessageId"))
    if parent is None and message_id is None:
        return None
    return SubagentThread(parent, message_id, filled_string(thread.get("subagentType")))


def _read_temporary(conversation: Document) -> bool | None:
    """None if only an expiry date is stored: a temporary chat until 0.8.5, or a chat that is kept only for a time."""
    if isinstance(conversation.get("isTemporary"), bool):
        return conversation["isTemporary"] is True
    return None if conversation.get("expiredAt") is not None else False


def read_agent(document: Document) -> Agent | None:
    """Read a row of `agents`; None when it has no id."""
    agent_id = filled_string(document.get("id"))
    if agent_id is None:
        return None
    return Agent(
        agent_id=agent_id,
        name=filled_string(document.get("name")),
        provider=filled_string(document.get("provider")),
        model=filled_string(document.get("model")),
        instructions=filled_string(document.get("instructions")),
        parameters=mapping(document.get("model_parameters")),
        written_milliseconds=milliseconds(document.get("updatedAt")),
        versions=tuple(
            found
            for version in sequence(document.get("versions"))
            if (found := read_agent({**mapping(version), "id": agent_id, "versions": None})) is not None
        ),
    )
