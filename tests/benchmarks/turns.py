"""Invented turns of LibreChat, as it is used: conversations of a few turns, some with a saved agent, some with tools.

Owns what was said, by whom and in which order; what LibreChat stores of it is in `rows`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final
from uuid import UUID

from bson import ObjectId

from tests.benchmarks.prose import Prose, read_prose

NO_PARENT: Final = "00000000-0000-0000-0000-000000000000"
QUESTION_CHARACTERS: Final = 220
ANSWER_CHARACTERS: Final = 1000
TOOL_OUTPUT_CHARACTERS: Final = 500
TURNS_A_CONVERSATION: Final = 4
TOOL_SHARE: Final = 0.25
AGENT_SHARE: Final = 0.25
USERS: Final = 200
AGENTS: Final = 20
_CONVERSATIONS_AT_ONCE: Final = 1000
MODEL: Final = "gpt-4o"


@dataclass(slots=True)
class Chat:
    """A conversation as it grows: `message_keys` is the array that LibreChat keeps in the conversation's row."""

    conversation_id: str
    user: ObjectId
    agent_id: str | None
    last_message_id: str = NO_PARENT
    message_keys: list[ObjectId] = field(default_factory=list)
    history_bytes: int = 0


@dataclass(slots=True)
class InventedTurn:
    """One question and its answer; the rows' `_id`s are made when they are written, as LibreChat does."""

    chat: Chat
    is_first: bool
    question_id: str
    response_id: str
    parent_id: str
    question: str
    answer: str
    tool: dict[str, object] | None
    input_tokens: int
    output_tokens: int
    history_bytes: int
    question_key: ObjectId | None = None
    response_key: ObjectId | None = None


def invent_turns(count: int, *, seed: int) -> Iterator[InventedTurn]:
    """`count` turns in the order in which they happen: the turns of many conversations by turns."""
    random = Random(seed)
    prose = read_prose(seed)
    left = count
    while left > 0:
        size = min(_CONVERSATIONS_AT_ONCE, -(-left // TURNS_A_CONVERSATION))
        chats = [_invent_chat(random) for _ in range(size)]
        for place in range(TURNS_A_CONVERSATION):
            for chat in chats[:left]:
                yield _invent_turn(chat, random, prose, is_first=place == 0)
            left = max(0, left - size)


def invent_chats(count: int, random: Random) -> list[Chat]:
    """Conversations in which nothing was said yet."""
    return [_invent_chat(random) for _ in range(count)]


def go_on(chats: Sequence[Chat], count: int, random: Random, prose: Prose) -> Iterator[InventedTurn]:
    """`count` more turns of these conversations, each in its turn."""
    for number in range(count):
        chat = chats[number % len(chats)]
        yield _invent_turn(chat, random, prose, is_first=chat.last_message_id == NO_PARENT)


def agent_name(number: int) -> str:
    """The id of a saved agent."""
    return f"agent_{number:021d}"


def _invent_chat(random: Random) -> Chat:
    agent_id = agent_name(random.randrange(AGENTS)) if random.random() < AGENT_SHARE else None
    user = ObjectId(f"{random.randrange(USERS):024x}")
    return Chat(_uuid(random), user, agent_id)


def _invent_turn(chat: Chat, random: Random, prose: Prose, *, is_first: bool) -> InventedTurn:
    question = prose.write(QUESTION_CHARACTERS)
    answer = prose.write(ANSWER_CHARACTERS)
    tool = _invent_tool(random, prose) if random.random() < TOOL_SHARE else None
    turn = InventedTurn(
        chat=chat,
        is_first=is_first,
        question_id=_uuid(random),
        response_id=_uuid(random),
        parent_id=chat.last_message_id,
        question=question,
        answer=answer,
        tool=tool,
        input_tokens=(chat.history_bytes + len(question)) // 4 + 20,
        output_tokens=len(answer) // 4 + 40,
        history_bytes=chat.history_bytes,
    )
    chat.last_message_id = turn.response_id
    chat.history_bytes += len(question) + len(answer) + (len(json.dumps(tool)) if tool else 0)
    return turn


def _invent_tool(random: Random, prose: Prose) -> dict[str, object]:
    return {
        "id": f"call_{random.getrandbits(64):016x}",
        "name": "search_mcp_library",
        "args": json.dumps({"query": prose.write(40), "limit": random.randrange(1, 20)}),
        "type": "tool_call",
        "progress": 1,
        "output": prose.write(TOOL_OUTPUT_CHARACTERS),
        "runStepStatus": "completed",
        "runStepDurationMs": random.randrange(10, 900),
    }


def _uuid(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))
