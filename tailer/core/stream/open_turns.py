"""The turns that were seen and are not done: since when, when they are due, and what the stream told of them.

Pure: every method takes the time. An entry becomes due once its row has been quiet for the settle time; a question
becomes due when it has waited long enough to be parked. Touches of rows are remembered for a while, because the last
one before a response is where a regenerated answer began.
"""

import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import ChangeHint, Interest, Operation
from tailer.core.turn.readback import Row

_TIMES_OF_ONE_ROW = 4
"""Touches remembered of one row: those of an answer that was generated anew, and of the one after it."""


_SPARE_PLACES = 1_000
"""How many places of the schedule may be stale before they are worth a look."""
_LATE_FIELDS = frozenset({"text", "content", "feedback"})
"""What a replacement may have changed of a turn that was sent: it does not tell."""


class EntryKey(NamedTuple):
    """What is open: the kind of work and the row's `_id`."""

    interest: Interest
    document_key: DocumentKey


@dataclass(slots=True)
class Entry:
    """One open turn. Times are seconds of the caller's monotonic clock."""

    key: EntryKey
    opened_seconds: float
    due_seconds: float
    message_id: str | None = None
    conversation_id: str | None = None
    finished_milliseconds: int | None = None
    written_milliseconds: int | None = None
    cluster_seconds: int = 0
    taken: bool = False
    changed_since_taken: bool = False
    deadline_passed: bool = False
    changed: frozenset[str] = frozenset()


