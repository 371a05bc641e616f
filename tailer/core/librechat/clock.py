"""LibreChat's clock compared with MongoDB's, as rows show it."""

from collections.abc import Iterable

from tailer.core.identity import DocumentKey, inserted_seconds

_HALF_SECOND = 0.5


def estimate_ahead_seconds(rows: Iterable[tuple[DocumentKey, int | None]]) -> float | None:
    """How many seconds LibreChat's clock is ahead, from `_id` and `createdAt` (milliseconds) of messages; None if no
    row has both.

    The result is uncertain by half a second. LibreChat writes `createdAt` and leaves the `_id` to MongoDB; its first
    part is MongoDB's time in whole seconds. Copies keep an older `createdAt`, so the row that is furthest ahead counts.
    """
    differences = [
        created / 1000 - made
        for key, created in rows
        if created is not None and (made := inserted_seconds(key)) is not None
    ]
    return max(differences) - _HALF_SECOND if differences else None
