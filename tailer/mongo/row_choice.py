"""Which rows are read for turns, and their content as far as it comes with them.

A turn's own row, its question, the history and the alternatives come with the newest rows of its conversation. Where
those do not tell everything for certain (an old turn, a chain that is out of order), all rows of the conversation are
read without their content, and then the content of those that are needed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from tailer.core.identity import DocumentKey
from tailer.core.librechat.messages import Message
from tailer.core.turn.readback import Excerpt, Owner, Row, make_excerpt, owner_of
from tailer.core.turn.selection import (
    HistoryLimits,
    RowSelection,
    is_settled,
    least_text_bytes,
    reaches_into_history,
    select_rows,
)
from tailer.mongo.conversation_pages import PAGE_ROWS, ConversationPages, StoredRow
from tailer.mongo.message_rows import ROW_FIELDS
from tailer.mongo.reading import Reading

_MOST_PAGES: Final = 3
"""Pages of one conversation, before it is read in the other way."""
_SHORT_SHARE: Final = 4
"""Conversations are read together again while at least one in so many is short."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be read for the turns of one conversation, and the rows for which the excerpt does not tell enough."""

    excerpt: Excerpt
    settled: Sequence[RowSelection]
    odd: Sequence[Row]


@dataclass(slots=True)
class Found:
    """What a job has read so far: what is known of conversations, whole messages, messages as a history shows them, and
    what else is to be read."""

    excerpts: dict[Owner, Excerpt] = field(default_factory=dict)
    messages: dict[DocumentKey, Message] = field(default_factory=dict)
    earlier: dict[DocumentKey, Message] = field(default_factory=dict)
    selections: list[RowSelection] = field(default_factory=list)
    stored_bytes: int = 0

    def add(self, owner: Owner, choice: Choice) -> Sequence[Row]:
        """Keep a choice; gives its odd rows."""
        self.excerpts[owner] = choice.excerpt
        self.selections += choice.settled
        rows = {row.key: row.stored_bytes for selection in choice.settled for row in selection.rows}
        self.stored_bytes += sum(rows.values())
        return choice.odd


