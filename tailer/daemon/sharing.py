"""What a shard does before its first work of a term: it begins where the division began, and adopts parked turns."""

from collections.abc import Sequence

from tailer.core.backfill import START_JOB, Job, JobReason, Start, StartMode
from tailer.core.identity import DocumentKey
from tailer.core.layout import Layout
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.shard import Shard
from tailer.flow.ports import DocumentReader
from tailer.flow.records import Checkpoint
from tailer.mongo.state import MongoState

_ORPHANS = 1000


async def plan_start(start: Start, state: MongoState) -> None:
    """A first start's backfill, stored before any position is, so that a crash in between loses nothing."""
    if start.mode is not StartMode.NOW:
        since = None if start.since is None else int(start.since.timestamp())
        await state.add_job(Job(START_JOB, JobReason.START, since_seconds=since))


async def begin_shard(state: MongoState, streams: Sequence[Stream], layout: Layout, start: Start) -> None:
    """Store the beginning of the division as the position of a shard that has none, whenever it first runs: what was
    written before that is its work too."""
    if layout.total == 1 or layout.began_seconds is None:
        return
    if any([await state.load_checkpoint(stream) is not None for stream in streams]):
        return
    await plan_start(start, state)
    for stream in streams:
        await state.save_checkpoint(stream, Checkpoint(StreamPosition(None, layout.began_seconds)))


async def adopt_parked(state: MongoState, reader: DocumentReader, layout: Layout, shard: Shard) -> None:
    """Take over what shards of an earlier division had parked, as far as it is of this shard's conversations. A row
    that is gone is the first shard's."""
    after: DocumentKey | None = None
    while orphans := await state.find_orphans(layout.shards, after, _ORPHANS):
        conversations = {row.key: row.conversation_id for row in await reader.locate(orphans)}
        await state.adopt([key for key in orphans if shard.owns(conversations.get(key))])
        after = orphans[-1]
