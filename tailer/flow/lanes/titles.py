"""Titles that were stored after their turn was sent: each is a trace of its own, never ahead of its turn."""

from typing import ClassVar

from tailer.core.identity import DocumentKey, TraceId, title_trace_id_beside
from tailer.core.stream.hints import Interest
from tailer.core.stream.open_turns import Entry
from tailer.core.trace.export import ExportOptions, export_title, is_chosen, trace_id_of
from tailer.core.turn.as_it_was import restore
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import TurnRecord
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.sending.outgoing import Outgoing


class Titles(Lane):
    """Handles conversations whose title was stored."""

    name: ClassVar[str] = "titles"
    works: ClassVar[tuple[Interest, ...]] = (Interest.TITLE,)

    def __init__(self, bench: Workbench, options: ExportOptions) -> None:
        super().__init__(bench)
        self._options = options

    async def _work(self, work: Round) -> None:
        entries = await self._claim(work)
        rows = [row for row, _ in entries.values()]
        sent = (
            await self._bench.state.find_exported([_title_trace_id_of(row) for row in rows]) if rows else ()
        )
        wanted = []
        for row, entry in entries.values():
            if _title_trace_id_of(row) in sent:
                work.close(entry, None)
            elif not is_chosen(row.conversation_id, self._options):
                work.close(entry, EntryOutcome.NOT_SAMPLED)
            else:
                wanted.append(row)
        async for group in self._bench.reader.read_turns(wanted):
            made = [self._make(work, entries[row.key][1], record) for row, record in group]
            await work.hand_over([title for title in made if title is not None])

    async def _claim(self, work: Round) -> dict[DocumentKey, tuple[Row, Entry]]:
        """The rows on which titles were billed, with the titles' entries, if no other task is working on them."""
        entries, claimed = work.by_row(), {}
        for key, row in await self._bench.reader.locate_titled(list(entries)):
            entry = entries.pop(key, None)
            if entry is None or not work.keeps(entry, row.conversation_id):
                continue
            trace_id = _title_trace_id_of(row)
            work.name(entry, trace_id, row.message_id)
            # An open turn brings its title along. Ahead of its turn it would be built twice.
            if self._bench.backlog.awaits_turn(row.key) or not work.claim(entry, {trace_id: row.key}):
                work.postpone(entry)
            else:
                claimed[row.key] = (row, entry)
        for entry in entries.values():
            # No title was billed, or its turn is not stored yet and will bring the title along.
            work.close(entry, None)
        return claimed

    def _make(self, work: Round, entry: Entry, record: TurnRecord | None) -> Outgoing | None:
        if record is None:
            work.close(entry, EntryOutcome.DELETED)
            return None
        told = self._bench.backlog.told_of(entry, record)
        title = export_title(restore(record, told), self._options)
        if title is None:
            work.close(entry, EntryOutcome.NO_TITLE)
            return None
        return self._bench.packing.pack(entry.key, EntryOutcome.TITLE, [title])


def _title_trace_id_of(row: Row) -> TraceId:
    return title_trace_id_beside(trace_id_of(row), row.message_id)
