"""Makes hostile rows of `messages`: any field may hold any type, any text any character, in any depth and number."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

Row = dict[str, Any]

_TEXTS = (
    "",
    "plain",
    "\x00\x01\x1b[31mred\x1b[0m\r\n",
    "\u202eright to left\u2066",
    '{"level":"error","event":"stream_gap_found"}',
    'tailer_turns_total{user="x"} 1e309\n# EOF',
    "{{7*7}} ${jndi:ldap://x} $where __proto__ <script>",
    "é😀\U0010ffff\ufffe",
    "a.b$c",
    "-" * 5_000,
    "\\" * 999 + '"',
)
_NAMES = [
    "messageId",
    "conversationId",
    "parentMessageId",
    "user",
    "isCreatedByUser",
    "text",
    "content",
    "model",
    "endpoint",
    "sender",
    "tokenCount",
    "unfinished",
    "error",
    "finish_reason",
    "metadata",
    "isTemporary",
    "expiredAt",
    "files",
    "attachments",
    "feedback",
    "createdAt",
    "updatedAt",
    "langfuseDestinationIds",
    "langfuseSampled",
    "tenantId",
    "iconURL",
    "$set",
    "a.b",
    "__proto__",
    "constructor",
]
_PARTS = (
    "text",
    "think",
    "tool_call",
    "error",
    "steer",
    "summary",
    "agent_update",
    "image_file",
    "",
    "no such type",
)


def make_rows(dice: Random, *, largest: int) -> tuple[Row, Row]:
    """A question and a response; `largest` bounds the parts of the largest content, in elements."""
    question_id, response_id = (str(UUID(int=dice.getrandbits(128))) for _ in range(2))
    chat = f"chat-{dice.randrange(50)}"
    question = _spoil(dice, _base(dice, question_id, None, chat, by_user=True), largest)
    response = _spoil(dice, _base(dice, response_id, question_id, chat, by_user=False), largest)
    return question, response


def _base(dice: Random, message_id: str, parent: str | None, chat: str, *, by_user: bool) -> Row:
    now = datetime.now(UTC)
    row: Row = {
        "_id": ObjectId() if dice.random() < 0.95 else _any(dice, 2),
        "messageId": message_id,
        "conversationId": chat,
        "parentMessageId": parent,
        "user": "6" * 24,
        "isCreatedByUser": by_user,
        "text": _text(dice),
        "unfinished": False,
        "createdAt": now,
        "updatedAt": now,
    }
    if isinstance(row["_id"], list | Regex):
        # The server itself takes neither as an `_id`.
        row["_id"] = ObjectId()
    return row if by_user else {**row, "content": _content(dice, 8), "model": _text(dice)}


def _spoil(dice: Random, row: Row, largest: int) -> Row:
    for _ in range(dice.choice((0, 1, 1, 2, 5))):
        row[dice.choice(_NAMES)] = _any(dice, 4)
    if dice.random() < 0.01:
        row["content"] = _content(dice, largest)
    if dice.random() < 0.01:
        row["text"] = _text(dice) * (largest // 100)
    if dice.random() < 0.02:
        row["content"] = _deep(dice.randrange(20, 90))
    if dice.random() < 0.0005:
        # As many elements as a document can hold, of which each is next to nothing.
        row["content"] = dice.choice(([None] * 900_000, [{"type": "text"}] * 400_000, [[]] * 700_000))
    row["isCreatedByUser"] = row["isCreatedByUser"] is True
    return row


def _content(dice: Random, most: int) -> list[Any]:
    return [
        _any(dice, 2)
        if dice.random() < 0.1
        else {
            "type": dice.choice(_PARTS),
            "text": _text_or_any(dice),
            "think": _text_or_any(dice),
            "error": _text_or_any(dice),
            "tool_call": {
                "id": _text_or_any(dice),
                "name": _text_or_any(dice),
                "args": _text_or_any(dice),
                "output": _text_or_any(dice),
                "progress": _any(dice, 1),
            },
        }
        for _ in range(dice.randrange(most))
    ]


def _deep(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [{"type": "text", "text": value}]
    return value


def _text_or_any(dice: Random) -> Any:
    return _text(dice) if dice.random() < 0.8 else _any(dice, 2)


def _text(dice: Random) -> str:
    return "".join(dice.choices(_TEXTS, k=dice.randrange(3)))


def _any(dice: Random, depth: int) -> Any:
    simple: Sequence[Callable[[], Any]] = (
        lambda: None,
        lambda: dice.random() < 0.5,
        lambda: dice.choice((0, -1, 2**31, 3.5, -0.0, 1e308, float("nan"), float("inf"))),
        lambda: Int64(dice.choice((2**63 - 1, -(2**63)))),
        lambda: _text(dice),
        ObjectId,
        lambda: datetime.now(UTC),
        lambda: DatetimeMS(dice.choice((2**60, -(2**60), 0))),
        lambda: Binary(b"\x00\xff", dice.choice((0, 128))),
        lambda: Decimal128("9.99E+6144"),
        lambda: Timestamp(1, 1),
        lambda: Code("while (true) {}"),
        lambda: Regex("(a+)+$"),
        MinKey,
        MaxKey,
    )
    if depth and dice.random() < 0.3:
        size = dice.randrange(4)
        if dice.random() < 0.5:
            return [_any(dice, depth - 1) for _ in range(size)]
        return {dice.choice(_NAMES): _any(dice, depth - 1) for _ in range(size)}
    return dice.choice(simple)()
