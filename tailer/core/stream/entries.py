"""An open turn: which row and kind of work, since when, and what the stream said about it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from tailer.core.identity import DocumentKey, inserted_seconds
from tailer.core.stream.hints import ChangeHint, Interest, Operation

_WRITTEN = frozenset({"text", "content"})
_BY_HAND = frozenset({"tokenCount", "feedback"})
"""What a person's edit and a rating write. LibreChat itself counts tokens only in a row that it finishes."""
_LASTING = frozenset({"isTemporary", "expiredAt"})
LATE_FIELDS = frozenset({"text", "content", "feedback"})
"""The fields that a replacement may have changed of a sent turn; it does not say which."""


class EntryKey(NamedTuple):
    """What is open: the kind of work and the row's `_id`."""

    interest: Interest
    document_key: DocumentKey


@dataclass(slots=True)
class Entry:
    """One open turn. Times are seconds of the caller's monotonic clock. `inserted`: the stream told of its insertion.
    `stopped`: the answer was first stored as one that was stopped; `finished`: it was stored as a whole; `edited`: it
    was changed by hand since. `may_be_temporary`: nothing said that its chat is to last. `conversation_id` is what the
    stream said; `belongs_to`: whose it is among several shards, once a row or a record has told."""

    key: EntryKey
    opened_seconds: float
    due_seconds: float
    work: Interest
    message_id: str | None = None
    conversation_id: str | None = None
    belongs_to: str | None = None
    finished_milliseconds: int | None = None
    written_milliseconds: int | None = None
    cluster_seconds: int = 0
    taken: bool = False
    changed_since_taken: bool = False
    deadline_passed: bool = False
    changed: frozenset[str] = frozenset()
    inserted: bool = False
    finished: bool = False
    stopped: bool = False
    edited: bool = False
    may_be_temporary: bool = True

    def ended_milliseconds(self, *, unfinished: bool) -> int | None:
        """When a later event ended the answer, None where none did. `unfinished` is what its row says now.

        Stop after the reader went away writes the answer once more into a row that stays unfinished. The saves of an
        answer in the making look the same: then the last one is the latest time at which it is known to be written.
        """
        resaved = not _WRITTEN.isdisjoint(self.changed) and _BY_HAND.isdisjoint(self.changed)
        if unfinished and resaved and not self.stopped:
            return _latest(self.finished_milliseconds, self.written_milliseconds)
        return self.finished_milliseconds

    def may_be_forgotten(self, records: timedelta) -> bool:
        """Whether only a change of its row was told, longer after the row was made than `records` are kept: its turn
        may have been sent, and nobody knows any more. An insertion is that of a new turn, whatever the clock that made
        its `_id` showed."""
        made = inserted_seconds(self.key.document_key)
        return (
            not self.inserted and made is not None and self.cluster_seconds - made > records.total_seconds()
        )

    def note(self, hint: ChangeHint) -> None:
        """Take in what another hint of the same row says."""
        self.cluster_seconds = max(self.cluster_seconds, hint.cluster_seconds)
        self.message_id = hint.message_id or self.message_id
        self.written_milliseconds = _latest(self.written_milliseconds, hint.written_milliseconds)
        changed = LATE_FIELDS if hint.operation is Operation.REPLACE else hint.changed
        if not changed <= self.changed:
            self.changed |= changed
        if hint.operation is Operation.INSERT:
            self.inserted = True
        elif "unfinished" in hint.changed:
            self.finished_milliseconds = _latest(self.finished_milliseconds, hint.written_milliseconds)
        if self.key.interest is Interest.RESPONSE:
            self._follow_answer(hint)

    def _follow_answer(self, hint: ChangeHint) -> None:
        if hint.operation is not Operation.UPDATE:
            self.may_be_temporary = hint.temporary
            self.finished = not hint.unfinished
            self.stopped = hint.stopped
            return
        if not _LASTING.isdisjoint(hint.changed):
            self.may_be_temporary = True
        if "unfinished" in hint.changed:
            self.finished = True
            return
        # A tool's late result comes with its files or alone; an edit by hand counts the tokens anew.
        if self.finished and "tokenCount" in hint.changed and not _WRITTEN.isdisjoint(hint.changed):
            self.edited = True


def _latest(known: int | None, told: int | None) -> int | None:
    return told if known is None else known if told is None else max(known, told)
