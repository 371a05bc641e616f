"""One round of a lane: the entries that were taken together, and what happens to each.

Every entry is settled exactly once: closed, postponed, passed on, parked, handed over or buried. With that its claims
are released, unless delivery has it by then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tailer.core.identity import DocumentKey, TraceId
from tailer.core.stream.hints import Interest
from tailer.core.stream.open_turns import Entry, EntryKey
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.turn.entry_outcomes import EntryOutcome, parked
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import Wait
from tailer.events import Emit, TurnDone, TurnFailed
from tailer.flow.backlog import Backlog
from tailer.flow.in_flight import InFlight
from tailer.flow.letter_reasons import LetterKind, LetterReason
from tailer.flow.parking import Parking
from tailer.flow.ports import DocumentReader
from tailer.flow.records import DeadLetter, unknown_record_id
from tailer.flow.sending.delivery import Delivery
from tailer.flow.sending.outgoing import Outgoing, Packing
from tailer.flow.stores import StateStore

BUSY_SECONDS = 1.0
"""How long an entry waits if another task, or a batch of an earlier run, is working on its trace."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """The parts that every lane works with."""

    backlog: Backlog
    parking: Parking
    reader: DocumentReader
    state: StateStore
    in_flight: InFlight
    packing: Packing
    delivery: Delivery
    emit: Emit
    shard: Shard = WHOLE


class Round:
    """The entries of one round. Nothing here awaits between a claim and the note of it."""

    def __init__(self, bench: Workbench, entries: Sequence[Entry]) -> None:
        self._bench = bench
        self._unsettled = {entry.key: entry for entry in entries}
        self._claims: dict[EntryKey, frozenset[TraceId]] = {}
        self._rows: set[EntryKey] = set()
        self._subjects: dict[EntryKey, tuple[str, str]] = {}

    @property
    def entries(self) -> list[Entry]:
        """The entries that are not settled yet."""
        return list(self._unsettled.values())

    def by_row(self) -> dict[DocumentKey, Entry]:
        """The entries that are not settled yet, by the `_id` of their row."""
        return {entry.key.document_key: entry for entry in self._unsettled.values()}

    def name(self, entry: Entry, record_id: str, message_id: str) -> None:
        """Say which record an entry is about; a dead letter of it gets that id."""
        self._subjects[entry.key] = (record_id, message_id)

    def claim(self, entry: Entry, rows: Mapping[TraceId, DocumentKey]) -> bool:
        """Claim all these traces for an entry, each for work on a row; none of them if one is not free."""
        free = self.claim_free(entry, rows)
        if free == rows.keys():
            return True
        self._bench.in_flight.release(free)
        self._claims[entry.key] -= free
        return False

    def claim_free(self, entry: Entry, rows: Mapping[TraceId, DocumentKey]) -> frozenset[TraceId]:
        """Claim those of these traces that are free."""
        free = self._bench.in_flight.claim(rows)
        self._claims[entry.key] = self._claims.get(entry.key, frozenset()) | free
        return free

    def claim_row(self, entry: Entry) -> bool:
        """Claim everything that the row of an entry has, or will have."""
        if not self._bench.in_flight.claim_row(entry.key.document_key):
            return False
        self._rows.add(entry.key)
        return True

    def close(self, entry: Entry, outcome: EntryOutcome | None) -> None:
        """Close an entry; `outcome` is what it counts as, None for nothing."""
        if outcome is not None:
            self._bench.emit(TurnDone(outcome))
        if entry.key.interest in (Interest.RESPONSE, Interest.QUESTION):
            self._bench.parking.leave(entry.key.document_key)
        self._settle(entry)
        self._bench.backlog.close(entry.key)

    def leave_others(self, rows: Iterable[Row]) -> list[Row]:
        """The rows of this shard's conversations; the entries of other rows are closed."""
        entries = self.by_row()
        return [row for row in rows if self.keeps(entries[row.key], row.conversation_id)]

    def keeps(self, entry: Entry, conversation_id: str | None) -> bool:
        """Whether an entry is this shard's; if not, it is closed, because another shard works on it."""
        if self._bench.shard.owns(conversation_id):
            return True
        self.close(entry, EntryOutcome.OTHER_SHARD)
        return False

    def postpone(self, entry: Entry, seconds: float = BUSY_SECONDS) -> None:
        """Give an entry back, to be taken again later."""
        self._settle(entry)
        self._bench.backlog.postpone(entry.key, seconds=seconds)

    def pass_on(self, entry: Entry, work: Interest) -> None:
        """Pass an entry on to another lane."""
        self._settle(entry)
        self._bench.backlog.pass_on(entry.key, work)

    async def park(self, waiting: Sequence[tuple[Entry, Wait]]) -> None:
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
            self._bench.emit(TurnDone(parked(wait)))
            self._settle(entry)
            self._bench.backlog.close(entry.key)

    async def hand_over(self, outgoing: Sequence[Outgoing]) -> None:
        """Hand over to delivery, together with the claims."""
        await self._bench.delivery.hand_over(outgoing, self._taken)

    async def bury(self, entry: Entry, reason: str) -> None:
        """Store an entry as a dead letter of its own."""
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
        await self._bench.state.add_dead_letters([letter])
        self._bench.emit(TurnFailed(message_id, reason))
        self.close(entry, EntryOutcome.DEAD_LETTER)

    def let_go(self) -> None:
        """Release what unsettled entries have claimed: the round failed, and they are tried again."""
        for key in self._unsettled:
            self._release(key)

    def _settle(self, entry: Entry) -> None:
        self._unsettled.pop(entry.key, None)
        self._release(entry.key)

    def _release(self, key: EntryKey) -> None:
        self._bench.in_flight.release(self._claims.pop(key, ()))
        if key in self._rows:
            self._rows.discard(key)
            self._bench.in_flight.release_row(key.document_key)

    def _taken(self, outgoing: Outgoing) -> None:
        self._unsettled.pop(outgoing.key, None)
        left = self._claims.pop(outgoing.key, frozenset()) - {item.probe.trace_id for item in outgoing.items}
        self._bench.in_flight.release(left)
