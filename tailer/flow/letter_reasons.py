"""Why something became a dead letter."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

ID_OF_ANOTHER_ROW: Final = "message_id_of_another_row"
"""The detail of a turn that has the message id of another row, whose trace was sent."""


class LetterKind(StrEnum):
    """The reason of a dead letter, as the metric counts it and the command explains it."""

    BUILD_FAILED = "build_failed"
    """The tailer failed: it could not read, build or follow the row."""
    REJECTED = "rejected"
    """The destination refused it."""
    MISSING_IN_LANGFUSE = "missing_in_langfuse"
    """Langfuse acknowledged it but does not show it; a comparison requested it."""
    OTHER = "other"
    """A reason that this release does not know."""


@dataclass(frozen=True, slots=True)
class LetterReason:
    """A kind with its detail: the class of an error, or what the destination answered; never content."""

    kind: LetterKind
    detail: str = ""

    def __str__(self) -> str:
        """As it is stored and shown: `rejected: http_400`."""
        if self.kind is LetterKind.OTHER:
            return self.detail
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value

    @classmethod
    def parse(cls, text: str) -> Self:
        """A stored reason, also one of an earlier or later release."""
        kind, _, detail = text.partition(": ")
        known = {item.value for item in LetterKind} - {LetterKind.OTHER.value}
        return cls(LetterKind(kind), detail) if kind in known else cls(LetterKind.OTHER, text)
