"""Sends dead letters again, on request of `tailer dead-letters replay`.

A turn is read and built anew, because the building may have been at fault. A later piece of a turn, or a title, is sent
as it was built, because it shows a past moment. A letter is forgotten when its record says that it arrived.
"""

from collections.abc import Awaitable, Callable, Sequence

from tailer.core.identity import unanswered_trace_id
from tailer.core.stream.entries import LATE_FIELDS, EntryKey
from tailer.core.stream.hints import REPLAY, Interest
from tailer.events import DeadLetterReplayed, Emit
from tailer.flow.backlog import Backlog
from tailer.flow.records import DeadLetter
from tailer.flow.sending.delivery import Delivery
from tailer.flow.stores import DestinationStore

_AT_ONCE = 100
"""Letters in progress at a time: a refused one may hold its whole trace in memory."""
SENT = "sent"
NOTHING_TO_SEND = "nothing_to_send"
"""The row is gone, or the settings leave it out by now."""


class Replay:
    """Works through the replays that are requested for one destination, sweep by sweep. `choose_own` gives those of
    this shard."""

    def __init__(
        self,
        name: str,
        backlog: Backlog,
        state: DestinationStore,
        delivery: Delivery,
        emit: Emit,
        choose_own: Callable[[Sequence[DeadLetter]], Awaitable[Sequence[DeadLetter]]],
    ) -> None:
        self._name = name
        self._backlog = backlog
        self._state = state
        self._delivery = delivery
        self._emit = emit
        self._choose_own = choose_own
        self._under_way: set[str] = set()
        self._others: set[str] = set()

    async def sweep(self) -> None:
        """Begin what is requested, and finish what was begun."""
        loaded = await self._state.load_replays(_AT_ONCE, except_for=self._others)
        asked = await self._choose_own(loaded)
        self._others |= {letter.record_id for letter in loaded} - {letter.record_id for letter in asked}
        # A letter that was refused again is no longer requested.
        self._under_way.intersection_update(letter.record_id for letter in asked)
        # Read before the records: an entry that closes in between has its record by then.
        idle = [letter for letter in asked if not self._backlog.is_open(*_entry_of(letter))]
        sent = await self._state.find_exported([letter.record_id for letter in idle])
        done = [letter for letter in idle if letter.record_id in sent or self._is_done_without_record(letter)]
        await self._forget(done)
        for letter in idle:
            if letter in done:
                continue
            if letter.record_id not in self._under_way:
                await self._begin(letter)
            elif await self._state.end_replay(letter.record_id, NOTHING_TO_SEND):
                self._conclude(letter, NOTHING_TO_SEND)

    async def _begin(self, letter: DeadLetter) -> None:
        if letter.chunk is not None and letter.item is not None and letter.item.sent is None:
            await self._delivery.resend(letter.item, letter.chunk)
            return
        self._under_way.add(letter.record_id)
        changed = LATE_FIELDS | {REPLAY}
        self._backlog.reopen(_entry_of(letter), letter.message_id, changed=changed, only=self._name)

    def _is_done_without_record(self, letter: DeadLetter) -> bool:
        """Whether it was done and leaves no record: a letter whose replay failed again is no longer asked for."""
        return letter.record_id in self._under_way and not letter.leaves_record

    async def _forget(self, letters: Sequence[DeadLetter]) -> None:
        if letters:
            await self._state.drop_dead_letters([letter.record_id for letter in letters])
        for letter in letters:
            self._conclude(letter, SENT)

    def _conclude(self, letter: DeadLetter, outcome: str) -> None:
        self._under_way.discard(letter.record_id)
        self._emit(DeadLetterReplayed(letter.record_id, letter.message_id, outcome))


def _entry_of(letter: DeadLetter) -> EntryKey:
    interest = letter.interest
    if interest is None:
        unanswered = letter.record_id == unanswered_trace_id(letter.message_id)
        interest = Interest.QUESTION if unanswered else Interest.RESPONSE
    # A follow-up is found by looking at its row again.
    return EntryKey(Interest.RESPONSE if interest is Interest.FOLLOWUP else interest, letter.document_key)
