"""One collection's change stream, read in whole batches with our own `aggregate` and `getMore`.

The driver's `async for` costs a thread hop per event. It also stalls 31 s on a rolling restart, because its `getMore`
waits for the server that disappeared. Here every command selects the primary anew, and after a failure the stream is
reopened after the last token. The stream is never opened with `resumeAfter`, which does not accept the token of an
invalidate.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from bson import Int64, Timestamp
from motor.motor_asyncio import AsyncIOMotorClientSession
from pymongo.errors import PyMongoError

from tailer.core.stream.hints import ChangeHint, Operation, Stream
from tailer.core.stream.positions import GapReason, StreamPosition
from tailer.core.stream.shard import WHOLE, Shard
from tailer.events import Emit, StreamEnded, StreamFailed, StreamOpened
from tailer.flow.ports import HistoryLost
from tailer.flow.records import StreamBatch
from tailer.mongo.connection import Database, longest_hold_milliseconds
from tailer.mongo.document_keys import TOLERANT
from tailer.mongo.error_codes import Reaction
from tailer.mongo.failures import (
    certificate_trouble,
    classify_failure,
    explain_source_failure,
    failure_cause,
    failure_name,
    gap_reason,
    remedy_for,
)
from tailer.mongo.hint_pipeline import cluster_seconds, event_key, hint_pipeline
from tailer.mongo.quiet import Quiet
from tailer.mongo.resuming import lies_ahead
from tailer.mongo.retrying import BACKOFF
from tailer.mongo.stream_pace import StreamPace
from tailer.mongo.stream_replies import drop_seen, end_token, make_batch, position_of, start_stage
from tailer.retrying import Setback, try_through

_OPENING = "opening the change streams"
_BATCH_SIZE = 500
_FAREWELL_SECONDS = 1.0
"""How long ending a cursor that waits for events may take when the stream is given up."""
_NARROW_PIPELINE: list[dict[str, object]] = [{"$project": {"operationType": 1, "documentKey._id": 1}}]
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_ANY_CHANGE = frozenset({"content"})
"""The change that is assumed for an event whose changed fields are unreadable: a reason to read the row."""


class MongoChangeStream:
    """A `ChangeSource` over one collection of `database`.

    `since` is where a first start begins, as `inspect_source` found it: what is written while the daemon still starts
    belongs to it. Without it, or once it is used, a stream without a position begins at its opening. Where the oplog no
    longer reaches back to `since`, that is a gap like any other. `quiet` is shared by the streams of a term. `proven`
    says that this process has followed the stream before: what an operator must mend is then waited for, and before
    that it is a SourceError.
    """

    def __init__(
        self,
        database: Database,
        stream: Stream,
        emit: Emit,
        since: Timestamp | None = None,
        *,
        shard: Shard = WHOLE,
        quiet: Quiet | None = None,
        proven: bool = False,
    ) -> None:
        self._database = database
        self._stream = stream
        self._pipeline = hint_pipeline(stream, shard)
        self._emit = emit
        self._since = since
        self._proven = proven
        longest = longest_hold_milliseconds(database.client)
        self._pace = StreamPace(stream, quiet or Quiet(), longest_hold_milliseconds=longest)

    @property
    def stream(self) -> Stream:
        """The tailed collection."""
        return self._stream

    async def follow(self, start: StreamPosition | None) -> AsyncIterator[StreamBatch]:
        """Yield batches after `start`, or from now on. Failures that pass are retried; raises HistoryLost and
        SourceError."""
        position = start
        is_checked = start is None
        reaction = Reaction.REOPEN
        fruitless = 0
        while True:
            try:
                if position is not None and not is_checked:
                    await self._refuse_another_servers(position)
                    is_checked = True
                if reaction is Reaction.STEP_OVER and position is not None:
                    batch = await self._step_over(position)
                    position = batch.position
                    yield batch
                answers = 0
                async with aclosing(
                    self._read_from(position, by_time=reaction is Reaction.RESUME_BY_TIME)
                ) as opening:
                    async for batch in opening:
                        position = batch.position
                        yield batch
                        answers += 1
                        if answers > 1:
                            fruitless = 0
                # The server ended the cursor without an error: an invalidate. The successor is opened with the token
                # after it.
                reaction = Reaction.REOPEN
                self._emit(StreamEnded(self._stream))
            except PyMongoError as error:
                reaction = classify_failure(error)
                self._tell_failure(error, reaction)
                if position is None and self._since is not None and reaction is Reaction.HISTORY_LOST:
                    # The start took longer than the oplog reaches back: what was written meanwhile is a gap.
                    position, self._since = StreamPosition(None, self._since.time), None
                refused = position is None and reaction not in (Reaction.REOPEN, Reaction.WAIT)
                if refused or (reaction is Reaction.WAIT and not self._proven):
                    raise explain_source_failure(error, self._subject, _OPENING) from error
                if position is not None and reaction is Reaction.HISTORY_LOST:
                    raise HistoryLost(self._stream, position, gap_reason(error).value) from error
                # Opening succeeds and reading fails: without a pause this loop would run as fast as it can.
                await asyncio.sleep(_pause_seconds(fruitless))
                fruitless += 1

    async def _refuse_another_servers(self, position: StreamPosition) -> None:
        """Raise HistoryLost for a stored position that lies ahead: a stream opens there, and is silent for long."""
        is_ahead = await try_through(
            lambda: lies_ahead(self._database, position),
            passes=self._heals,
            backoff=BACKOFF,
            report=self._report,
        )
        if is_ahead:
            raise HistoryLost(self._stream, position, GapReason.POSITION_AHEAD.value)

    def _tell_failure(self, error: PyMongoError, reaction: Reaction) -> None:
        hint = remedy_for(error) if reaction is Reaction.WAIT else certificate_trouble(error)
        self._emit(
            StreamFailed(self._stream, failure_name(error), reaction.value, failure_cause(error), hint)
        )

    @property
    def _subject(self) -> str:
        return f"{self._database.name}.{self._stream.value}"

    async def _read_from(
        self, position: StreamPosition | None, *, by_time: bool
    ) -> AsyncGenerator[StreamBatch, None]:
        async with await self._database.client.start_session(causal_consistency=False) as session:
            pipeline = self._pipeline
            reply = await self._open(position, session, pipeline, _BATCH_SIZE, by_time=by_time)
            if position is None:
                # Servers that only speak MongoDB's protocol open a stream and cannot resume it: better known at once.
                first = make_batch(reply, reply["cursor"]["firstBatch"])
                reply = await self._reopen(reply, session, pipeline)
                yield first
            self._proven = True
            self._emit(StreamOpened(self._stream, position.cluster_seconds if position is not None else None))
            skip_until = position.token if by_time and position is not None else None
            self._pace.begin()
            async with self._ended_when_given_up(reply["cursor"]["id"]):
                name = "firstBatch"
                while True:
                    cursor = reply["cursor"]
                    events = drop_seen(cursor[name], skip_until)
                    if len(events) < len(cursor[name]):
                        skip_until = None
                    batch, cursor_id, count = make_batch(reply, events), cursor["id"], len(events)
                    if count:
                        self._pace.note_events()
                    # A decoded reply takes megabytes, and a paused stream would hold it until there is room again.
                    del reply, cursor, events
                    yield batch
                    del batch
                    if not cursor_id:
                        return
                    await asyncio.sleep(self._pace.pause_seconds(count))
                    name = "nextBatch"
                    reply = await self._get_more(cursor_id, session, _BATCH_SIZE)

    @asynccontextmanager
    async def _ended_when_given_up(self, cursor_id: int) -> AsyncIterator[None]:
        """Otherwise the server keeps the cursor, and while it waits for events the driver's thread waits too, and the
        process for the thread."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            # A server that is away keeps nothing for long.
            with suppress(PyMongoError, TimeoutError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self._kill_cursor(cursor_id)
            raise

    async def _get_more(
        self, cursor_id: int, session: AsyncIOMotorClientSession, batch_size: int
    ) -> dict[str, Any]:
        reply: dict[str, Any] = await self._database.command(
            {
                "getMore": Int64(cursor_id),
                "collection": self._stream.value,
                "batchSize": batch_size,
                "maxTimeMS": self._pace.ask(),
            },
            codec_options=TOLERANT,
            session=session,
        )
        return reply

    async def _kill_cursor(self, cursor_id: int) -> None:
        await self._database.command({"killCursors": self._stream.value, "cursors": [Int64(cursor_id)]})

    async def _open(
        self,
        position: StreamPosition | None,
        session: AsyncIOMotorClientSession,
        pipeline: Sequence[Mapping[str, object]],
        batch_size: int,
        *,
        by_time: bool = False,
    ) -> dict[str, Any]:
        """Open the stream, however long the servers are away. A missing privilege is waited for if it was there
        before."""
        stage: dict[str, object] = {}
        if position is not None:
            stage |= start_stage(position, by_time=by_time)
        elif self._since is not None:
            stage["startAtOperationTime"] = self._since
        command = {
            "aggregate": self._stream.value,
            "pipeline": [{"$changeStream": stage}, *pipeline],
            "cursor": {"batchSize": batch_size},
        }

        async def run() -> dict[str, Any]:
            reply: dict[str, Any] = await self._database.command(
                command, codec_options=TOLERANT, session=session
            )
            return reply

        opened = await try_through(run, passes=self._heals, backoff=BACKOFF, report=self._report)
        self._since = None
        return opened

    async def _reopen(
        self,
        opened: dict[str, Any],
        session: AsyncIOMotorClientSession,
        pipeline: Sequence[Mapping[str, object]],
    ) -> dict[str, Any]:
        """The same stream again after the token of its first answer; its first cursor is given up."""
        if opened["cursor"]["id"]:
            await self._kill_cursor(opened["cursor"]["id"])
        return await self._open(position_of(end_token(opened)), session, pipeline, _BATCH_SIZE)

    def _heals(self, error: BaseException) -> bool:
        if not isinstance(error, PyMongoError):
            return False
        reaction = classify_failure(error)
        return reaction is Reaction.REOPEN or (reaction is Reaction.WAIT and self._proven)

    def _report(self, setback: Setback[BaseException]) -> None:
        if isinstance(setback.answer, PyMongoError):
            self._tell_failure(setback.answer, classify_failure(setback.answer))

    async def _step_over(self, position: StreamPosition) -> StreamBatch:
        """Read one event with almost nothing of it; its row is read like any other, by its `_id`."""
        async with await self._database.client.start_session(causal_consistency=False) as session:
            reply = await self._open(position, session, _NARROW_PIPELINE, 1)
            name = "firstBatch"
            while not reply["cursor"][name]:
                name = "nextBatch"
                reply = await self._get_more(reply["cursor"]["id"], session, 1)
            event = reply["cursor"][name][0]
            after = position_of(event["_id"]["_data"])
            key = event_key(event)
            hints = []
            if key is not None:
                at = after.cluster_seconds
                hint = ChangeHint(Operation.UPDATE, key, at, None, _ANY_CHANGE, None, None, None)
                hints.append((hint, after))
            return StreamBatch(hints, after, cluster_seconds(reply.get("operationTime")))


def _pause_seconds(fruitless: int) -> float:
    """None after a first failure: elections are short."""
    growth = 2 ** min(fruitless - 1, 6) if fruitless else 0
    return min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * growth)
