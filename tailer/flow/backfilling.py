"""Works through backfill jobs beside the streams, which come first: chunk by chunk, slowly, resumable at every chunk.

The position of a job moves only when a whole chunk is done. After a crash one chunk is walked again, and the export
records keep it from being counted twice.

A job that breaks the code is reported and left, and the others continue; the next run tries it again. An error about a
server or a setting is a TailerError and ends the daemon, as everywhere.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tailer.core.backfill import INTEREST_OF_WALK, Counts, Job, choose_admissions, plan_gap
from tailer.core.identity import DocumentKey, TraceId, inserted_seconds
from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Interest, Stream
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.trace.export import trace_id_of
from tailer.core.turn.readback import Row
from tailer.errors import TailerError
from tailer.events import BackfillAdvanced, BackfillBroken, BackfillDone, BackfillStarted, Emit, GapsLeft
from tailer.flow.backlog import Backlog
from tailer.flow.ports import RowWalk
from tailer.flow.stores import ExportStore, SharedStore

_CHUNK_ROWS = 200
"""Rows read at once: few enough to be done within seconds, and a crash repeats no more than these."""
_LOOK_SECONDS = 2.0
_IDLE_LOOK_SECONDS = 5.0
"""Between two looks for gaps and jobs while there are none."""
"""How often requests for a backfill are looked up, and how often a stream that is behind is checked."""
_SHARE_OF_OPEN_TURNS = 4
"""A chunk waits while more than this fraction (one in so many) of the allowed open turns is open: the streams need the
room."""
_WALKED_ROW_COST = 0.05
"""The cost of reading the ids of a row, as a share of the cost of a turn."""


@dataclass(frozen=True, slots=True)
class BackfillPace:
    """How gently: the most turns per second, and the age from which a question counts as unanswered."""

    turns_per_second: float
    unanswered_seconds: int
    open_limit: int


class Backfilling:
    """The one task that walks collections. `records` say what was sent, by destination."""

    def __init__(
        self,
        backlog: Backlog,
        state: SharedStore,
        records: Mapping[str, ExportStore],
        walk: RowWalk,
        pace: BackfillPace,
        emit: Emit,
        *,
        monotonic: Callable[[], float],
        shard: Shard = WHOLE,
    ) -> None:
        self._shard = shard
        self._backlog = backlog
        self._state = state
        self._records = records
        self._walk = walk
        self._pace = pace
        self._emit = emit
        self._monotonic = monotonic
        self._broken: set[str] = set()

    async def run(self) -> None:
        """Do one job after another, for ever."""
        while True:
            await self._plan_gaps()
            job = await self._state.next_job(list(self._records), except_for=self._broken)
            if job is None:
                await asyncio.sleep(_IDLE_LOOK_SECONDS)
            else:
                await self._try(job)

    async def _try(self, job: Job) -> None:
        try:
            await self._do(job)
        except TailerError:
            raise
        except Exception as error:  # noqa: BLE001 - one job is what breaks, and it is reported
            self._broken.add(job.job_id)
            self._emit(BackfillBroken(job.job_id, type(error).__name__))

    async def _plan_gaps(self) -> None:
        """Plan a job for every gap that has none, including those that a crash left without one."""
        gaps = await self._state.unfilled_gaps()
        self._emit(GapsLeft(len(gaps)))
        # Turns first: a title that comes after its turn goes with it.
        for gap_id, gap in sorted(gaps.items(), key=lambda item: item[1].stream is not Stream.MESSAGES):
            job = plan_gap(gap_id, gap.stream, from_seconds=gap.from_seconds, to_seconds=gap.to_seconds)
            await self._state.add_job(job)

    async def _do(self, job: Job) -> None:
        self._emit(BackfillStarted(job.job_id, job.reason.value, resumed=job.position is not None))
        if job.total_rows is None:
            total = await self._walk.count(job)
            await self._state.size_job(job.job_id, total)
        else:
            total = job.total_rows
        counts, position = job.counts, job.position
        self._tell_progress(Counts(), _left(total, counts), position)
        while True:
            await self._wait_for_room()
            began = self._monotonic()
            chunk = await self._walk.read(job, position, _CHUNK_ROWS)
            if chunk.last is None:
                break
            if job.stream in INTEREST_OF_WALK:
                done, admitted = await self._do_documents(
                    INTEREST_OF_WALK[job.stream], chunk.keys, job.destination
                )
            else:
                done, admitted = await self._do_chunk(chunk.rows, chunk.rows_walked, job.destination)
            counts, position = counts + done, chunk.last
            await self._state.advance_job(job.job_id, position, counts)
            self._tell_progress(done, _left(total, counts), position)
            cost = admitted + chunk.rows_walked * _WALKED_ROW_COST
            await asyncio.sleep(max(0.0, began + cost / self._pace.turns_per_second - self._monotonic()))
        await self._state.finish_job(job.job_id, job.gap_id)
        self._emit(BackfillDone(job.job_id, counts.rows, counts.known, counts.sent, counts.left_out))

    def _tell_progress(self, done: Counts, remaining: int | None, position: DocumentKey | None) -> None:
        made = None if position is None else inserted_seconds(position)
        self._emit(BackfillAdvanced(done.rows, done.sent, remaining, made))

    async def _do_chunk(
        self, walked: Sequence[Row], rows_walked: int, only: str | None
    ) -> tuple[Counts, int]:
        rows = [row for row in walked if self._shard.owns(row.conversation_id)]
        trace_ids = [trace_id_of(row) for row in rows]
        before = await self._find_exported(trace_ids, only)
        known = frozenset(trace_ids).intersection(*before)
        admissions = list(
            choose_admissions(
                rows,
                known=known,
                now_seconds=self._backlog.source_seconds,
                unanswered_seconds=self._pace.unanswered_seconds,
            )
        )
        for admission in admissions:
            self._backlog.admit(admission, only=only)
        await self._backlog.wait_until_closed([admission.key for admission in admissions])
        after = await self._find_exported([trace_id_of(admission.row) for admission in admissions], only)
        arrived = frozenset[str]().union(*(new - old for old, new in zip(before, after, strict=True)))
        counts = Counts(rows_walked, len(known), len(arrived), len(admissions) - len(arrived))
        return counts, len(admissions)

    async def _do_documents(
        self, interest: Interest, keys: Sequence[DocumentKey], only: str | None
    ) -> tuple[Counts, int]:
        """Titles and spending: their lanes tell which documents give a trace that was not sent before."""
        known = await self._count_traces(keys, only)
        entries = [EntryKey(interest, key) for key in keys]
        for entry in entries:
            self._backlog.admit_document(entry, only=only)
        await self._backlog.wait_until_closed(entries)
        if self._shard.index:
            # Whose document it was, its lane has found out; the first shard counts for all.
            return Counts(rows=len(keys)), len(keys)
        sent = max(0, await self._count_traces(keys, only) - known)
        return Counts(rows=len(keys), known=known, sent=sent), len(keys)

    async def _find_exported(self, trace_ids: Sequence[TraceId], only: str | None) -> list[frozenset[str]]:
        """Which of these each destination has."""
        return [await records.find_exported(trace_ids) for records in self._records_of(only)]

    async def _count_traces(self, keys: Sequence[DocumentKey], only: str | None) -> int:
        """How many traces of documents the destinations have."""
        return sum([len(await records.find_traces_by_document(keys)) for records in self._records_of(only)])

    def _records_of(self, only: str | None) -> Sequence[ExportStore]:
        return list(self._records.values()) if only is None else [self._records[only]]

    async def _wait_for_room(self) -> None:
        while not self._has_room():  # noqa: ASYNC110 - a stream that catches up sends no signal
            await asyncio.sleep(_LOOK_SECONDS)

    def _has_room(self) -> bool:
        backlog, limit = self._backlog, self._pace.open_limit
        return not backlog.is_behind() and len(backlog) * _SHARE_OF_OPEN_TURNS <= limit


def _left(total_rows: int | None, counts: Counts) -> int | None:
    """Rows still to walk; never below 0, although rows may come after the counting."""
    return None if total_rows is None else max(0, total_rows - counts.rows)
