"""All stores of one epoch, in memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from tailer.core.backfill import Counts, Job
from tailer.core.identity import DocumentKey, TraceId
from tailer.core.stream.hints import Stream
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.trace.followup import Edit, EditedText, SentTurn
from tailer.core.trace.late import LateMarks
from tailer.flow.records import (
    Batch,
    BatchItem,
    Checkpoint,
    DeadLetter,
    Gap,
    Leftovers,
    OwedShare,
    ParkedTurn,
)
from tailer.settings.destinations import DEFAULT_NAME
from tests.memory.database import ASKED, ExportRecord, MemoryDatabase, StoredGap, StoredLetter


class MemoryState:
    """A `StateStore`: its writes fail once a later epoch has begun. `epoch` is by default that of the database."""

    def __init__(
        self, database: MemoryDatabase, epoch: int | None = None, destination: str = DEFAULT_NAME
    ) -> None:
        self._database = database
        self._held = database.at(destination)
        self._epoch = database.epoch if epoch is None else epoch
        self.sent_loaded: list[int] = []

    def of(self, destination: str) -> "MemoryState":
        return MemoryState(self._database, self._epoch, destination)

    async def load_checkpoint(self, stream: Stream) -> Checkpoint | None:
        await self._database.read()
        return self._database.checkpoints.get(stream)

    async def save_checkpoint(self, stream: Stream, checkpoint: Checkpoint) -> None:
        await self._write("save_checkpoint")
        self._database.checkpoints[stream] = checkpoint

    async def find_exported(self, record_ids: Sequence[str]) -> frozenset[str]:
        await self._database.read()
        return frozenset(record_ids) & self._held.exports.keys()

    async def find_exported_rows(self, record_ids: Sequence[str]) -> Mapping[str, DocumentKey]:
        await self._database.read()
        exports = self._held.exports
        return {item: exports[item].document_key for item in record_ids if item in exports}

    async def load_sent(self, trace_ids: Sequence[TraceId]) -> Mapping[TraceId, SentTurn]:
        await self._database.read()
        return {turn.trace_id: turn for turn in self._sent() if turn.trace_id in trace_ids}

    async def load_sent_by_document(self, keys: Sequence[DocumentKey]) -> Sequence[SentTurn]:
        await self._database.read()
        return [turn for turn in self._sent() if turn.document_key in keys]

    async def load_sent_between(
        self,
        since: datetime,
        until: datetime,
        *,
        ended_milliseconds: int,
        shard: Shard = WHOLE,
        limit: int | None = None,
    ) -> Sequence[SentTurn] | None:
        await self._database.read()
        found = [
            record.sent
            for record in self._held.exports.values()
            if record.sent is not None
            and not record.deleted
            and since <= record.sent_at < until
            and record.sent.end_milliseconds >= ended_milliseconds
            and shard.owns(record.sent.session_id)
        ]
        if limit is not None and len(found) > limit:
            return None
        self.sent_loaded.append(len(found))
        return found

    async def find_traces_by_document(self, keys: Sequence[DocumentKey]) -> Sequence[TraceId]:
        await self._database.read()
        return [
            record.trace_id
            for record_id, record in self._held.exports.items()
            if record.document_key in keys and not record.deleted and record_id == record.trace_id
        ]

    async def record_feedback(self, trace_id: TraceId, digest: str | None) -> None:
        await self._write("record_feedback")
        record = self._held.exports.get(trace_id)
        if record is not None and record.sent is not None:
            record.sent = replace(record.sent, feedback=digest)

    async def record_deleted(self, trace_ids: Sequence[TraceId]) -> None:
        await self._write("record_deleted")
        for trace_id in trace_ids:
            if trace_id in self._held.exports:
                self._held.exports[trace_id].deleted = True

    async def begin_batch(self, batch: Batch) -> bool:
        if len(batch.payload) > self._database.largest_batch_bytes:
            return False
        await self._write("begin_batch")
        # Begun again it is the latest; and of an edit the text is not kept.
        self._held.batches.pop(batch.batch_id, None)
        self._held.batches[batch.batch_id] = replace(batch, items=tuple(map(_without_text, batch.items)))
        return True

    async def finish_batch(
        self,
        batch: Batch,
        delivered: Sequence[BatchItem],
        *,
        letters: Sequence[DeadLetter] = (),
        positions: Mapping[Stream, Checkpoint] | None = None,
    ) -> None:
        await self._write("finish_batch")
        self._database.checkpoints.update(positions or {})
        self._keep(letters)
        for item in delivered:
            if item.edit is not None:
                self._amend(item.probe.trace_id, item.edit)
        for item in delivered:
            if item.late is not None:
                self._amend_late(item.probe.trace_id, item.late)
        for item in delivered:
            record = ExportRecord(item.probe.trace_id, item.document_key, item.sent)
            self._held.exports.setdefault(item.record_id, record)
        self._held.batches.pop(batch.batch_id, None)

    async def pending_elsewhere(self) -> Mapping[str, DocumentKey]:
        await self._database.read()
        return dict(self._database.elsewhere)

    async def pending_batches(self) -> Sequence[Batch]:
        await self._database.read()
        return list(self._held.batches.values())

    async def park(self, turns: Sequence[ParkedTurn]) -> None:
        await self._write("park")
        for turn in turns:
            known = self._database.parked.get(turn.document_key)
            if known is None or known.wait is not turn.wait:
                self._database.parked[turn.document_key] = turn

    async def unpark(self, keys: Sequence[DocumentKey]) -> None:
        await self._write("unpark")
        for key in keys:
            self._database.parked.pop(key, None)

    async def load_parked(self, limit: int) -> Sequence[ParkedTurn]:
        await self._database.read()
        return sorted(self._database.parked.values(), key=lambda turn: turn.deadline_seconds)[:limit]

    async def add_gap(self, gap: Gap) -> None:
        await self._write("add_gap")
        gap_id = f"{gap.stream.value}-{gap.from_seconds}-{gap.to_seconds}"
        self._database.gaps[gap_id] = StoredGap(gap)

    async def unfilled_gaps(self) -> Mapping[str, Gap]:
        await self._database.read()
        return {gap_id: stored.gap for gap_id, stored in self._database.gaps.items() if not stored.filled}

    async def add_job(self, job: Job) -> None:
        await self._write("add_job")
        self._database.jobs.setdefault(job.job_id, job)

    async def next_job(self, destinations: Sequence[str], *, except_for: Collection[str] = ()) -> Job | None:
        await self._database.read()
        return next(
            (
                job
                for job in self._database.jobs.values()
                if not job.is_done
                and job.job_id not in except_for
                and job.destination in (None, *destinations)
            ),
            None,
        )

    async def size_job(self, job_id: str, total_rows: int | None) -> None:
        await self._write("size_job")
        jobs = self._database.jobs
        jobs[job_id] = replace(jobs[job_id], total_rows=total_rows)

    async def advance_job(self, job_id: str, position: DocumentKey, counts: Counts) -> None:
        await self._write("advance_job")
        jobs = self._database.jobs
        jobs[job_id] = replace(jobs[job_id], position=position, counts=counts)

    async def finish_job(self, job_id: str, gap_id: str | None) -> None:
        await self._write("finish_job")
        jobs = self._database.jobs
        jobs[job_id] = replace(jobs[job_id], is_done=True)
        if gap_id in self._database.gaps:
            self._database.gaps[gap_id].filled = True

    async def find_refused(self, record_ids: Sequence[str]) -> frozenset[str]:
        await self._database.read()
        letters = self._held.letters
        return frozenset(
            record_id
            for record_id in record_ids
            if record_id in letters and letters[record_id].letter.chunk is not None
        )

    async def load_replays(self, limit: int, *, except_for: Collection[str] = ()) -> Sequence[DeadLetter]:
        await self._database.read()
        asked = [
            stored.letter
            for record_id, stored in self._held.letters.items()
            if stored.replay == ASKED and record_id not in except_for
        ]
        return asked[:limit]

    async def end_replay(self, record_id: str, outcome: str) -> bool:
        await self._write("end_replay")
        stored = self._held.letters.get(record_id)
        if stored is None or stored.replay != ASKED:
            return False
        stored.replay = outcome
        return True

    async def drop_dead_letters(self, record_ids: Sequence[str]) -> None:
        await self._write("drop_dead_letters")
        for record_id in record_ids:
            self._held.letters.pop(record_id, None)

    async def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        await self._write("add_dead_letters")
        self._keep(letters)

    def _keep(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            kept = letter if letter.item is None else replace(letter, item=_without_text(letter.item))
            stored = self._held.letters.setdefault(letter.record_id, StoredLetter(kept, 0))
            stored.letter, stored.replay, stored.tries = kept, None, stored.tries + 1

    async def let_go_all_but(self, names: Collection[str]) -> Mapping[str, Leftovers]:
        await self._database.read()
        let_go = {}
        for name, held in self._database.destinations.items():
            traces = sum(len(batch.items) for batch in held.batches.values())
            if name not in names and (traces or held.owed):
                await self._write("let_go")
                let_go[name] = Leftovers(traces, len(held.owed))
                held.batches.clear()
                held.owed.clear()
        return let_go

    async def owe(self, shares: Sequence[OwedShare]) -> int:
        if not shares:
            return 0
        await self._write("owe")
        new = 0
        for share in shares:
            known = self._held.owed.get(share.key)
            if known is None:
                new += 1
                self._held.owed[share.key] = replace(share, times=1)
            else:
                self._held.owed[share.key] = replace(
                    share,
                    conversation_id=(share if share.knows_conversation else known).conversation_id,
                    since_seconds=known.since_seconds,
                    changed=known.changed | share.changed,
                    times=known.times + 1,
                )
        return new

    async def load_owed(self, limit: int, *, shard: Shard = WHOLE) -> Sequence[OwedShare]:
        await self._database.read()
        own = [share for share in self._held.owed.values() if shard.owns(share.conversation_id)]
        return sorted(own, key=_age_of)[:limit]

    async def count_owed(self, *, shard: Shard = WHOLE) -> int:
        await self._database.read()
        return sum(1 for share in self._held.owed.values() if shard.owns(share.conversation_id))

    async def settle_owed(self, shares: Sequence[OwedShare], *, since_seconds: int) -> int:
        if not shares:
            return 0
        await self._write("settle_owed")
        forgotten = 0
        for share in shares:
            known = self._held.owed.get(share.key)
            if known is not None and known.times == share.times:
                del self._held.owed[share.key]
                forgotten += 1
            elif known is not None:
                self._held.owed[share.key] = replace(known, since_seconds=since_seconds)
        return forgotten

    async def mask_key(self) -> bytes:
        """Not of the port: what the composition root asks for besides."""
        await self._database.read()
        return b"the key of one deployment in mem"

    async def _write(self, what: str) -> None:
        await self._database.write(what, epoch=self._epoch)

    def _sent(self) -> list[SentTurn]:
        records = self._held.exports.values()
        return [record.sent for record in records if record.sent is not None and not record.deleted]

    def _amend(self, trace_id: TraceId, edit: Edit) -> None:
        """A later edit is not taken back."""
        record = self._held.exports.get(trace_id)
        if record is None or record.sent is None or record.sent.edits > edit.number:
            return
        amended = replace(record.sent, edits=edit.number + 1)
        if edit.which is EditedText.ANSWER:
            record.sent = replace(amended, answer=edit.after)
        else:
            record.sent = replace(amended, question=edit.after)

    def _amend_late(self, trace_id: TraceId, late: LateMarks) -> None:
        record = self._held.exports.get(trace_id)
        if record is None or record.sent is None or record.sent.edits > late.number:
            return
        record.sent = replace(
            record.sent,
            edits=late.number + 1,
            parts=record.sent.parts if late.parts is None else late.parts,
            transactions=record.sent.transactions if late.transactions is None else late.transactions,
        )


def _without_text(item: BatchItem) -> BatchItem:
    return item if item.edit is None else replace(item, edit=replace(item.edit, text=""))


def _age_of(share: OwedShare) -> tuple[int, str, str]:
    return share.since_seconds, share.key.interest.value, share.key.document_key
