"""What the destinations still have to do for each entry that was taken. The last one to end its share ends the entry.

A share ends in one of four ways: done, again later, parked, or to be followed. An entry is given back if any share asks
for that. The destinations that are done with it find their records then, and do nothing.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TypeAlias

from tailer.core.light_dataclass import light_dataclass
from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.hints import Interest
from tailer.core.turn.entry_outcomes import EntryOutcome, parked
from tailer.core.turn.turns import Wait
from tailer.events import Emit, TurnDone
from tailer.flow.backlog import Backlog
from tailer.flow.parking import Parking
from tailer.flow.records import OwedShare

_OF_TURNS = (Interest.RESPONSE, Interest.QUESTION)
_LITTLE = (None, EntryOutcome.SENT_BEFORE, EntryOutcome.NOT_ROUTED)
"""Outcomes that count only where every share has one of them."""


@light_dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do. `outcome` is what it counts as, None for nothing; `was_sent` if the destination has taken
    it just now; `carried` are further entries that the same request answers."""

    outcome: EntryOutcome | None
    was_sent: bool = False
    carried: tuple[EntryKey, ...] = ()
    followed: frozenset[str] | None = None
    """The changed fields that the follow-ups are to look at; None if there is nothing for them."""


@light_dataclass(frozen=True, slots=True)
class Again:
    """To be taken again after so many seconds."""

    seconds: float


@light_dataclass(frozen=True, slots=True)
class Parked:
    """Stored until what it waits for has come."""

    wait: Wait


Ending: TypeAlias = Done | Again | Parked


class _Ledger:
    """The shares of one entry: at which destinations one is open, and how the others ended."""

    __slots__ = ("endings", "entry", "is_narrow", "open")

    def __init__(self, entry: Entry, destinations: Sequence[str], *, is_narrow: bool) -> None:
        self.entry = entry
        self.is_narrow = is_narrow
        self.open = set(destinations)
        self.endings: list[Ending] = []


class Shares:
    """The shares of all entries that were taken. `destinations` are the names of all of them."""

    def __init__(self, backlog: Backlog, parking: Parking, destinations: Sequence[str], emit: Emit) -> None:
        self._backlog = backlog
        self._parking = parking
        self._destinations = tuple(destinations)
        self._emit = emit
        self._ledgers: dict[EntryKey, _Ledger] = {}

    def begin(self, entry: Entry) -> Sequence[str]:
        """Open the shares of an entry that was taken; returns the destinations that have one."""
        scope = self._backlog.scope(entry.key)
        names = (
            self._destinations if scope is None else [name for name in self._destinations if name in scope]
        )
        self._ledgers[entry.key] = _Ledger(entry, names, is_narrow=len(names) < len(self._destinations))
        return names

    def note_conversation(self, key: EntryKey, conversation_id: str | None) -> None:
        """Note whose an entry is among several shards."""
        self._ledgers[key].entry.belongs_to = conversation_id

    def owed(self, key: EntryKey, *, changed: Collection[str] = ()) -> OwedShare:
        """A share of an entry as it is kept for a destination that is away; `changed` names further fields to be looked
        at then."""
        entry = self._ledgers[key].entry
        return OwedShare(
            key=key,
            message_id=entry.message_id,
            conversation_id=entry.belongs_to or entry.conversation_id,
            since_seconds=entry.cluster_seconds or self._backlog.source_seconds,
            written_milliseconds=entry.written_milliseconds,
            finished_milliseconds=entry.finished_milliseconds,
            deadline_passed=entry.deadline_passed,
            finished=entry.finished,
            stopped=entry.stopped,
            edited=entry.edited,
            changed=entry.changed | frozenset(changed),
        )

    def waits_for(self, destination: str, entry: Entry) -> bool:
        """Whether a destination still has something to do for an open entry."""
        ledger = self._ledgers.get(entry.key)
        if ledger is not None:
            return destination in ledger.open
        scope = self._backlog.scope(entry.key)
        return scope is None or destination in scope

    def end(self, key: EntryKey, destination: str, ending: Ending) -> None:
        """End one share; with the last one the entry is closed, given back or passed on."""
        ledger = self._ledgers[key]
        ledger.open.discard(destination)
        ledger.endings.append(ending)
        if not ledger.open:
            del self._ledgers[key]
            self._conclude(key, ledger)

    def closed_by(self, key: EntryKey, destination: str, ending: Done) -> Sequence[EntryKey]:
        """The entries that ending a share so would close; it ends nothing. Those of several destinations are closed by
        the last one."""
        ledger = self._ledgers[key]
        done = [
            each for each in (*ledger.endings, ending) if isinstance(each, Done) and each.followed is None
        ]
        if ledger.open != {destination} or len(done) <= len(ledger.endings):
            return ()
        return (key, *self._carried(done))

    def _conclude(self, key: EntryKey, ledger: _Ledger) -> None:
        done = [ending for ending in ledger.endings if isinstance(ending, Done)]
        followed = [ending.followed for ending in done if ending.followed is not None]
        changed = frozenset[str]().union(*followed)
        waits = [ending.seconds for ending in ledger.endings if isinstance(ending, Again)]
        if waits:
            self._backlog.postpone(key, seconds=max(waits), changed=changed)
            return
        held = [ending for ending in ledger.endings if isinstance(ending, Parked)]
        outcome = _outcome_of(done, held)
        if ledger.is_narrow:
            outcome = _narrow_outcome(outcome, done)
        if outcome is not None:
            self._emit(TurnDone(outcome))
        if not held and ledger.entry.work in _OF_TURNS and (not followed or _is_sent(done)):
            self._parking.leave(key.document_key)
        if followed:
            self._backlog.pass_on(key, Interest.FOLLOWUP, changed=changed)
        else:
            self._backlog.close(key)
        for entry in self._carried(done):
            self._backlog.close(entry)

    def _carried(self, done: Sequence[Done]) -> list[EntryKey]:
        """The further entries that every destination has; one that lacks it still has to get it."""
        carried = Counter(entry for ending in done for entry in ending.carried)
        return [entry for entry, times in carried.items() if times == len(self._destinations)]


def _is_sent(done: Sequence[Done]) -> bool:
    return any(ending.was_sent for ending in done)


def _narrow_outcome(outcome: EntryOutcome | None, done: Sequence[Done]) -> EntryOutcome | None:
    """What counts of an entry that concerns some of the destinations only: the others have counted the turn."""
    if _is_sent(done):
        return EntryOutcome.CAUGHT_UP
    return None if outcome is EntryOutcome.OWED else outcome


def _outcome_of(done: Sequence[Done], held: Sequence[Parked]) -> EntryOutcome | None:
    """What an entry counts as: what was sent comes first, then what waits, then what could not be sent."""
    if len(done) == 1 and not held:
        return done[0].outcome
    sent = [ending.outcome for ending in done if ending.was_sent]
    if sent:
        return sent[0]
    if held:
        return parked(held[0].wait)
    outcomes = [ending.outcome for ending in done]
    if EntryOutcome.DEAD_LETTER in outcomes:
        return EntryOutcome.DEAD_LETTER
    return next((outcome for outcome in outcomes if outcome not in _LITTLE), max(outcomes, key=bool))
