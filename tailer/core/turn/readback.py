"""Rows without their content, and what is known of a conversation from them: every row of it, or only the newest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from tailer.core.identity import DocumentKey, is_api_response
from tailer.core.light_dataclass import light_dataclass

_CLOCKS_MILLISECONDS = 2_000
"""How far the clocks of LibreChat's processes may stand apart: a row may seem older than its parent by so much."""
_NOT_READ = "not read"
"""Stands for the parent of a row whose parent is its predecessor, which was not read."""


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
    """What the stream reported about a response that was deleted before it was read.

    `may_be_temporary`: nothing says that its chat was to last; MongoDB itself deletes temporary ones (`expiredAt`).
    """

    message_id: str
    conversation_id: str
    may_be_temporary: bool = True


Owner: TypeAlias = tuple[str, str | None]
"""Conversation id and user: two users may own a conversation of the same id."""


def owner_of(row: Row) -> Owner:
    """The conversation of a row."""
    return row.conversation_id, row.user_id


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The rows of one owner's conversation that were read: all of them where `complete`, else the newest by
    `createdAt`.

    `slack_milliseconds` is how much older than its parent a row of this conversation may seem, judged by the rows that
    were read; None where one has no time. `is_plain`: no two rows have the same message id.
    """

    rows: Mapping[str, Row]
    children: Mapping[str | None, Sequence[Row]]
    complete: bool
    is_plain: bool
    slack_milliseconds: int | None
    oldest_milliseconds: int = 0
    newest_milliseconds: int = 0

    def reaches_behind(self, row: Row | None, milliseconds: int = 0) -> bool:
        """Whether nothing that was not read answers a row, or answers what answers it; and whether all of it is older
        by so much."""
        if row is None or row.created_milliseconds is None or self.slack_milliseconds is None:
            return False
        before = row.created_milliseconds - milliseconds - 2 * self.slack_milliseconds
        return before > self.oldest_milliseconds


def make_excerpt(rows: Sequence[Row], *, complete: bool) -> Excerpt:
    """The excerpt of rows of one owner's conversation, in any order."""
    answered_too: Sequence[tuple[str, str]] = ()
    loose = [row for row in rows if row.parent_message_id is None]
    if any(map(_is_of_api, loose)):
        rows, answered_too = _join_api_calls(rows, loose, complete=complete)
    by_id = {row.message_id: row for row in rows}
    children: dict[str | None, list[Row]] = {}
    for row in by_id.values():
        children.setdefault(row.parent_message_id, []).append(row)
    for question_id, response_id in answered_too:
        children.setdefault(question_id, []).append(by_id[response_id])
    times = [row.created_milliseconds for row in rows if row.created_milliseconds is not None]
    disorder = 0 if complete else _greatest_disorder(rows, by_id)
    return Excerpt(
        rows=by_id,
        children=children,
        complete=complete,
        is_plain=len(by_id) == len(rows),
        slack_milliseconds=_CLOCKS_MILLISECONDS + disorder if len(times) == len(rows) else None,
        oldest_milliseconds=min(times, default=0),
        newest_milliseconds=max(times, default=0),
    )


def _join_api_calls(
    rows: Sequence[Row], loose: Sequence[Row], *, complete: bool
) -> tuple[Sequence[Row], Sequence[tuple[str, str]]]:
    """The rows, with parents for the loose ones, which have none; and for each question that is not the last one of its
    call the response that answers it too.

    LibreChat stores the questions of a call and then its response, and a call that goes
    on in a conversation has all that came before: so the parent of each of these rows is the one before it.
    """
    ordered = sorted(loose, key=lambda row: (row.created_milliseconds or 0, row.key))
    parents: dict[DocumentKey, str | None] = {ordered[0].key: None if complete else _NOT_READ}
    parents |= {row.key: before.message_id for before, row in pairwise(ordered)}
    answered_too: list[tuple[str, str]] = []
    asked: list[str] = []
    for row in ordered:
        if row.created_by_user:
            asked.append(row.message_id)
            continue
        if _is_of_api(row):
            answered_too += [(question_id, row.message_id) for question_id in asked[:-1]]
        asked = []
    joined = [replace(row, parent_message_id=parents.get(row.key, row.parent_message_id)) for row in rows]
    return joined, answered_too


def _is_of_api(row: Row) -> bool:
    return not row.created_by_user and is_api_response(row.message_id, row.parent_message_id)


def _greatest_disorder(rows: Sequence[Row], by_id: Mapping[str, Row]) -> int:
    """By how much a row seems older than its parent at most, in milliseconds; 0 where none does."""
    greatest = 0
    for row in rows:
        parent = by_id.get(row.parent_message_id or "")
        if parent is not None:
            before = (parent.created_milliseconds or 0) - (row.created_milliseconds or 0)
            greatest = max(greatest, before)
    return greatest


Excerpts: TypeAlias = Mapping[Owner, Excerpt]
"""What was read of conversations."""
