"""Assembles the parts of the flow: the one place that says which part gets which."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tailer.core.policy.policies import DeletionPolicy
from tailer.core.stream.hints import Stream
from tailer.core.stream.open_turns import OpenTurns
from tailer.core.stream.positions import Answer
from tailer.core.trace.observations import Trace
from tailer.daemon.destinations import OpenDestination
from tailer.daemon.gauges import Sampler
from tailer.daemon.options import make_mask, make_options_for
from tailer.daemon.outlets import Common, make_outlet
from tailer.daemon.pipeline import Pace, Pipeline
from tailer.daemon.sharing import plan_start
from tailer.events import DestinationForgotten, Emit
from tailer.flow.backfilling import Backfilling, BackfillPace
from tailer.flow.backlog import Backlog
from tailer.flow.checkpointing import Checkpointing
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
from tailer.flow.parking import Parking, Patience
from tailer.flow.ports import ChangeSource, DocumentReader, RowWalk
from tailer.flow.sending.destination_health import Channel
from tailer.flow.shares import Shares
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
    destinations: Sequence[OpenDestination],
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
    for name, left in (await state.let_go_all_but([opened.name for opened in destinations])).items():
        emit(DestinationForgotten(name, left.traces, left.owed))
    shares = Shares(backlog, parking, [opened.name for opened in destinations], emit)
    checkpointing = Checkpointing(backlog, state, emit, monotonic=time.monotonic)
    common = Common(settings, backlog, shares, checkpointing, reader, emit, observers.traces)
    redactions: Counter[str] = Counter()
    mask = await make_mask(settings, state, redactions)
    described = {destination.name: destination for destination in settings.destinations}
    outlets = [
        await make_outlet(
            common,
            opened,
            state.of(opened.name),
            make_options_for(settings, described[opened.name], mask),
        )
        for opened in destinations
    ]
    bench = Workbench(
        backlog=backlog,
        parking=parking,
        reader=reader,
        shares=shares,
        destinations={outlet.destination.name: outlet.destination for outlet in outlets},
        emit=emit,
        records_last=settings.export_record_lifetime,
        shard=settings.shard,
    )
    return Pipeline(
        sources=sources,
        backlog=backlog,
        parking=parking,
        backfilling=Backfilling(
            backlog,
            state,
            {name: destination.state for name, destination in bench.destinations.items()},
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
        lanes=_make_lanes(settings, destinations, bench),
        outlets=outlets,
        checkpointing=checkpointing,
        sampler=Sampler(
            observers.metrics,
            observers.health,
            backlog,
            parking,
            [outlet.destination for outlet in outlets],
            shares,
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
            await plan_start(settings.start, state)
    return backlog


def _make_lanes(
    settings: Settings, destinations: Sequence[OpenDestination], bench: Workbench
) -> Sequence[Lane]:
    def ask(channel: Channel) -> Mapping[str, Asking]:
        return {
            name: Asking(
                channel,
                destination.health,
                destination.presence,
                Setbacks(monotonic=time.monotonic),
                destination.emit,
                monotonic=time.monotonic,
            )
            for name, destination in bench.destinations.items()
        }

    followed = FollowedChanges(
        feedback=settings.feedback,
        edits=settings.edits,
        deletions=settings.deletions is DeletionPolicy.DELETE,
    )
    attachments = {
        opened.name: Attachments(
            opened.media,
            bench.destinations[opened.name].health,
            Setbacks(monotonic=time.monotonic),
            bench.destinations[opened.name].presence,
            bench.destinations[opened.name].options,
            bench.destinations[opened.name].emit,
            monotonic=time.monotonic,
        )
        for opened in destinations
        if opened.media is not None
    }
    return (
        Turns(bench, followed, attachments),
        Titles(bench),
        Spendings(bench),
        Followups(bench, ask(Channel.SCORES), followed),
        Deletions(bench, ask(Channel.DELETIONS), settings.deletions),
    )
