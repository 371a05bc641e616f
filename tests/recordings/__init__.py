"""Recorded LibreChat traffic and the truth about it, typed.

`NAME.jsonl` holds the change events that a real LibreChat (v0.8.8-rc1) caused; `NAME.truth.json` what the
driver of the recording asked for and what the model provider, which was under its control, really counted.
The provider's numbers are the only ones in these tests that no part of LibreChat had a hand in.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from bson import ObjectId

from tailer.demo.stage.identities import rename_object_id, rename_text, shift_object_id
from tailer.demo.stage.recording import Recording, parse_recording

_DIRECTORY: Final = Path(__file__).parent

NAMES: Final = (
    "01-single-turn",
    "02-multi-turn",
    "03-regenerate",
    "04-edit-resubmit",
    "05-edit-in-place",
    "06-abort",
    "07-errors",
    "09-agent-tools",
    "10-files",
    "11-feedback",
    "12-temporary",
    "13-deletes",
    "14-fork-duplicate-import",
    "16-reasoning",
    "18-parallel-added-convo",
    "20-kill-midstream",
    "23-hitl-tool-approval",
)

CHAT_ROWS: Final = ("42-temp-share-fork",)
"""Recordings that are kept for their rows alone: messages, conversations and transactions, without a truth."""

REPLAYED: Final = (
    "30-mcp-parallel-tools",
    "37-azure",
    "46-violations",
    "48-assistants",
    "53-remote-api",
    "55-chains",
    "57-stops",
    "60-v0.7.9-basics",
    "61-v0.7.9-errors-stop",
    "62-v0.7.9-agent-tools",
    "70-v0.7.7-basics",
)
"""Recordings of further situations and releases that are read in memory and never played: messages, conversations,
transactions and agents, with a truth."""

ProviderStatus: TypeAlias = int | Literal["cut", "client_closed", "failed"]
"""The HTTP status of a provider's answer; "cut": the stream broke off; "client_closed": LibreChat hung up; "failed": an
assistant's run that ended so."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them, summed over the requests of a turn.

    `calls_with_usage` of the `calls` requests were counted at all (errors and broken streams are not).
    `input_tokens` includes cache reads for OpenAI-style providers and excludes them for Anthropic;
    `reasoning_tokens` are part of `output_tokens`.
    """

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    calls_with_usage: int
    calls: int


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One request that LibreChat made to the model provider.

    `usage` is the provider's own usage object, None when it counted nothing. `usage_sent` tells whether a
    streamed answer told it to LibreChat; None where the question does not arise (answers that are not
    streamed carry it).
    """

    id: str
    kind: Literal["chat", "title", "assistant-run"]
    model: str
    url: str
    streamed: bool
    status: ProviderStatus
    started_at: datetime
    ended_at: datetime
    first_token_at: datetime | None
    usage: dict[str, Any] | None
    usage_sent: bool | None
    finish_reason: str | None
    tool_name: str | None

    @property
    def told_usage(self) -> bool:
        """Whether LibreChat could know the provider's numbers."""
        return self.usage is not None and self.usage_sent is not False