class OpenTurns:
    """The table of open entries. `settle_seconds` and `park_seconds` are explained in the settings."""

    def __init__(self, *, settle_seconds: float, park_seconds: float, touches: int = 6_000) -> None:
        self._settle_seconds = settle_seconds
        self._park_seconds = park_seconds
        self._entries: dict[EntryKey, Entry] = {}
        self._counts: Counter[Interest] = Counter()
        self._schedule: list[tuple[float, int, EntryKey]] = []
        self._sequence = 0
        self._questions: dict[str, EntryKey] = {}
        self._conversations: dict[str, dict[EntryKey, Entry]] = {}
        self._touch_limit = touches
        self._touches: OrderedDict[DocumentKey, tuple[int, ...]] = OrderedDict()

    def __len__(self) -> int:
        """How many entries are open."""
        return len(self._entries)

    def count(self, interest: Interest) -> int:
        """How many entries of one kind are open."""
        return self._counts[interest]

    def oldest_seconds(self, *, except_for: Interest | None = None) -> float | None:
        """When the oldest entry was opened, None when nothing is open; entries of one kind may be left out."""
        # Entries stand in the order in which they were opened.
        opened = (
            entry.opened_seconds for entry in self._entries.values() if entry.key.interest is not except_for
        )
        return next(opened, None)

    def open(self, interest: Interest, hint: ChangeHint, now: float, *, age_seconds: float) -> EntryKey:
        """Open an entry for a hint, or note that the row changed again; returns its key.

        `age_seconds` is how long ago, by the server's clock, the change was made: a backlog needs no second wait.
        """
        key = EntryKey(interest, hint.document_key)
        wait = self._park_seconds if interest is Interest.QUESTION else self._settle_seconds
        due = now + max(0.0, wait - age_seconds)
        entry = self._entries.get(key)
        if entry is None:
            entry = Entry(key, opened_seconds=now, due_seconds=due)
            self._add(entry)
        elif entry.taken:
            entry.changed_since_taken = True
            entry.due_seconds = due
        elif due > entry.due_seconds and not entry.deadline_passed:
            entry.due_seconds = due
        entry.cluster_seconds = max(entry.cluster_seconds, hint.cluster_seconds)
        entry.message_id = hint.message_id or entry.message_id
        if (
            interest is Interest.RESPONSE
            and hint.conversation_id is not None
            and entry.conversation_id is None
        ):
            self._join_conversation(entry, hint.conversation_id)
        entry.written_milliseconds = _latest(entry.written_milliseconds, hint.written_milliseconds)
        changed = _LATE_FIELDS if hint.operation is Operation.REPLACE else hint.changed
        if not changed <= entry.changed:
            entry.changed |= changed
        if hint.operation is not Operation.INSERT and "unfinished" in hint.changed:
            entry.finished_milliseconds = _latest(entry.finished_milliseconds, hint.written_milliseconds)
        if interest is Interest.QUESTION and hint.message_id is not None:
            self._questions[hint.message_id] = key
        return key

    def reopen(self, key: EntryKey, message_id: str | None, now: float) -> None:
        """Open an entry whose deadline has passed while it was parked; it is due at once."""
        if key not in self._entries:
            entry = Entry(
                key, opened_seconds=now, due_seconds=now, message_id=message_id, deadline_passed=True
            )
            self._add(entry)

    def admit(
        self, key: EntryKey, row: Row, now: float, *, deadline_passed: bool, cluster_seconds: int
    ) -> None:
        """Open an entry that no stream told of; it is due at once. One that is open already stays as it is."""
        if key in self._entries:
            return
        entry = Entry(
            key,
            opened_seconds=now,
            due_seconds=now,
            message_id=row.message_id,
            cluster_seconds=cluster_seconds,
            deadline_passed=deadline_passed,
        )
        self._add(entry)
        if key.interest is Interest.RESPONSE:
            self._join_conversation(entry, row.conversation_id)

    def answer(self, question_message_id: str) -> EntryKey | None:
        """Close the open question that a response answers; its key, or None when none is open."""
        key = self._questions.pop(question_message_id, None)
        if key is not None:
            self._remove(key)
        return key

    def touch(self, hint: ChangeHint) -> None:
        """Remember that a row was saved again without a change."""
        if hint.written_milliseconds is None:
            return
        times = {*self._touches.pop(hint.document_key, ()), hint.written_milliseconds}
        self._touches[hint.document_key] = tuple(sorted(times)[-_TIMES_OF_ONE_ROW:])
        if len(self._touches) > self._touch_limit:
            self._touches.popitem(last=False)

    def touches_of(self, document_key: DocumentKey) -> tuple[int, ...]:
        """When a row was saved again without a change, as far as it is remembered, oldest first."""
        return self._touches.get(document_key, ())

    def recent_touches(self, limit: int) -> list[tuple[DocumentKey, tuple[int, ...]]]:
        """The newest touches, to be stored with a checkpoint: a restart would not see them again."""
        newest = list(islice(reversed(self._touches.items()), limit))
        return newest[::-1]

    def restore_touches(self, touches: list[tuple[DocumentKey, tuple[int, ...]]]) -> None:
        """Put stored touches back, before any hint is read."""
        for key, times in touches:
            self._touches[key] = times

    def next_due(self) -> float | None:
        """When the next entry becomes due, None when no entry waits."""
        while self._schedule:
            due, _, key = self._schedule[0]
            entry = self._entries.get(key)
            if entry is None or entry.taken:
                heapq.heappop(self._schedule)
            elif entry.due_seconds > due:
                heapq.heappop(self._schedule)
                self._push(entry)
            else:
                return due
        return None

    def take_due(self, now: float, limit: int) -> list[Entry]:
        """Take up to `limit` entries that are due; they stay open until `close` or `release`.

        The responses of one conversation are taken together, as far as they are due: they share what is read for them.
        """
        taken: list[Entry] = []
        while len(taken) < limit:
            due = self.next_due()
            if due is None or due > now:
                break
            _, _, key = heapq.heappop(self._schedule)
            for entry in self._due_together(self._entries[key], now, limit - len(taken)):
                entry.taken = True
                entry.changed_since_taken = False
                taken.append(entry)
        return taken

    def _due_together(self, first: Entry, now: float, limit: int) -> list[Entry]:
        if first.conversation_id is None:
            return [first]
        mates = self._conversations[first.conversation_id].values()
        due = (mate for mate in mates if mate is not first and not mate.taken and mate.due_seconds <= now)
        # What is taken here stays in the schedule, which passes over entries that are taken or gone.
        return [first, *islice(due, limit - 1)]

    def close(self, key: EntryKey) -> bool:
        """Close a taken entry; False when its row changed meanwhile: then it stays open and becomes due again."""
        entry = self._entries.get(key)
        if entry is None:
            return True
        if entry.changed_since_taken:
            self.release(key, entry.due_seconds)
            return False
        self._remove(key)
        self._leave_conversation(entry)
        if entry.message_id is not None and self._questions.get(entry.message_id) == key:
            del self._questions[entry.message_id]
        return True

    def is_open(self, key: EntryKey) -> bool:
        """Whether an entry is open."""
        return key in self._entries

    def note(self, key: EntryKey, changed: str) -> None:
        """Note a field that is to be looked at."""
        self._entries[key].changed |= {changed}

    def release(self, key: EntryKey, due_seconds: float) -> None:
        """Give a taken entry back, to be taken again when due; one that was answered meanwhile is gone."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.taken = False
        entry.changed_since_taken = False
        entry.due_seconds = due_seconds
        self._push(entry)

    def _add(self, entry: Entry) -> None:
        self._entries[entry.key] = entry
        self._counts[entry.key.interest] += 1
        self._push(entry)

    def _remove(self, key: EntryKey) -> None:
        if self._entries.pop(key, None) is not None:
            self._counts[key.interest] -= 1

    def _join_conversation(self, entry: Entry, conversation_id: str) -> None:
        entry.conversation_id = conversation_id
        self._conversations.setdefault(conversation_id, {})[entry.key] = entry

    def _leave_conversation(self, entry: Entry) -> None:
        if entry.conversation_id is not None:
            mates = self._conversations[entry.conversation_id]
            del mates[entry.key]
            if not mates:
                del self._conversations[entry.conversation_id]

    def _push(self, entry: Entry) -> None:
        self._sequence += 1
        heapq.heappush(self._schedule, (entry.due_seconds, self._sequence, entry.key))
        if len(self._schedule) > 2 * len(self._entries) + _SPARE_PLACES:
            self._rebuild_schedule()

    def _rebuild_schedule(self) -> None:
        """Drop the places of entries that are gone: an answered question would keep its own until it had been parked."""
        waiting = (entry for entry in self._entries.values() if not entry.taken)
        self._schedule = [(entry.due_seconds, number, entry.key) for number, entry in enumerate(waiting)]
        self._sequence = len(self._schedule)
        heapq.heapify(self._schedule)


def _latest(known: int | None, told: int | None) -> int | None:
    return told if known is None else known if told is None else max(known, told)
