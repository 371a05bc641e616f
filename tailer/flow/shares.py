"""What the destinations still have to do for each entry that was taken. The last one to end its share ends the entry.

A share ends in one of four ways: done, again later, parked, or to be followed. An entry is given back if any share asks
for that. The destinations that are done with it find their records then, and do nothing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from tailer.core.light_dataclass import light_dataclass
from tailer.core.stream.hints import Interest
from tailer.core.stream.open_turns import Entry, EntryKey
from tailer.core.turn.entry_outcomes import EntryOutcome, parked
from tailer.core.turn.turns import Wait
from tailer.events import Emit, TurnDone
from tailer.flow.backlog import Backlog
from tailer.flow.parking import Parking

_OF_TURNS = (Interest.RESPONSE, Interest.QUESTION)
_LITTLE = (None, EntryOutcome.SENT_BEFORE)
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

    __slots__ = ("endings", "open", "work")

    def __init__(self, work: Interest, destinations: Sequence[str]) -> None:
        self.work = work
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
        self._ledgers[entry.key] = _Ledger(entry.work, self._destinations)
        return self._destinations

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
        if outcome is not None:
            self._emit(TurnDone(outcome))
        if not held and key.interest in _OF_TURNS and (not followed or _is_sent(done)):
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
