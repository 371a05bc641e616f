"""Requests backfills, reports their progress, and does them if no daemon is running. The work of `tailer backfill`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from tailer.core.backfill import Job, JobReason
from tailer.core.identity import LAST_SECOND, TraceId
from tailer.core.policy.policies import is_sampled
from tailer.core.trace.export import trace_id_of
from tailer.daemon.daemon import Daemon
from tailer.daemon.supervision import Shutdown
from tailer.errors import RequestRefused
from tailer.events import BackfillBroken, Event
from tailer.logs import LogLevel, LogWriter
from tailer.mongo.collections import Collections
from tailer.mongo.connection import Database
from tailer.mongo.resuming import server_seconds
from tailer.mongo.state import StateDatabase
from tailer.mongo.state.layout import read_layout
from tailer.mongo.state.requests import ask_for_backfill
from tailer.mongo.state.survey import find_asked_job, find_exported, look_at_job
from tailer.mongo.walk import MongoWalk
from tailer.operations.instances import find_active_shards
from tailer.operations.naming import choose_destinations
from tailer.operations.opening import ignore_event, open_both
from tailer.settings import Settings
from tailer.settings.destinations import DestinationSettings

_CHUNK_ROWS = 1000
_ASKING = "asking for a backfill"


@dataclass(frozen=True, slots=True)
class Request:
    """The rows to walk. Times are inclusive, None without a limit. `destination` alone gets what is found, None stands
    for all of them."""

    since: datetime | None = None
    until: datetime | None = None
    conversation_id: str | None = None
    destination: str | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a backfill would find: rows, the responses among them, those sent before, those of conversations outside the
    sample, and those that would be examined."""

    rows: int
    responses: int
    known: int
    not_sampled: int
    to_look_at: int


class BackfillDesk:
    """The backfills of one tailer."""

    def __init__(self, settings: Settings, source: Database, state: StateDatabase) -> None:
        self._settings = settings
        self._source = source
        self._state = state
        self._walk = MongoWalk(source, Collections(source, ignore_event))

    async def ask(self, request: Request) -> Job:
        """The job of a request: an unfinished one for the same rows, or a new one. Raises RequestRefused if the times
        hold nothing, if no destination has the name, and if sending is off."""
        choose_destinations(self._settings, request.destination)
        if not self._settings.langfuse_enabled:
            raise RequestRefused(
                operation=_ASKING,
                subject="LANGFUSE_ENABLED=false",
                hint="nothing is sent, so it would never end; set it to true, or count with --dry-run",
            )
        now = await server_seconds(self._source)
        job = make_job(request, now, operation=_ASKING)
        until = None if request.until is None else job.until_seconds
        found = await find_asked_job(self._state, job, until_seconds=until)
        if found is not None:
            return found
        await ask_for_backfill(self._state, job)
        return job

    async def look_at(self, job_id: str) -> Job:
        """The present state of a job."""
        found = await look_at_job(self._state, job_id)
        if found is None:
            raise RequestRefused(
                operation="looking at the backfill", subject=job_id, hint="it was removed: ask again"
            )
        return found

    async def estimate(self, request: Request) -> Estimate:
        """Walk the rows of a request without opening anything. Raises RequestRefused if no destination has the name, or
        if the times hold nothing."""
        destinations = choose_destinations(self._settings, request.destination)
        job = make_job(request, await server_seconds(self._source), operation="counting for a backfill")
        estimate = Estimate(0, 0, 0, 0, 0)
        position = None
        while True:
            chunk = await self._walk.read(job, position, _CHUNK_ROWS)
            if chunk.last is None:
                return estimate
            position = chunk.last
            responses = [row for row in chunk.rows if not row.created_by_user]
            known = len(await self._find_known([trace_id_of(row) for row in responses], destinations))
            # A conversation that a higher rate leaves out is left out by every lower one too.
            rate = max(destination.choices.sample_rate for destination in destinations)
            left_out = sum(not is_sampled(row.conversation_id, rate) for row in responses)
            estimate = replace(
                estimate,
                rows=estimate.rows + chunk.rows_walked,
                responses=estimate.responses + len(responses),
                known=estimate.known + known,
                not_sampled=estimate.not_sampled + left_out,
                to_look_at=estimate.to_look_at + max(0, len(responses) - known - left_out),
            )

    async def _find_known(
        self, trace_ids: Sequence[TraceId], destinations: Sequence[DestinationSettings]
    ) -> frozenset[str]:
        """The traces that every one of the destinations has."""
        found = [await find_exported(self._state, trace_ids, each.name) for each in destinations]
        return frozenset(trace_ids).intersection(*found)

    async def has_daemon(self) -> bool:
        """Whether an active instance does the job."""
        active = await find_active_shards(self._state, self._settings.lease_time)
        return any(active.values())

    @asynccontextmanager
    async def working(self, job_id: str) -> AsyncIterator[asyncio.Task[int]]:
        """A daemon for as long as the block lasts, or until the job breaks it. Whatever else it does is what any daemon
        would do.

        Raises RequestRefused where the work is divided, because one daemon would do a part of it.
        """
        layout = await read_layout(self._state)
        if layout.total > 1 or not self._settings.shard.is_whole:
            raise RequestRefused(
                operation="doing the backfill here",
                subject=f"a state of {layout.total} shards, with TAILER_TOTAL_SHARDS={self._settings.total_shards}",
                hint="no instance of any shard is running: start them; they do it, because it stays asked for",
            )
        settings = self._settings.model_copy(update={"http_port": 0, "http_host": "127.0.0.1"})
        shutdown = Shutdown()
        log = LogWriter(sys.stderr, settings.log_format, LogLevel.WARNING)

        def end_with_job(event: Event) -> None:
            if isinstance(event, BackfillBroken) and event.job_id == job_id:
                shutdown.request()

        task = asyncio.create_task(Daemon(settings, log, end_with_job).run(shutdown), name="daemon")
        try:
            yield task
        finally:
            shutdown.request()
            await asyncio.wait({task})


@asynccontextmanager
async def open_backfills(settings: Settings) -> AsyncIterator[BackfillDesk]:
    """The desk over connections of its own; raises SourceError where MongoDB cannot be read."""
    async with open_both(settings, command="backfill") as (source, state):
        yield BackfillDesk(settings, source, state)


def make_job(request: Request, now_seconds: int, *, operation: str) -> Job:
    """The walk of a request; without an end it goes up to now. Raises RequestRefused, in the name of the operation, if
    no row can lie in the stretch."""
    since = None if request.since is None else int(request.since.timestamp())
    # What is stored must be a time that an `_id` can hold.
    until = now_seconds if request.until is None else min(int(request.until.timestamp()), LAST_SECOND)
    is_conversation = request.conversation_id is not None
    if since is not None and not is_conversation:
        if since > now_seconds:
            raise _refuse(operation, request.since, "it lies in the future")
        if since > until:
            raise _refuse(operation, request.since, "it comes after --until")
    return Job(
        job_id=f"asked-{uuid4().hex[:12]}",
        reason=JobReason.ASKED,
        since_seconds=since,
        # Without a limit at the beginning rows are walked whose `_id` holds no time, so there is none at the end.
        until_seconds=None if is_conversation or (request.since is None and request.until is None) else until,
        conversation_id=request.conversation_id,
        destination=request.destination,
    )


def _refuse(operation: str, moment: datetime | None, reason: str) -> RequestRefused:
    return RequestRefused(
        operation=operation,
        subject="--since" if moment is None else f"--since {moment.isoformat()}",
        hint=f"{reason}: no row can lie in this stretch",
    )
