"""One round of a lane: the entries that were taken together, and what happens to each at each destination.

A share is what one destination has to do with one entry. Every share is settled exactly once: closed, postponed, passed
on, parked, handed over or buried. With that its claims are released, unless delivery has it by then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from tailer.core.identity import DocumentKey, TraceId
from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import Wait
from tailer.events import Emit, TurnFailed
from tailer.flow.backlog import Backlog
from tailer.flow.destinations import Destination
from tailer.flow.lanes.setbacks import Waiting
from tailer.flow.letter_reasons import LetterKind, LetterReason
from tailer.flow.parking import Parking
from tailer.flow.ports import DocumentReader
from tailer.flow.records import DeadLetter, unknown_record_id
from tailer.flow.sending.outgoing import Outgoing
from tailer.flow.shares import Again, Done, Ending, Parked, Shares

BUSY_SECONDS = 1.0
"""How long an entry waits if another task, or a batch of an earlier run, is working on its trace."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """The parts that every lane works with. `records_last` is how long it is known what was sent."""

    backlog: Backlog
    parking: Parking
    reader: DocumentReader
    shares: Shares
    destinations: Mapping[str, Destination]
    emit: Emit
    records_last: timedelta
    shard: Shard = WHOLE


class Share(NamedTuple):
    """What one destination has to do with one entry."""

    entry: Entry
    destination: Destination


class _ShareKey(NamedTuple):
    entry: EntryKey
    destination: str


class Round:
    """The shares of one round. Nothing here awaits between a claim and the note of it.

    Where a method takes `at`, it concerns the share of that destination; without, those of all destinations.
    """

    def __init__(self, bench: Workbench, shares: Sequence[Share]) -> None:
        self._bench = bench
        self._unsettled = {_key_of(share.entry, share.destination): share for share in shares}
        self._claims: dict[_ShareKey, frozenset[TraceId]] = {}
        self._rows: set[_ShareKey] = set()
        self._subjects: dict[EntryKey, tuple[str, str]] = {}

    @property
    def shares(self) -> list[Share]:
        """The shares that are not settled yet."""
        return list(self._unsettled.values())

    @property
    def entries(self) -> list[Entry]:
        """The entries with a share that is not settled yet."""
        return list({share.entry.key: share.entry for share in self._unsettled.values()}.values())

    @property
    def destinations(self) -> list[Destination]:
        """The destinations with a share that is not settled yet."""
        return list(
            {share.destination.name: share.destination for share in self._unsettled.values()}.values()
        )

    def by_row(self, *, at: Destination | None = None) -> dict[DocumentKey, Entry]:
        """The entries with a share that is not settled yet, by the `_id` of their row."""
        return {
            share.entry.key.document_key: share.entry
            for share in self._unsettled.values()
            if at is None or share.destination is at
        }

    def is_open(self, entry: Entry, at: Destination) -> bool:
        """Whether the share of a destination is not settled yet."""
        return _key_of(entry, at) in self._unsettled

    def name(self, entry: Entry, record_id: str, message_id: str) -> None:
        """Say which record an entry is about; a dead letter of it gets that id."""
        self._subjects[entry.key] = (record_id, message_id)

    def claim(self, entry: Entry, at: Destination, rows: Mapping[TraceId, DocumentKey]) -> bool:
        """Claim all these traces of a destination for an entry, each for work on a row; none of them if one is not
        free."""
        free = self.claim_free(entry, at, rows)
        if free == rows.keys():
            return True
        at.in_flight.release(free)
        self._claims[_key_of(entry, at)] -= free
        return False

    def claim_free(
        self, entry: Entry, at: Destination, rows: Mapping[TraceId, DocumentKey]
    ) -> frozenset[TraceId]:
        """Claim those of these traces that are free."""
        free, key = at.in_flight.claim(rows), _key_of(entry, at)
        self._claims[key] = self._claims.get(key, frozenset()) | free
        return free

    def claim_row(self, entry: Entry, at: Destination) -> bool:
        """Claim everything that the row of an entry has at a destination, or will have."""
        if not at.in_flight.claim_row(entry.key.document_key):
            return False
        self._rows.add(_key_of(entry, at))
        return True

    def close(self, entry: Entry, outcome: EntryOutcome | None, *, at: Destination | None = None) -> None:
        """Nothing is left to do; `outcome` is what the entry counts as, None for nothing."""
        self._end(entry, at, Done(outcome))

    def leave_others(self, rows: Iterable[Row]) -> list[Row]:
        """The rows of this shard's conversations; the entries of other rows are closed."""
        entries = self.by_row()
        return [row for row in rows if self.keeps(entries[row.key], row.conversation_id)]

    def keeps(self, entry: Entry, conversation_id: str | None) -> bool:
        """Whether an entry is this shard's; if not, it is closed, because another shard works on it."""
        if self._bench.shard.owns(conversation_id):
            self._bench.shares.note_conversation(entry.key, conversation_id)
            return True
        self.close(entry, EntryOutcome.OTHER_SHARD)
        return False

    def knows_owner(self, entry: Entry, conversation_id: str | None) -> bool:
        """Whether it is known whose an entry is, which its shard is at work on; `conversation_id` is what tells it now,
        if anything does."""
        if conversation_id is not None:
            self._bench.shares.note_conversation(entry.key, conversation_id)
        return self._bench.shard.is_whole or entry.belongs_to is not None

    def postpone(self, entry: Entry, seconds: float = BUSY_SECONDS, *, at: Destination | None = None) -> None:
        """Give an entry back, to be taken again later."""
        self._end(entry, at, Again(seconds))

    async def wait_or_owe(self, waiting: Sequence[tuple[Entry, Waiting | None]], *, at: Destination) -> None:
        """Give entries back that a destination does not let go on now, because it does not accept something, or with
        None because it is still at work on the trace. What has held up the other destinations for long enough is owed
        instead."""
        late = [
            entry
            for entry, told in waiting
            if at.presence.is_away or (told is not None and at.presence.has_held_up(told.since_seconds))
        ]
        await self.owe(late, at=at)
        for entry, told in waiting:
            if self.is_open(entry, at):
                self.postpone(entry, BUSY_SECONDS if told is None else told.wait_seconds, at=at)

    async def owe(self, entries: Sequence[Entry], *, at: Destination) -> None:
        """Keep shares for a destination that is away; they are done with for now."""
        await at.debts.owe([self._bench.shares.owed(entry.key) for entry in entries])
        for entry in entries:
            self.close(entry, EntryOutcome.OWED, at=at)

    def follow_up(self, entry: Entry, *, at: Destination | None = None) -> None:
        """Pass an entry on to the follow-ups: its turn was sent before."""
        self._end(entry, at, Done(None, followed=frozenset()))

    async def park(self, waiting: Sequence[tuple[Entry, Wait]], *, at: Destination | None = None) -> None:
        """Store entries in the state database until what they wait for has come, or their time is up."""
        if not waiting:
            return
        now = self._bench.backlog.source_seconds
        await self._bench.parking.keep(
            [
                (entry.key.document_key, entry.message_id, wait, entry.cluster_seconds or now)
                for entry, wait in waiting
            ]
        )
        for entry, wait in waiting:
            self._end(entry, at, Parked(wait))

    async def hand_over(self, outgoing: Sequence[Outgoing], *, at: Destination) -> None:
        """Hand over to the delivery of a destination, together with the claims."""
        await at.delivery.hand_over(outgoing, lambda piece: self._taken(piece, at))

    async def bury(self, share: Share, reason: str) -> None:
        """Store a share as a dead letter of its own."""
        entry, destination = share
        fallback = unknown_record_id(entry.work, entry.key.document_key), entry.message_id or ""
        record_id, message_id = self._subjects.get(entry.key, fallback)
        letter = DeadLetter(
            record_id,
            message_id,
            entry.key.document_key,
            LetterReason(LetterKind.BUILD_FAILED, reason),
            None,
            interest=entry.work,
        )
        await destination.state.add_dead_letters([letter])
        destination.emit(TurnFailed(message_id, reason))
        self.close(entry, EntryOutcome.DEAD_LETTER, at=destination)

    def let_go(self) -> None:
        """Release what unsettled shares have claimed: the round failed, and they are tried again."""
        for key, share in self._unsettled.items():
            self._release(key, share.destination)

    def _end(self, entry: Entry, at: Destination | None, ending: Ending) -> None:
        for destination in self._open_at(entry) if at is None else (at,):
            key = _key_of(entry, destination)
            del self._unsettled[key]
            self._release(key, destination)
            self._bench.shares.end(entry.key, destination.name, ending)

    def _open_at(self, entry: Entry) -> Iterable[Destination]:
        return [
            destination
            for destination in self._bench.destinations.values()
            if _key_of(entry, destination) in self._unsettled
        ]

    def _release(self, key: _ShareKey, destination: Destination) -> None:
        destination.in_flight.release(self._claims.pop(key, ()))
        if key in self._rows:
            self._rows.discard(key)
            destination.in_flight.release_row(key.entry.document_key)

    def _taken(self, outgoing: Outgoing, destination: Destination) -> None:
        key = _ShareKey(outgoing.key, destination.name)
        self._unsettled.pop(key, None)
        left = self._claims.pop(key, frozenset()) - {item.probe.trace_id for item in outgoing.items}
        destination.in_flight.release(left)


def _key_of(entry: Entry, destination: Destination) -> _ShareKey:
    return _ShareKey(entry.key, destination.name)
