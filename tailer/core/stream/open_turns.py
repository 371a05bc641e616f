"""The turns that were seen and are not done: which are due, and which are being worked on.

Pure: every method takes the time. An entry is due once its row has been quiet for the settle time; a question is due
once it has waited long enough to be parked. Entries are taken by kind of work: `Entry.work` begins as the interest of
the hint, and becomes a follow-up once the turn of the row was sent.
"""

from collections import Counter
from collections.abc import Callable, Collection
from itertools import islice

from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.hints import ChangeHint, Interest
from tailer.core.stream.schedule import Schedule
from tailer.core.turn.readback import Row

EVERY_WORK = frozenset(Interest)
"""All kinds of work."""
_SPARE_PLACES = 1_000
"""How many places of the schedule may be stale before they are removed."""


class OpenTurns:
    """The table of open entries. The settings explain `settle_seconds` and `park_seconds`."""

    def __init__(self, *, settle_seconds: float, park_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._park_seconds = park_seconds
        self._entries: dict[EntryKey, Entry] = {}
        self._counts: Counter[Interest] = Counter()
        self._schedule: Schedule[Interest, EntryKey] = Schedule()
        self._questions: dict[str, EntryKey] = {}
        self._conversations: dict[str, dict[EntryKey, Entry]] = {}

    def __len__(self) -> int:
        """How many entries are open."""
        return len(self._entries)

    def count(self, interest: Interest) -> int:
        """How many entries of one kind are open."""
        return self._counts[interest]

    def oldest_seconds(
        self,
        *,
        except_for: Interest | None = None,
        where: Callable[[Entry], bool] = lambda entry: True,  # noqa: ARG005 - all of them
    ) -> float | None:
        """When the oldest entry was opened, None if nothing is open. Entries of one kind, and those for which `where`
        does not hold, are left out."""
        # Entries are in the order in which they were opened.
        opened = (
            entry.opened_seconds
            for entry in self._entries.values()
            if entry.key.interest is not except_for and where(entry)
        )
        return next(opened, None)

    def open(self, interest: Interest, hint: ChangeHint, now: float, *, age_seconds: float) -> EntryKey:
        """Open an entry for a hint, or note that the row changed again; returns its key.

        `age_seconds` is how long ago the change was made, by the server's clock: a backlog does not wait a second time.

        Its work begins again: the change may be read a second time, after a start, by an entry that was followed up at
        one destination only, and the others still have to get the turn.
        """
        key = EntryKey(interest, hint.document_key)
        wait = self._park_seconds if interest is Interest.QUESTION else self._settle_seconds
        due = now + max(0.0, wait - age_seconds)
        entry = self._entries.get(key)
        if entry is None:
            entry = Entry(key, opened_seconds=now, due_seconds=due, work=interest)
            self._add(entry)
        elif entry.taken:
            entry.changed_since_taken = True
            entry.due_seconds = due
        elif entry.work is not interest:
            self._begin_again(entry, due)
        elif due > entry.due_seconds and not entry.deadline_passed:
            entry.due_seconds = due
        entry.note(hint)
        if (
            interest is Interest.RESPONSE
            and hint.conversation_id is not None
            and entry.conversation_id is None
        ):
            self._join_conversation(entry, hint.conversation_id)
        if interest is Interest.QUESTION and hint.message_id is not None:
            self._questions[hint.message_id] = key
        return key

    def reopen(
        self,
        key: EntryKey,
        message_id: str | None,
        now: float,
        *,
        changed: Collection[str] = (),
        belongs_to: str | None = None,
        again: bool = False,
    ) -> None:
        """Open an entry whose deadline has passed, or that is asked for again; it is due at once.

        `changed` names the fields that are to be looked at if the turn was sent before; `belongs_to` the conversation,
        where no row may be left to tell; `again` has an entry that is being worked on taken once more.
        """
        entry = self._entries.get(key)
        if entry is not None:
            entry.message_id = entry.message_id or message_id
            entry.belongs_to = entry.belongs_to or belongs_to
            self._look_again(entry, changed, now, again=again)
        else:
            self._add(
                Entry(
                    key,
                    opened_seconds=now,
                    due_seconds=now,
                    work=key.interest,
                    message_id=message_id,
                    belongs_to=belongs_to,
                    deadline_passed=True,
                    changed=frozenset(changed),
                )
            )

    def take_back(self, entry: Entry, now: float) -> None:
        """Open an entry as it was when it was owed. One that is open is taken once more, and its changes count too."""
        known = self._entries.get(entry.key)
        if known is None:
            self._add(entry)
        else:
            self._look_again(known, entry.changed, now, again=True)

    def _look_again(self, entry: Entry, changed: Collection[str], now: float, *, again: bool) -> None:
        """Note more fields of an entry that is open; one that is being worked on becomes due again after it. With
        `again` its work begins again, because a destination still has to get the turn."""
        if (changed or again) and entry.taken:
            entry.changed_since_taken = True
            entry.due_seconds = now
        elif again and entry.work is not entry.key.interest:
            self._begin_again(entry, now)
        entry.changed |= frozenset(changed)

    def _begin_again(self, entry: Entry, due: float) -> None:
        """Let an entry that waits for other work wait for its first one."""
        entry.work = entry.key.interest
        entry.due_seconds = due
        self._push(entry)

    def admit(
        self,
        key: EntryKey,
        row: Row,
        now: float,
        *,
        deadline_passed: bool,
        cluster_seconds: int,
        again: bool = False,
    ) -> None:
        """Open an entry that no stream reported; it is due at once. An open one stays as it is, but with `again` it is
        taken once more."""
        known = self._entries.get(key)
        if known is not None:
            self._look_again(known, (), now, again=again)
            return
        entry = Entry(
            key,
            opened_seconds=now,
            due_seconds=now,
            work=key.interest,
            message_id=row.message_id,
            cluster_seconds=cluster_seconds,
            deadline_passed=deadline_passed,
        )
        self._add(entry)
        if key.interest is Interest.RESPONSE:
            self._join_conversation(entry, row.conversation_id)

    def answer(self, question_message_id: str) -> EntryKey | None:
        """Close the open question that a response answers; returns its key, or None if none is open."""
        key = self._questions.pop(question_message_id, None)
        if key is not None:
            self._remove(key)
        return key

    def next_due(self, works: Collection[Interest] = EVERY_WORK) -> float | None:
        """When the next entry with one of these kinds of work becomes due, None when none waits."""
        first = self._first(works)
        return None if first is None else first[0]

    def take_due(self, now: float, limit: int, works: Collection[Interest] = EVERY_WORK) -> list[Entry]:
        """Take up to `limit` entries that are due for these kinds of work; they stay open until `close` or `release`.

        The responses of one conversation are taken together, as far as they are due: they share what is read for them.
        """
        taken: list[Entry] = []
        while len(taken) < limit:
            first = self._first(works)
            if first is None or first[0] > now:
                break
            self._schedule.pop(first[1].work)
            for entry in self._due_together(first[1], now, limit - len(taken)):
                entry.taken = True
                entry.changed_since_taken = False
                taken.append(entry)
        return taken

    def _first(self, works: Collection[Interest]) -> tuple[float, Entry] | None:
        firsts = filter(None, map(self._first_of, works))
        return min(firsts, key=_due_of, default=None)

    def _first_of(self, work: Interest) -> tuple[float, Entry] | None:
        """The entry that is due first for one kind of work; stale places on the way are dropped."""
        while (place := self._schedule.first(work)) is not None:
            due, key = place
            entry = self._entries.get(key)
            if entry is not None and not entry.taken and entry.work is work:
                if entry.due_seconds <= due:
                    return due, entry
                self._schedule.pop(work)
                self._push(entry)
            else:
                self._schedule.pop(work)
        return None

    def _due_together(self, first: Entry, now: float, limit: int) -> list[Entry]:
        if first.conversation_id is None or first.work is not first.key.interest:
            return [first]
        mates = self._conversations[first.conversation_id].values()
        due = (
            mate
            for mate in mates
            if mate is not first and not mate.taken and mate.due_seconds <= now and mate.work is first.work
        )
        # The taken entries stay in the schedule, which skips entries that are taken or gone.
        return [first, *islice(due, limit - 1)]

    def close(self, key: EntryKey) -> bool:
        """Close a taken entry. False if its row changed meanwhile: then it stays open and becomes due again."""
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

    def would_close(self, key: EntryKey) -> bool:
        """Whether `close` would close it now: its row did not change since it was taken."""
        entry = self._entries.get(key)
        return entry is None or not entry.changed_since_taken

    def is_open(self, key: EntryKey) -> bool:
        """Whether an entry is open."""
        return key in self._entries

    def work_of(self, key: EntryKey) -> Interest | None:
        """Which kind of work an open entry waits for, or is in; None when it is not open."""
        entry = self._entries.get(key)
        return None if entry is None else entry.work

    def pass_on(self, key: EntryKey, work: Interest, now: float, *, changed: Collection[str] = ()) -> None:
        """Give a taken entry back for another kind of work, due at once; `changed` names fields to be looked at."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.work = work
            due = max(now, entry.due_seconds) if entry.changed_since_taken else now
            self.release(key, due, changed=changed)

    def release(self, key: EntryKey, due_seconds: float, *, changed: Collection[str] = ()) -> None:
        """Give a taken entry back, to be taken again when due; one that was answered meanwhile is gone.

        One that changed since it was taken begins again, whatever work it was to be passed on to: a follow-up takes the
        turn for sent at every destination that it concerns, and these may have become more.
        """
        entry = self._entries.get(key)
        if entry is None:
            return
        if changed:
            entry.changed |= frozenset(changed)
        if entry.changed_since_taken:
            entry.work = key.interest
        entry.taken = entry.changed_since_taken = False
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
        self._schedule.push(entry.work, entry.due_seconds, entry.key)
        if len(self._schedule) > 2 * len(self._entries) + _SPARE_PLACES:
            # An answered question would keep its place until it had been parked.
            waiting = (entry for entry in self._entries.values() if not entry.taken)
            self._schedule.rebuild((entry.work, entry.due_seconds, entry.key) for entry in waiting)


def _due_of(first: tuple[float, Entry]) -> float:
    return first[0]
