"""The documents that LibreChat (v0.8.8-rc1) stores of a turn, in the shapes of the recordings beside these
benchmarks."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from bson import ObjectId

from tests.benchmarks.turns import AGENTS, MODEL, Chat, InventedTurn, agent_name

Row = dict[str, Any]


def agent_rows(now: datetime) -> list[Row]:
    """The saved agents that some conversations talk to."""
    return [
        {
            "id": agent_name(index),
            "name": f"Research assistant {index}",
            "instructions": "You are a careful research assistant. Name your sources and say what you do not know.",
            "provider": "openAI",
            "model": MODEL,
            "model_parameters": {"temperature": 0.3},
            "tools": ["search_mcp_library"],
            "author": ObjectId(),
            "createdAt": now,
            "updatedAt": now,
        }
        for index in range(AGENTS)
    ]


def question_row(turn: InventedTurn, now: datetime) -> Row:
    """The user's message."""
    return {
        **_message_row(turn, turn.question_id, turn.parent_id, now),
        "isCreatedByUser": True,
        "model": None,
        "sender": "User",
        "text": turn.question,
        "tokenCount": len(turn.question) // 4,
    }


def response_row(turn: InventedTurn, now: datetime) -> Row:
    """The answer, complete in one write."""
    agent_id = turn.chat.agent_id
    parts: list[Row] = [{"type": "text", "text": turn.answer}]
    if turn.tool is not None:
        parts.insert(0, {"type": "tool_call", "tool_call": turn.tool})
    return {
        **_message_row(turn, turn.response_id, turn.question_id, now),
        "isCreatedByUser": False,
        "attachments": [],
        "content": parts,
        "langfuseSampled": True,
        "metadata": {"contextUsage": _context_usage(turn), "usage": _usage(turn)},
        "model": agent_id or MODEL,
        "sender": "Research assistant" if agent_id else "GPT-4o",
        "text": "",
        "tokenCount": turn.output_tokens,
    }


def conversation_row(chat: Chat, now: datetime) -> Row:
    """The conversation, as it is stored with its first question."""
    return {
        "conversationId": chat.conversation_id,
        "user": str(chat.user),
        "__v": 0,
        "agent_id": chat.agent_id or f"openAI__{MODEL}",
        "chatProjectId": None,
        "createdAt": now,
        "endpoint": "agents" if chat.agent_id else "openAI",
        "expiredAt": None,
        "files": [],
        "isArchived": False,
        "isTemporary": False,
        "maxContextTokens": 121125,
        "messages": list(chat.message_keys),
        "model": MODEL,
        "resendFiles": True,
        "tags": [],
        "title": "New Chat",
        "updatedAt": now,
    }


def transaction_rows(turn: InventedTurn, now: datetime) -> Iterator[Row]:
    """What LibreChat bills: a prompt and a completion for each model call, and for the title of a first turn."""
    if turn.is_first:
        yield from _transaction_pair(turn, now, "title", "gpt-4o-mini", 150, 6)
    if turn.tool is None:
        yield from _transaction_pair(turn, now, "message", MODEL, turn.input_tokens, turn.output_tokens)
        return
    first_input, first_output = turn.input_tokens // 2, 20
    yield from _transaction_pair(turn, now, "message", MODEL, first_input, first_output)
    yield from _transaction_pair(
        turn, now, "message", MODEL, turn.input_tokens - first_input, turn.output_tokens - first_output
    )


def _message_row(turn: InventedTurn, message_id: str, parent_id: str, now: datetime) -> Row:
    return {
        "_id": ObjectId(),
        "messageId": message_id,
        "user": str(turn.chat.user),
        "__v": 0,
        "_meiliIndex": False,
        "conversationId": turn.chat.conversation_id,
        "createdAt": now,
        "endpoint": "agents" if turn.chat.agent_id else "openAI",
        "error": False,
        "expiredAt": None,
        "isTemporary": False,
        "parentMessageId": parent_id,
        "unfinished": False,
        "updatedAt": now,
    }


def _context_usage(turn: InventedTurn) -> Row:
    return {
        "runId": turn.response_id,
        "agentId": turn.chat.agent_id or f"openAI__{MODEL}",
        "breakdown": {
            "maxContextTokens": 121125,
            "instructionTokens": 281,
            "systemMessageTokens": 9,
            "toolSchemaTokens": 272,
            "summaryTokens": 0,
            "toolCount": 3,
            "messageCount": 3,
            "availableForMessages": 114788,
            "toolTokenCounts": {"search_mcp_library": 97},
        },
        "contextBudget": 115069,
        "remainingContextTokens": 114944,
        "calibrationRatio": 1,
        "completedOutputTokens": turn.output_tokens,
    }


def _usage(turn: InventedTurn) -> Row:
    cost = (turn.input_tokens * 2.5 + turn.output_tokens * 10) / 1_000_000
    return {
        "input": turn.input_tokens,
        "output": turn.output_tokens,
        "cacheWrite": 0,
        "cacheRead": 0,
        "cost": cost,
    }


def _transaction_pair(
    turn: InventedTurn, now: datetime, context: str, model: str, input_tokens: int, output_tokens: int
) -> Iterator[Row]:
    prices = (("prompt", input_tokens, 2.5), ("completion", output_tokens, 10.0))
    for token_type, tokens, rate in prices:
        yield {
            "_id": ObjectId(),
            "user": turn.chat.user,
            "conversationId": turn.chat.conversation_id,
            "tokenType": token_type,
            "model": model,
            "context": context,
            "rate": rate,
            "rawAmount": -tokens,
            "tokenValue": -tokens * rate,
            "messageId": turn.response_id,
            "__v": 0,
            "createdAt": now,
            "updatedAt": now,
        }
