"""What was read and is not done, for all streams: the open turns, the watermark of each stream, and who waits for what.

It is the one piece of state that intake, lanes and delivery share. It lives on the event loop's thread alone, and no
method awaits while it changes something.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from tailer.core.backfill import Admission
from tailer.core.identity import DocumentKey, inserted_seconds
from tailer.core.stream.entries import Entry, EntryKey
from tailer.core.stream.hints import CLASSIFIERS, STREAM_OF_INTEREST, ChangeHint, Interest, Stream
from tailer.core.stream.memory import StreamMemory
from tailer.core.stream.open_turns import EVERY_WORK, OpenTurns
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.telling import Told, tell
from tailer.core.stream.touches import Touches
from tailer.core.stream.watermark import Watermark
from tailer.core.turn.record import TurnRecord
from tailer.flow.parking import Parking
from tailer.flow.records import Checkpoint, OwedShare, StreamBatch
from tailer.flow.scopes import Scopes
from tailer.flow.stream_answers import StreamAnswers

_BEHIND_SECONDS = 15
"""The position of an idle stream moves every ten seconds."""
_STORED_TOUCHES = 500
"""The newest touches that go into a checkpoint: some twenty kilobytes, minutes of an ordinary LibreChat."""


class Backlog:
    """Opens entries for hints, hands out those that are due, closes those that are done. `answers` says how the streams
    are."""

    def __init__(
        self, open_turns: OpenTurns, parking: Parking, *, limit: int, monotonic: Callable[[], float]
    ) -> None:
        self._open_turns = open_turns
        self._parking = parking
        self._limit = limit
        self._monotonic = monotonic
        self._watermarks: dict[Stream, Watermark[EntryKey, StreamPosition]] = {}
        self._saved_seconds: dict[Stream, int | None] = {}
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()
        self._read = asyncio.Event()
        self._memory = StreamMemory()
        self._backfilled: set[EntryKey] = set()
        self._moves: Counter[Stream] = Counter()
        self._taken_seconds: dict[Collection[Interest], float] = {}
        self._touches = Touches()
        self._scopes = Scopes()
        self.answers = StreamAnswers(monotonic)
        self.source_seconds = 0

    def __len__(self) -> int:
        """How many entries are open."""
        return len(self._open_turns)

    @property
    def turns(self) -> OpenTurns:
        """The table of open entries, for reading."""
        return self._open_turns

    def is_started(self, stream: Stream) -> bool:
        """Whether a position of the stream is known."""
        return stream in self._watermarks

    def read_position(self, stream: Stream) -> StreamPosition:
        """How far the stream was read."""
        return self._watermarks[stream].read

    def saved_seconds(self, stream: Stream) -> int | None:
        """When the position at which a stream began was stored, None if that is not known."""
        return self._saved_seconds.get(stream)

    def moves(self, stream: Stream) -> int:
        """A number that changes whenever something of the stream was read or done."""
        return self._moves[stream]

    def oldest_position(self, stream: Stream) -> StreamPosition | None:
        """The position that the oldest open entry of the stream holds, None when nothing is open."""
        watermark = self._watermarks.get(stream)
        return watermark.safe if watermark is not None and watermark.open_count else None

    @property
    def limit(self) -> int:
        """How many entries may be open before reading pauses."""
        return self._limit

    def start(self, stream: Stream, checkpoint: Checkpoint) -> None:
        """Begin a stream at a stored position."""
        self._watermarks[stream] = Watermark(checkpoint.position)
        self._saved_seconds[stream] = checkpoint.saved_seconds
        self._memory.follow(stream, checkpoint.position.cluster_seconds)
        self._touches.restore(checkpoint.touches)

    def is_behind(self) -> bool:
        """Whether a stream has not been read up to the server's time, or was not opened yet."""
        positions = [watermark.read.cluster_seconds for watermark in self._watermarks.values()]
        return not positions or min(positions) < self.source_seconds - _BEHIND_SECONDS

    def checkpoint(self, stream: Stream) -> Checkpoint:
        """The checkpoint that may be stored now: nothing that is open lies before it."""
        return Checkpoint(self._watermarks[stream].safe, self._stored_touches(stream))

    def checkpoints_without(self, entries: Collection[EntryKey]) -> Mapping[Stream, Checkpoint]:
        """The checkpoints that may be stored together with the record that these entries are done.

        An entry whose row changed while it was worked on stays open, and holds its position as before.
        """
        done = frozenset(filter(self._open_turns.would_close, entries))
        return {
            stream: Checkpoint(watermark.safe_without(done), self._stored_touches(stream))
            for stream, watermark in self._watermarks.items()
        }

    def _stored_touches(self, stream: Stream) -> tuple[tuple[DocumentKey, tuple[int, ...]], ...]:
        return tuple(self._touches.recent(_STORED_TOUCHES)) if stream is Stream.MESSAGES else ()

    def take_hints(self, stream: Stream, batch: StreamBatch) -> None:
        """Process a batch: open what it asks for, close what it answers, move the position."""
        watermark = self._watermarks.get(stream)
        if watermark is None:
            watermark = self._watermarks[stream] = Watermark(batch.position)
        now = self._monotonic()
        classify = CLASSIFIERS[stream]
        self._moves[stream] += len(batch.hints)
        for hint, position in batch.hints:
            self._take_hint(hint, classify(hint), watermark, now, batch.source_seconds)
            watermark.advance(position)
        watermark.advance(batch.position)
        self.source_seconds = max(self.source_seconds, batch.source_seconds)
        self.answers.note(stream, batch.source_seconds)
        if batch.hints:
            # An idle stream answers every second, and each lane would look for what it has not brought.
            self._opened.set()
        self._read.set()

    def _take_hint(
        self,
        hint: ChangeHint,
        interest: Interest,
        watermark: Watermark[EntryKey, StreamPosition],
        now: float,
        source_seconds: int,
    ) -> None:
        if interest is Interest.NOTHING:
            return
        if interest is Interest.TOUCH:
            self._touches.note(hint)
            return
        # Cluster time has whole seconds, so an age that could be rounding does not count.
        age = max(0, source_seconds - hint.cluster_seconds - 1)
        key = self._open_turns.open(interest, hint, now, age_seconds=age)
        watermark.open(key)
        self._scopes.forget(key)
        if interest is Interest.RESPONSE and hint.parent_message_id is not None:
            answered = self._open_turns.answer(hint.parent_message_id)
            if answered is not None:
                watermark.close(answered)
                self._scopes.forget(answered)
            self._parking.answer(hint.parent_message_id)

    def scope(self, key: EntryKey) -> frozenset[str] | None:
        """The destinations that an open entry concerns, None for all of them."""
        return self._scopes.of(key)

    def reopen(
        self,
        key: EntryKey,
        message_id: str | None,
        *,
        changed: Collection[str] = (),
        belongs_to: str | None = None,
        only: str | None = None,
    ) -> None:
        """Open an entry that was parked and whose deadline has passed, or that is asked for again.

        `changed` names the fields that are to be looked at if the turn was sent before; `belongs_to` its conversation,
        where no row may be left to tell; `only` a destination that alone is concerned.
        """
        now, again = self._monotonic(), self._widen(key, only)
        self._open_turns.reopen(key, message_id, now, changed=changed, belongs_to=belongs_to, again=again)
        self._opened.set()

    def take_back(self, share: OwedShare, destination: str) -> None:
        """Open an entry for a destination that was away when it was worked on."""
        now = self._monotonic()
        self._widen(share.key, destination)
        self._open_turns.take_back(share.to_entry(now), now)
        # Its age says how long the destination was away, not how fast the tailer is.
        self._backfilled.add(share.key)
        self._opened.set()

    def _widen(self, key: EntryKey, only: str | None) -> bool:
        return self._scopes.widen(key, only, is_open=self._open_turns.is_open(key))

    def close(self, key: EntryKey) -> None:
        """Close an entry, unless its row changed while it was worked on."""
        if not self._open_turns.close(key):
            self._opened.set()
            return
        self._backfilled.discard(key)
        self._scopes.forget(key)
        stream = STREAM_OF_INTEREST.get(key.interest, Stream.MESSAGES)
        if stream in self._watermarks:
            self._watermarks[stream].close(key)
            self._moves[stream] += 1
        self._closed.set()

    def pass_on(self, key: EntryKey, work: Interest, *, changed: Collection[str] = ()) -> None:
        """Keep an entry open for another kind of work, due at once; `changed` names fields to be looked at."""
        self._open_turns.pass_on(key, work, self._monotonic(), changed=changed)
        self._opened.set()

    def awaits_turn(self, document_key: DocumentKey) -> bool:
        """Whether the turn of a response is still to be sent; what comes after it does not count."""
        return self._open_turns.work_of(EntryKey(Interest.RESPONSE, document_key)) is Interest.RESPONSE

    def is_open(self, interest: Interest, document_key: DocumentKey) -> bool:
        """Whether a row is being worked on."""
        return self._open_turns.is_open(EntryKey(interest, document_key))

    def postpone(self, key: EntryKey, *, seconds: float, changed: Collection[str] = ()) -> None:
        """Give an entry back, to be taken again later; `changed` names fields to be looked at then."""
        self._open_turns.release(key, self._monotonic() + seconds, changed=changed)
        self._opened.set()

    def touches_of(self, document_key: DocumentKey) -> tuple[int, ...]:
        """When a question was saved again without a change: where a regenerated answer began is among them."""
        return self._touches.of(document_key)

    def remember(self, stream: Stream, batch: StreamBatch) -> None:
        """Remember the values in a batch, before the batch itself is processed."""
        if not self._memory.is_following(stream):
            self._memory.follow(stream, _begin_of(batch))
        for hint, _ in batch.hints:
            self._memory.note(stream, hint)

    def skip(self, stream: Stream, position: StreamPosition) -> None:
        """Start remembering anew after a stretch of a stream that was never read."""
        self._memory.follow(stream, position.cluster_seconds)

    def told_of(self, entry: Entry, record: TurnRecord) -> Told:
        """What the stream reported about a turn."""
        return tell(self._memory, entry, record)

    async def wait_for_room(self, stream: Stream) -> None:
        """Return once fewer entries are open than the limit; until then the stream counts as paused."""
        self.answers.pause(stream)
        while len(self._open_turns) >= self._limit:
            self._closed.clear()
            await self._closed.wait()
        self.answers.resume(stream)

    async def wait_for_messages(self, stream: Stream, position: StreamPosition) -> None:
        """Return once `messages`, where they are followed, were read up to the time of a position of another stream;
        until then that stream counts as paused."""
        while (
            messages := self._watermarks.get(Stream.MESSAGES)
        ) is not None and messages.read.moment < position.moment:
            self.answers.pause(stream)
            self._read.clear()
            await self._read.wait()
        if self.answers.is_paused(stream):
            self.answers.resume(stream)

    def admit(self, admission: Admission, *, only: str | None = None) -> None:
        """Open what a backfill found, for all destinations or one: due at once, without holding back a position."""
        row = admission.row
        again = self._widen(admission.key, only)
        self._backfilled.add(admission.key)
        made = inserted_seconds(row.key) or self.source_seconds
        self._open_turns.admit(
            admission.key,
            row,
            self._monotonic(),
            deadline_passed=admission.deadline_passed,
            cluster_seconds=made,
            again=again,
        )
        self._opened.set()

    def admit_document(self, key: EntryKey, *, only: str | None = None) -> None:
        """Open a title or spending that a backfill found: due at once, and no position is held back by it."""
        self._backfilled.add(key)
        self.reopen(key, None, only=only)

    def is_backfilled(self, key: EntryKey) -> bool:
        """Whether an open entry was found by a backfill; then its age says nothing about the tailer's speed."""
        return key in self._backfilled

    async def wait_until_closed(self, keys: Sequence[EntryKey]) -> None:
        """Return once none of these is open."""
        left = set(keys)
        while left := {key for key in left if self._open_turns.is_open(key)}:
            self._closed.clear()
            await self._closed.wait()

    async def wait_until_empty(self, *, except_for: Interest) -> None:
        """Return once nothing is open but entries of one kind."""
        while len(self._open_turns) > self._open_turns.count(except_for):
            self._closed.clear()
            await self._closed.wait()

    async def take_due(
        self, works: Collection[Interest] = EVERY_WORK, *, limit: int, gather_seconds: float
    ) -> Sequence[Entry]:
        """Wait for entries to become due for these kinds of work and take up to `limit` of them, in rounds at least
        `gather_seconds` apart."""
        while True:
            due = self._open_turns.next_due(works)
            now = self._monotonic()
            if due is not None and due <= now:
                taken = self._open_turns.take_due(now, limit, works)
                # Since the last round, not from now: what became due while that round was worked on has already waited.
                pause = self._taken_seconds.get(works, -math.inf) + gather_seconds - now
                if len(taken) < limit and pause > 0:
                    await asyncio.sleep(pause)
                    taken += self._open_turns.take_due(self._monotonic(), limit - len(taken), works)
                self._taken_seconds[works] = self._monotonic()
                return taken
            self._opened.clear()
            try:
                async with asyncio.timeout(None if due is None else due - now):
                    await self._opened.wait()
            except TimeoutError:
                continue


def _begin_of(batch: StreamBatch) -> int:
    """The cluster second from which a first batch reports everything."""
    seconds = [hint.cluster_seconds for hint, _ in batch.hints]
    return min([*seconds, batch.position.cluster_seconds])
