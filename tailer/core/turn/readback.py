"""Rows without their content, and what is known of a conversation from them: every row of it, or only the newest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tailer.core.identity import DocumentKey
from tailer.core.light_dataclass import light_dataclass

_SLACK_MILLISECONDS = 5_000
"""A row may seem older than its parent by so much: clocks of LibreChat's processes differ, and a program may ask before
the answer before is stored."""


@light_dataclass(frozen=True, slots=True)
class Row:
    """A row of `messages` without its content: enough to decide whether it must be read."""

    key: DocumentKey
    message_id: str
    conversation_id: str
    parent_message_id: str | None
    user_id: str | None
    created_by_user: bool
    traced_natively: bool
    created_milliseconds: int | None
    stored_bytes: int
    refused: bool = False
    model: str | None = None


@light_dataclass(frozen=True, slots=True)
class DeletedRow:
    """What the stream reported about a response that was deleted before it was read."""

    message_id: str
    conversation_id: str


Owner: TypeAlias = tuple[str, str | None]
"""Conversation id and user: two users may own a conversation of the same id."""


def owner_of(row: Row) -> Owner:
    """The conversation of a row."""
    return row.conversation_id, row.user_id


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The rows of one owner's conversation that were read: all of them where `complete`, else the newest by
    `createdAt`.

    `is_orderly`: every row has a time and none is older than its parent. Then no row that was not read answers one that
    was, unless it lies within the clocks' slack. `is_plain`: no two rows have the same message id.
    """

    rows: Mapping[str, Row]
    children: Mapping[str | None, Sequence[Row]]
    complete: bool
    is_plain: bool
    is_orderly: bool
    oldest_milliseconds: int = 0
    newest_milliseconds: int = 0

    def reaches_behind(self, row: Row | None, milliseconds: int = 0) -> bool:
        """Whether the rows that were not read are all older than a row, and by so much."""
        if row is None or row.created_milliseconds is None:
            return False
        # A child of a child may seem older by the slack of both.
        before = row.created_milliseconds - milliseconds - 2 * _SLACK_MILLISECONDS
        return before > self.oldest_milliseconds


def make_excerpt(rows: Sequence[Row], *, complete: bool) -> Excerpt:
    """The excerpt of rows of one owner's conversation, in any order."""
    by_id = {row.message_id: row for row in rows}
    children: dict[str | None, list[Row]] = {}
    for row in by_id.values():
        children.setdefault(row.parent_message_id, []).append(row)
    times = [row.created_milliseconds for row in rows if row.created_milliseconds is not None]
    return Excerpt(
        rows=by_id,
        children=children,
        complete=complete,
        is_plain=len(by_id) == len(rows),
        is_orderly=len(times) == len(rows) and all(_follows_its_parent(row, by_id) for row in rows),
        oldest_milliseconds=min(times, default=0),
        newest_milliseconds=max(times, default=0),
    )


def _follows_its_parent(row: Row, rows: Mapping[str, Row]) -> bool:
    parent = rows.get(row.parent_message_id or "")
    return parent is None or (row.created_milliseconds or 0) + _SLACK_MILLISECONDS >= (
        parent.created_milliseconds or 0
    )


Excerpts: TypeAlias = Mapping[Owner, Excerpt]
"""What was read of conversations."""
