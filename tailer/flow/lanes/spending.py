"""Spending that belongs to no message: one trace for each call of LibreChat's remote API."""

from typing import ClassVar

from tailer.core.identity import TraceId
from tailer.core.stream.hints import Interest
from tailer.core.stream.open_turns import Entry
from tailer.core.trace.export import ExportOptions, export_spending
from tailer.core.trace.observations import Trace
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench


class Spendings(Lane):
    """Transactions, where they are streamed; all transactions of a call lead to the same trace."""

    name: ClassVar[str] = "spending"
    works: ClassVar[tuple[Interest, ...]] = (Interest.SPENDING,)

    def __init__(self, bench: Workbench, options: ExportOptions) -> None:
        super().__init__(bench)
        self._options = options

    async def _work(self, work: Round) -> None:
        entries = work.by_row()
        found = await self._bench.reader.read_spending(list(entries))
        groups: dict[TraceId, list[Entry]] = {}
        traces: dict[TraceId, Trace] = {}
        for key, entry in entries.items():
            spending = found.get(key)
            if spending is None:
                work.close(entry, EntryOutcome.SPENT_IN_CHAT)
                continue
            trace = export_spending(spending, self._options)
            if isinstance(trace, EntryOutcome):
                work.close(entry, trace)
                continue
            work.name(entry, trace.id, trace.message_id)
            groups.setdefault(trace.id, []).append(entry)
            traces.setdefault(trace.id, trace)
        claimed = [trace_id for trace_id, group in groups.items() if self._claim(work, trace_id, group)]
        sent = await self._bench.state.find_exported(claimed) if claimed else frozenset()
        outgoing = []
        for trace_id in claimed:
            first, *others = groups[trace_id]
            if trace_id in sent:
                work.close(first, EntryOutcome.SENT_BEFORE)
            else:
                # The first is the oldest in the stream: it holds the position until the trace is acknowledged.
                outgoing.append(
                    self._bench.packing.pack(first.key, EntryOutcome.API_USAGE, [traces[trace_id]])
                )
            for entry in others:
                work.close(entry, EntryOutcome.SENT_BEFORE)
        await work.hand_over(outgoing)

    def _claim(self, work: Round, trace_id: TraceId, group: list[Entry]) -> bool:
        if work.claim(group[0], {trace_id: group[0].key.document_key}):
            return True
        for entry in group:
            work.postpone(entry)
        return False
