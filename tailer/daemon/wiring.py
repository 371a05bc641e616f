"""Assembles the parts of the flow: the one place that says which part gets which."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from tailer.core.backfill import START_JOB, Job, JobReason, Start, StartMode
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.stream.hints import Stream
from tailer.core.stream.open_turns import OpenTurns
from tailer.core.stream.positions import Answer
from tailer.core.trace.export import ExportOptions
from tailer.core.trace.observations import Trace
from tailer.daemon.destinations import Destination
from tailer.daemon.gauges import Sampler
from tailer.daemon.options import make_options
from tailer.daemon.pipeline import Pace, Pipeline
from tailer.events import Emit
from tailer.flow.backfilling import Backfilling, BackfillPace
from tailer.flow.backlog import Backlog
from tailer.flow.checkpointing import Checkpointing
from tailer.flow.in_flight import InFlight
from tailer.flow.intake import Intake
from tailer.flow.lanes.asking import Asking
from tailer.flow.lanes.attachments import Attachments
from tailer.flow.lanes.deletions import Deletions
from tailer.flow.lanes.followups import Followups
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Workbench
from tailer.flow.lanes.setbacks import Setbacks
from tailer.flow.lanes.spending import Spendings
from tailer.flow.lanes.titles import Titles
from tailer.flow.lanes.turns import FollowedChanges, Turns
from tailer.flow.late_looks import LateLooks
from tailer.flow.parking import Parking, Patience
from tailer.flow.ports import ChangeSource, DocumentReader, RowWalk
from tailer.flow.sending.batch import BatchLimits
from tailer.flow.sending.delivery import Delivery
from tailer.flow.sending.destination_health import Channel, DestinationHealth
from tailer.flow.sending.letter_owners import LetterOwners
from tailer.flow.sending.outgoing import Packing
from tailer.flow.sending.replays import Replay
from tailer.flow.sending.spot_checks import SpotChecks
from tailer.flow.sending.transmission import Transmission
from tailer.health import Health
from tailer.metrics import Metrics
from tailer.mongo.state import MongoState
from tailer.settings import Settings


@dataclass(frozen=True, slots=True)
class Observers:
    """Who receives what happens: every event, and, for the demo, every acknowledged trace."""

    emit: Emit
    traces: Callable[[Sequence[Trace]], None] | None
    metrics: Metrics
    health: Health


async def make_pipeline(
    settings: Settings,
    state: MongoState,
    destination: Destination,
    reader: DocumentReader,
    walk: RowWalk,
    sources: Sequence[ChangeSource],
    observers: Observers,
    began: Answer,
) -> Pipeline:
    """All tasks of a run. It reads the state of earlier runs, and starts nothing. `began` is the server's first
    answer."""
    emit, streams = observers.emit, [source.stream for source in sources]
    parking = Parking(
        state, Patience(settings.unanswered_after, settings.unfinished_after, settings.approval_time)
    )
    await parking.load()
    backlog = await _make_backlog(settings, state, streams, parking)
    health = DestinationHealth(emit, monotonic=time.monotonic)
    in_flight = InFlight()
    spot_checks = None
    if destination.is_server:
        spot_checks = SpotChecks(destination.sink, state, emit, monotonic=time.monotonic)
    delivery = Delivery(
        backlog,
        parking,
        state,
        destination.sink,
        Transmission(destination.sink, health, emit, lookup=destination.lookup, monotonic=time.monotonic),
        BatchLimits(settings.batch_traces, settings.batch_bytes),
        in_flight,
        emit,
        new_id=lambda: uuid4().hex,
        wall_clock=time.time,
        observe_traces=observers.traces,
        spot_checks=spot_checks,
    )
    unfinished = await delivery.claim_unfinished() if settings.langfuse_enabled else []
    redactions: Counter[str] = Counter()
    bench = Workbench(
        backlog=backlog,
        parking=parking,
        reader=reader,
        state=state,
        in_flight=in_flight,
        packing=Packing(destination.sink, keep_traces=observers.traces is not None),
        delivery=delivery,
        emit=emit,
        shard=settings.shard,
    )
    return Pipeline(
        sources=sources,
        backlog=backlog,
        parking=parking,
        backfilling=Backfilling(
            backlog,
            state,
            walk,
            BackfillPace(
                turns_per_second=settings.backfill_rate,
                unanswered_seconds=int(settings.unanswered_after.total_seconds()),
                open_limit=settings.open_turns,
            ),
            emit,
            monotonic=time.monotonic,
            shard=settings.shard,
        ),
        intake=Intake(backlog, state, emit, open_limit=settings.open_turns, shard=settings.shard),
        lanes=_make_lanes(
            settings, destination, bench, health, await make_options(settings, state, redactions)
        ),
        delivery=delivery,
        replay=Replay(backlog, state, delivery, emit, LetterOwners(reader, state, settings.shard).choose_own),
        spot_checks=spot_checks,
        late_looks=LateLooks(backlog, reader, state, wall_clock=time.time, shard=settings.shard),
        unfinished=unfinished,
        checkpointing=Checkpointing(backlog, state, emit, monotonic=time.monotonic),
        sampler=Sampler(
            observers.metrics,
            observers.health,
            backlog,
            parking,
            delivery,
            health,
            redactions,
            streams,
            began,
        ),
        health=observers.health,
        emit=emit,
        pace=Pace(
            gather=settings.langfuse_flush_interval,
            checkpoint=settings.checkpoint_interval,
            senders=settings.concurrent_requests,
            sending=settings.langfuse_enabled,
        ),
    )


async def _make_backlog(
    settings: Settings, state: MongoState, streams: Sequence[Stream], parking: Parking
) -> Backlog:
    """The backlog at the stored positions; without any, a first start's backfill is planned."""
    backlog = Backlog(
        OpenTurns(
            settle_seconds=settings.settle_time.total_seconds(),
            park_seconds=settings.park_after.total_seconds(),
        ),
        parking,
        limit=settings.open_turns,
        monotonic=time.monotonic,
    )
    for stream in streams:
        checkpoint = await state.load_checkpoint(stream)
        if checkpoint is not None:
            backlog.start(stream, checkpoint)
        elif stream is Stream.MESSAGES:
            await _plan_start(settings.start, state)
    return backlog


def _make_lanes(
    settings: Settings,
    destination: Destination,
    bench: Workbench,
    health: DestinationHealth,
    options: ExportOptions,
) -> Sequence[Lane]:
    def ask(channel: Channel) -> Asking:
        return Asking(channel, health, Setbacks(monotonic=time.monotonic), bench.emit)

    followed = FollowedChanges(
        feedback=settings.feedback,
        edits=settings.edits,
        deletions=settings.deletions is DeletionPolicy.DELETE,
    )
    attachments = None
    if destination.media is not None:
        attachments = Attachments(
            destination.media,
            health,
            Setbacks(monotonic=time.monotonic),
            options,
            bench.emit,
        )
    return (
        Turns(bench, options, followed, attachments),
        Titles(bench, options),
        Spendings(bench, options),
        Followups(bench, destination.followups, ask(Channel.SCORES), followed, options.mask),
        Deletions(bench, destination.followups, ask(Channel.DELETIONS), settings.deletions),
    )


async def _plan_start(start: Start, state: MongoState) -> None:
    """A first start's backfill, stored before any position is, so that a crash in between loses nothing."""
    if start.mode is not StartMode.NOW:
        since = None if start.since is None else int(start.since.timestamp())
        await state.add_job(Job(START_JOB, JobReason.START, since_seconds=since))
