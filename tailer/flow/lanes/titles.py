"""Titles that were stored after their turn was sent: each is a trace of its own, never ahead of its turn."""

from collections.abc import Sequence
from typing import ClassVar, Final

from tailer.core.identity import DocumentKey, TraceId, title_trace_id_beside
from tailer.core.stream.entries import Entry
from tailer.core.stream.hints import Interest
from tailer.core.trace.export import export_title, is_chosen, trace_id_of
from tailer.core.turn.as_it_was import restore
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import TurnRecord
from tailer.flow.destinations import Destination
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import BUSY_SECONDS, Round, Workbench
from tailer.flow.sending.outgoing import Outgoing

_LONGEST_WAIT_SECONDS: Final = 15.0
_REMEMBERED: Final = 5_000
"""Conversations of which it is remembered whose turn their title waits for; all are forgotten when there are more."""


class Titles(Lane):
    """Handles conversations whose title was stored."""

    name: ClassVar[str] = "titles"
    works: ClassVar[tuple[Interest, ...]] = (Interest.TITLE,)

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._turns: dict[DocumentKey, DocumentKey] = {}

    async def _work(self, work: Round) -> None:
        entries = await self._locate(work)
        wanted: dict[DocumentKey, list[Destination]] = {}
        for destination in work.destinations:
            for row in await self._choose(work, list(entries.values()), destination):
                wanted.setdefault(row.key, []).append(destination)
        rows = [row for row, _ in entries.values() if row.key in wanted]
        async for group in self._bench.reader.read_turns(rows):
            for destination in work.destinations:
                made = [
                    self._make(work, entries[row.key][1], record, destination)
                    for row, record in group
                    if destination in wanted[row.key]
                ]
                await work.hand_over([title for title in made if title is not None], at=destination)

    async def _locate(self, work: Round) -> dict[DocumentKey, tuple[Row, Entry]]:
        """The rows on which titles were billed, with the titles' entries, unless their turn is still to be sent."""
        entries, located = work.by_row(), {}
        for key, waiting in list(entries.items()):
            if self._awaits_turn(key):
                work.postpone(waiting, _wait_seconds(waiting))
                del entries[key]
        for key, row in await self._bench.reader.locate_titled(list(entries)) if entries else ():
            entry = entries.pop(key, None)
            if entry is None or not work.keeps(entry, row.conversation_id):
                continue
            work.name(entry, _title_trace_id_of(row), row.message_id)
            # An open turn brings its title along. Ahead of its turn it would be built twice.
            if self._bench.backlog.awaits_turn(row.key):
                self._remember_turn(key, row.key)
                work.postpone(entry, _wait_seconds(entry))
            else:
                located[row.key] = (row, entry)
        for entry in entries.values():
            # No title was billed, or its turn is not stored yet and will bring the title along.
            work.close(entry, None)
        return located

    def _awaits_turn(self, conversation: DocumentKey) -> bool:
        """Whether it is known, without reading anything, that the turn of a title is still to be sent."""
        turn = self._turns.get(conversation)
        return turn is not None and self._bench.backlog.awaits_turn(turn)

    def _remember_turn(self, conversation: DocumentKey, turn: DocumentKey) -> None:
        if len(self._turns) >= _REMEMBERED:
            self._turns.clear()
        self._turns[conversation] = turn

    async def _choose(
        self, work: Round, located: Sequence[tuple[Row, Entry]], destination: Destination
    ) -> Sequence[Row]:
        """The rows whose titles a destination still has to get, claimed."""
        claimed, busy = [], []
        for row, entry in located:
            if not work.is_open(entry, destination):
                continue
            if work.claim(entry, destination, {_title_trace_id_of(row): row.key}):
                claimed.append((row, entry))
            else:
                busy.append((entry, None))
        await work.wait_or_owe(busy, at=destination)
        ids = [_title_trace_id_of(row) for row, _ in claimed]
        sent = await destination.state.find_exported(ids) if ids else frozenset()
        wanted = []
        for row, entry in claimed:
            if _title_trace_id_of(row) in sent:
                work.close(entry, None, at=destination)
            elif not is_chosen(row.conversation_id, destination.options):
                work.close(entry, EntryOutcome.NOT_SAMPLED, at=destination)
            elif entry.may_be_forgotten(self._bench.records_last):
                # Renamed long after: what the title cost was sent when it was made.
                work.close(entry, EntryOutcome.FORGOTTEN, at=destination)
            else:
                wanted.append(row)
        return wanted

    def _make(
        self, work: Round, entry: Entry, record: TurnRecord | None, destination: Destination
    ) -> Outgoing | None:
        if record is None:
            work.close(entry, EntryOutcome.DELETED, at=destination)
            return None
        told = self._bench.backlog.told_of(entry, record)
        title = export_title(restore(record, told), destination.options)
        if title is None:
            work.close(entry, EntryOutcome.NO_TITLE, at=destination)
            return None
        return destination.packing.pack(entry.key, EntryOutcome.TITLE, [title])


def _wait_seconds(entry: Entry) -> float:
    """How long a title waits for its turn before it is looked at again: as long as it has waited. In a backlog
    thousands wait, and nearly all of them are closed by their turns."""
    waited = entry.due_seconds - entry.opened_seconds
    return min(max(BUSY_SECONDS, waited), _LONGEST_WAIT_SECONDS)


def _title_trace_id_of(row: Row) -> TraceId:
    return title_trace_id_beside(trace_id_of(row), row.message_id)