@dataclass(frozen=True, slots=True)
class TrueTurn:
    """One question as it was asked, the ids it got, and the provider requests it caused.

    The message ids are None when the turn never got so far (refused for balance, LibreChat killed); `model`
    is None for saved agents and `agent_id` for everything else. `title_usage` is None when no title was
    generated.
    """

    user_id: str
    username: str
    text: str
    endpoint: str
    model: str | None
    agent_id: str | None
    is_regenerate: bool
    is_temporary: bool
    conversation_id: str
    user_message_id: str | None
    user_parent_message_id: str | None
    response_message_id: str | None
    response_parent_message_id: str | None
    posted_at: datetime
    stream_ended_at: datetime
    refusal: str | None
    native_trace_id: str | None
    usage: Usage
    title_usage: Usage | None
    requests: tuple[ProviderRequest, ...]
    title_requests: tuple[ProviderRequest, ...]

    @property
    def provider_statuses(self) -> tuple[ProviderStatus, ...]:
        """The outcomes of the chat requests, in their order."""
        return tuple(request.status for request in self.requests)

    @property
    def usage_is_known(self) -> bool:
        """Whether LibreChat was told the usage of every chat request that was counted."""
        return any(request.told_usage for request in self.requests) and all(
            request.told_usage for request in self.requests if request.usage is not None
        )

    def shift(self, *, by: timedelta) -> "TrueTurn":
        """Follow `Recording.shift`: the user id and the turn's two times (not those of its requests)."""
        return replace(
            self,
            user_id=str(shift_object_id(ObjectId(self.user_id), by=by)),
            posted_at=self.posted_at + by,
            stream_ended_at=self.stream_ended_at + by,
        )

    def rename(self, salt: str) -> "TrueTurn":
        """Follow `Recording.rename`. The native trace id, a hash of the old message id, becomes None."""

        def fresh(identifier: str | None) -> str | None:
            return None if identifier is None else rename_text(identifier, salt=salt)

        return replace(
            self,
            user_id=str(rename_object_id(ObjectId(self.user_id), salt=salt)),
            agent_id=fresh(self.agent_id),
            conversation_id=rename_text(self.conversation_id, salt=salt),
            user_message_id=fresh(self.user_message_id),
            user_parent_message_id=fresh(self.user_parent_message_id),
            response_message_id=fresh(self.response_message_id),
            response_parent_message_id=fresh(self.response_parent_message_id),
            native_trace_id=None,
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """All turns of a recording, and what a person should know about it."""

    name: str
    notes: tuple[str, ...]
    turns: tuple[TrueTurn, ...]

    def shift(self, *, by: timedelta) -> "Truth":
        """Follow `Recording.shift`; `by` is the difference of the two `started_at`."""
        return replace(self, turns=tuple(turn.shift(by=by) for turn in self.turns))

    def rename(self, salt: str) -> "Truth":
        """Follow `Recording.rename`."""
        return replace(self, turns=tuple(turn.rename(salt) for turn in self.turns))


@cache
def load(name: str) -> Recording:
    """The recording of that name, as recorded. Treat its documents as read-only: they are shared."""
    return parse_recording(name, recording_path(name).read_text(encoding="utf-8"))


@cache
def truth(name: str) -> Truth:
    """What really happened while the recording of that name was made."""
    source = json.loads((_DIRECTORY / f"{name}.truth.json").read_text(encoding="utf-8"))
    requests = {request["id"]: _request(request) for request in source["provider_requests"]}
    return Truth(
        name=name,
        notes=tuple(source["ideal"]["notes"]),
        turns=tuple(_turn(turn, requests) for turn in source["ideal"]["turns"]),
    )


def recording_path(name: str) -> Path:
    """The file with the recording's events."""
    return _DIRECTORY / f"{name}.jsonl"


def _turn(source: dict[str, Any], requests: dict[str, ProviderRequest]) -> TrueTurn:
    return TrueTurn(
        user_id=source["userId"],
        username=source["user"],
        text=source["text"],
        endpoint=source["endpoint"],
        model=source["model"],
        agent_id=source["agent_id"],
        is_regenerate=source["isRegenerate"],
        is_temporary=source["isTemporary"],
        conversation_id=source["conversationId"],
        user_message_id=source["userMessageId"],
        user_parent_message_id=source["userParentMessageId"],
        response_message_id=source["responseMessageId"],
        response_parent_message_id=source["responseParentMessageId"],
        posted_at=datetime.fromisoformat(source["t_post"]),
        stream_ended_at=datetime.fromisoformat(source["t_stream_end"]),
        refusal=source["sse_error"]["error"] if source["sse_error"] else None,
        native_trace_id=source["expected_traceId_native"],
        usage=_usage(source["true_usage_chat"]),
        title_usage=_usage(source["true_usage_title"]) if source["true_usage_title"] else None,
        requests=tuple(requests[identifier] for identifier in source["provider_requests"]),
        title_requests=tuple(requests[identifier] for identifier in source["title_requests"]),
    )


def _usage(source: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=source["input"],
        output_tokens=source["output"],
        cache_read_tokens=source["cache_read"],
        cache_write_tokens=source["cache_write"],
        reasoning_tokens=source["reasoning"],
        calls_with_usage=source["calls_with_usage"],
        calls=source["calls"],
    )


def _request(source: dict[str, Any]) -> ProviderRequest:
    first_token = source.get("firstToken")
    return ProviderRequest(
        id=source["id"],
        kind=source["kind"],
        model=source["model"],
        url=source["url"],
        streamed=source["stream"],
        status=cast("ProviderStatus", source["status"]),
        started_at=datetime.fromisoformat(source["start"]),
        ended_at=datetime.fromisoformat(source["end"]),
        first_token_at=datetime.fromisoformat(first_token) if first_token else None,
        usage=source.get("usage"),
        usage_sent=source.get("usageSent"),
        finish_reason=source.get("finish"),
        tool_name=source["toolCall"]["name"] if "toolCall" in source else None,
    )
