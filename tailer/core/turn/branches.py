"""The place of a turn among its alternatives: regenerated answers, and questions that were edited and sent again.

Nothing in LibreChat marks such a row; the shared parent does. The first of a family has no mark: when it was sent, it
was alone. "Continue" is stored like a regenerated answer and cannot be distinguished, nor can a second model that
answered beside the first (until 0.8.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tailer.core.turn.turns import Sibling, TurnRecord


class BranchReason(StrEnum):
    """The reason for an alternative."""

    REGENERATED = "regenerated"
    EDITED = "edited"
    ASKED_AGAIN = "asked_again"


@dataclass(frozen=True, slots=True)
class Branch:
    """The place in the family (from 1; the first has no branch), and the message id of the first."""

    index: int
    sibling_of: str
    reason: BranchReason


def find_branch(record: TurnRecord) -> Branch | None:
    """The branch of a turn, None for the first answer to the first version of a question."""
    if record.response is not None:
        found = _place(record.siblings, record.response.message_id, BranchReason.REGENERATED)
        if found is not None:
            return found
    if record.question is None:
        return None
    own = record.question.message_id
    found = _place(record.question_siblings, own, BranchReason.EDITED)
    if found is None or any(
        sibling.answered for sibling in record.question_siblings if sibling.message_id != own
    ):
        return found
    # A refused question stays where it is, and the next one is put beside it, although no person edited anything.
    return replace(found, reason=BranchReason.ASKED_AGAIN)


def _place(family: Sequence[Sibling], message_id: str, reason: BranchReason) -> Branch | None:
    if len(family) <= 1:
        return None
    ordered = sorted(family, key=lambda sibling: (sibling.created_milliseconds or 0, sibling.message_id))
    ids = [sibling.message_id for sibling in ordered]
    index = ids.index(message_id) if message_id in ids else 0
    return Branch(index, ids[0], reason) if index else None