class RowChoice:
    """Chooses from the conversations of turns. `history_bytes` is how much text of earlier rows a trace shows,
    `stored_bytes` how much of them is read for one turn at most, `most_bytes` after how much others are left unread."""

    def __init__(self, *, history_bytes: int, stored_bytes: int, most_bytes: int) -> None:
        self._history_bytes = history_bytes
        self._stored_bytes = stored_bytes
        self._most_bytes = most_bytes
        self._pages = ConversationPages()

    def choose(self, rows: Sequence[Row], found: Found, reading: Reading) -> Sequence[Row]:
        """Choose what to read for rows; gives those that are left for another job, because this one has read enough."""
        by_owner: dict[Owner, list[Row]] = defaultdict(list)
        for row in rows:
            by_owner[owner_of(row)].append(row)
        odd = self._choose_together(reading, found, by_owner)
        unread: list[Row] = []
        for owner, own in by_owner.items():
            if owner in found.excerpts:
                continue
            if found.stored_bytes > self._most_bytes:
                unread += own
            else:
                odd += found.add(owner, self._choose_from_pages(reading, found, owner, own))
        if odd:
            self._choose_from_all(reading, found, odd)
        return unread

    def _choose_together(
        self, reading: Reading, found: Found, by_owner: Mapping[Owner, Sequence[Row]]
    ) -> list[Row]:
        """Choose what to read from the short conversations, of which many are read at once; gives the odd rows."""
        odd: list[Row] = []
        left = {owner: rows for owner, rows in by_owner.items() if not self._pages.was_long(owner)}
        while len(left) > 1 and found.stored_bytes <= self._most_bytes:
            wanted = list(dict.fromkeys(conversation_id for conversation_id, _ in left))
            rows, is_all = self._pages.read_together(reading, wanted)
            read: dict[Owner, dict[DocumentKey, StoredRow]] = defaultdict(dict)
            for item in rows:
                read[owner_of(item.row)][item.row.key] = item
            # A long conversation is read by pages whatever it is read with, so that its trace is the same.
            short = [owner for owner in left if len(read.get(owner, ())) in range(1, PAGE_ROWS)]
            for owner in short:
                choice = self._choose(reading, found, left.pop(owner), read[owner], complete=True)
                odd += found.add(owner, choice)
            if is_all or len(short) * _SHORT_SHARE < len(wanted):
                break
        return odd

    def _choose_from_pages(self, reading: Reading, found: Found, owner: Owner, rows: Sequence[Row]) -> Choice:
        """Choose what to read from an owner's newest rows, of which a few pages are read at most."""
        conversation_id, user_id = owner
        choice = Choice(make_excerpt([], complete=False), (), rows)
        stored: dict[DocumentKey, StoredRow] = {}
        # A question is nearly always what its answer names.
        own = {name for row in rows for name in (row.message_id, row.parent_message_id) if name is not None}
        since: object = None
        for number in range(_MOST_PAGES if user_id is not None else 0):
            page, complete = self._pages.read_newest(
                reading, conversation_id, user_id or "", whole=own, since=since
            )
            before = len(stored)
            stored.update((item.row.key, item) for item in page)
            choice = self._choose(reading, found, rows, stored, complete=complete)
            if not (number or complete or choice.odd) and all(item.is_cut for item in choice.settled):
                self._pages.note_enough(owner, _count_needed(choice.settled, page))
            is_there = all(row.message_id in choice.excerpt.rows for row in choice.odd)
            if complete or not choice.odd or not (is_there and choice.excerpt.slack_milliseconds is not None):
                break
            if len(stored) == before:
                break
            since = page[-1].document.get("createdAt")
            if not isinstance(since, datetime):
                # Times of other types are sorted apart, and a page from here on would not hold them.
                break
        return choice

    def _choose(
        self,
        reading: Reading,
        found: Found,
        rows: Sequence[Row],
        stored: Mapping[DocumentKey, StoredRow],
        *,
        complete: bool,
    ) -> Choice:
        """Choose from what was read of a conversation; `odd` are the rows for which that does not tell enough."""
        excerpt = make_excerpt([item.row for item in stored.values()], complete=complete)

        def message_of(key: DocumentKey, read: dict[DocumentKey, Message]) -> Message | None:
            message = found.messages.get(key) or read.get(key)
            if message is not None:
                return message
            item = stored.get(key)
            if item is not None and (item.is_whole or (read is found.earlier and item.has_content)):
                message = reading.read_message(item.document, key, earlier=read is found.earlier)
                if message is not None:
                    read[key] = message
            return message

        def text_of(row: Row) -> int | None:
            message = message_of(row.key, found.earlier)
            return 0 if message is None else least_text_bytes(message)

        bounded = HistoryLimits(self._stored_bytes, self._history_bytes, text_of)
        unbounded = HistoryLimits(self._stored_bytes)
        settled, odd = [], []
        for row in rows:
            own = message_of(row.key, found.messages)
            limits = unbounded if own is None or reaches_into_history(own) else bounded
            selection = select_rows(row, excerpt, limits)
            if not is_settled(selection, excerpt):
                odd.append(row)
                continue
            settled.append(selection)
            for needed in selection.own_rows:
                message_of(needed.key, found.messages)
            for needed in selection.ancestors:
                message_of(needed.key, found.earlier)
        return Choice(excerpt, settled, odd)

    def _choose_from_all(self, reading: Reading, found: Found, rows: Sequence[Row]) -> None:
        """Choose what to read from all rows of the conversations, without their content.

        Two users may own a conversation of the same id: ids are unique only together with the user.
        """
        by_owner: dict[Owner, dict[str, Row]] = defaultdict(dict)
        query = {"conversationId": {"$in": list({row.conversation_id for row in rows})}}
        for document in reading.find("messages", query, ROW_FIELDS):
            row = reading.read_row(document, document.get("bytes"))
            if row is not None:
                by_owner[owner_of(row)][row.message_id] = row
        limits = HistoryLimits(self._stored_bytes)
        for owner in {owner_of(row) for row in rows}:
            found.excerpts[owner] = make_excerpt(list(by_owner[owner].values()), complete=True)
        found.selections += [select_rows(row, found.excerpts[owner_of(row)], limits) for row in rows]


def _count_needed(selections: Sequence[RowSelection], page: Sequence[StoredRow]) -> int:
    """How many of a page's rows, from its first on, hold all that selections have."""
    needed = {row.key for selection in selections for row in selection.rows}
    return max((place for place, item in enumerate(page, 1) if item.row.key in needed), default=0)
