"""Transactions that name no message (before 0.8.3, and always for assistants), given to turns by their times.

A turn's transactions are written between its question and some seconds after its response. Where two turns of one
conversation could be meant, the nearer response is taken.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tailer.core.librechat.documents import Transaction
from tailer.core.turn.readback import Row

_BEFORE_QUESTION_MILLISECONDS = 1_000
_AFTER_RESPONSE_MILLISECONDS = 10_000


@dataclass(frozen=True, slots=True)
class _Window:
    message_id: str
    opens: int
    response: int

    def distance(self, at: int) -> int | None:
        """How far a time is from the response, None where it lies outside the turn."""
        if not self.opens <= at <= self.response + _AFTER_RESPONSE_MILLISECONDS:
            return None
        return abs(at - self.response)


def assign_by_time(
    transactions: Iterable[Transaction], conversation: Mapping[str, Row]
) -> Mapping[str, Sequence[Transaction]]:
    """Transactions by the message id of the response they belong to; what fits no turn is left out.

    `conversation` holds the rows of one conversation by message id.
    """
    windows = list(_windows(conversation))
    assigned: dict[str, list[Transaction]] = defaultdict(list)
    for entry in transactions:
        at = entry.created_milliseconds
        if at is None:
            continue
        distances = ((window.distance(at), window.message_id) for window in windows)
        nearest = min(
            ((distance, message_id) for distance, message_id in distances if distance is not None),
            default=None,
        )
        if nearest is not None:
            assigned[nearest[1]].append(entry)
    return assigned


def _windows(conversation: Mapping[str, Row]) -> Iterable[_Window]:
    for row in conversation.values():
        if row.created_by_user or row.created_milliseconds is None:
            continue
        question = conversation.get(row.parent_message_id or "")
        asked = question.created_milliseconds if question is not None else None
        opens = (asked if asked is not None else row.created_milliseconds) - _BEFORE_QUESTION_MILLISECONDS
        yield _Window(row.message_id, opens, row.created_milliseconds)
