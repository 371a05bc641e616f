"""Puts the parts of the flow together: the one place that says which part gets which."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from tailer.core.backfill import START_JOB, Job, JobReason, Start, StartMode
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import Policies
from tailer.core.policy.users import UserNaming
from tailer.core.stream.hints import Stream
from tailer.core.stream.open_turns import OpenTurns
from tailer.core.stream.positions import Answer
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.content_policy import ContentPolicy, drop_content, mask_content
from tailer.core.trace.export import ExportOptions
from tailer.core.trace.observations import Trace
from tailer.daemon.destinations import Destination
from tailer.daemon.gauges import Sampler
from tailer.daemon.pipeline import Pace, Pipeline
from tailer.events import Emit
from tailer.flow.aftercare import Aftercare, AftercareOptions
from tailer.flow.assembly import Assembly
from tailer.flow.backfilling import Backfilling, BackfillPace
from tailer.flow.backlog import Backlog
from tailer.flow.checkpointing import Checkpointing
from tailer.flow.intake import Intake
from tailer.flow.parking import Parking, Patience
from tailer.flow.ports import ChangeSource, DocumentReader, RowWalk
from tailer.flow.sending.batching import BatchLimits
from tailer.flow.sending.delivery import Delivery
from tailer.flow.sending.replays import Replay
from tailer.flow.sending.transmission import Transmission
from tailer.health import Health
from tailer.metrics import Metrics
from tailer.mongo.state import MongoState
from tailer.settings import Settings


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told what happens: every event, and, for the demo, every acknowledged trace."""

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
    """All tasks of a run; reads the state of earlier runs, and starts nothing. `began` is the server's first answer."""
    emit, streams = observers.emit, [source.stream for source in sources]
    parking = Parking(
        state, Patience(settings.unanswered_after, settings.unfinished_after, settings.approval_time)
    )
    await parking.load()
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
    in_flight: set[str] = set()
    transmission = Transmission(destination.sink, emit, lookup=destination.lookup, monotonic=time.monotonic)
    delivery = Delivery(
        backlog,
        parking,
        state,
        destination.sink,
        transmission,
        BatchLimits(settings.batch_traces, settings.batch_bytes),
        in_flight,
        emit,
        new_id=lambda: uuid4().hex,
        wall_clock=time.time,
        observe_traces=observers.traces,
    )
    unfinished = await delivery.claim_unfinished() if settings.langfuse_enabled else []
    redactions: Counter[str] = Counter()
    options = await _make_options(settings, state, redactions)
    aftercare = Aftercare(
        backlog,
        reader,
        state,
        destination.sink,
        destination.annotations,
        AftercareOptions(settings.feedback, settings.edits, settings.deletions, options.mask),
        in_flight,
        emit,
        hand_over=delivery.hand_over,
    )
    assembly = Assembly(
        backlog,
        parking,
        reader,
        state,
        destination.sink,
        options,
        aftercare,
        destination.media,
        in_flight,
        emit,
        hand_over=delivery.hand_over,
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
        ),
        intake=Intake(backlog, state, emit, open_limit=settings.open_turns),
        assembly=assembly,
        delivery=delivery,
        replay=Replay(backlog, state, delivery, emit),
        unfinished=unfinished,
        checkpointing=Checkpointing(backlog, state, emit, monotonic=time.monotonic),
        sampler=Sampler(
            observers.metrics,
            observers.health,
            backlog,
            parking,
            delivery,
            transmission,
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


async def _plan_start(start: Start, state: MongoState) -> None:
    """A first start's backfill, written down before any position is: a crash in between loses nothing."""
    if start.mode is not StartMode.NOW:
        since = None if start.since is None else int(start.since.timestamp())
        await state.add_job(Job(START_JOB, JobReason.START, since_seconds=since))


def needs_users(settings: Settings) -> bool:
    """Whether any setting asks for more of a user than the id."""
    return (
        _make_naming(settings).needs_users
        or _make_policies(settings).needs_users
        or "role" in settings.tag_facts
    )


async def _make_options(settings: Settings, state: MongoState, redactions: Counter[str]) -> ExportOptions:
    return replace(make_plain_options(settings), mask=await _make_mask(settings, state, redactions))


def make_plain_options(settings: Settings) -> ExportOptions:
    """What is exported, for those who show none of it: masked content is dropped instead."""
    return ExportOptions(
        bounds=Bounds(field_bytes=settings.field_bytes, history_bytes=settings.history_bytes),
        tags=settings.tags,
        tag_facts=settings.tag_facts,
        sample_rate=settings.langfuse_sample_rate,
        policies=_make_policies(settings),
        naming=_make_naming(settings),
        mask=drop_content,
    )


def _make_policies(settings: Settings) -> Policies:
    return Policies(
        temporary=settings.temporary,
        copies=settings.copies,
        native=settings.native,
        content=settings.content,
        content_rules=settings.content_rules,
        allow=settings.allow,
        deny=settings.deny,
    )


def _make_naming(settings: Settings) -> UserNaming:
    secret = settings.user_id_secret
    return UserNaming(settings.user_id, secret.get_secret_value().encode() if secret is not None else b"")


async def _make_mask(settings: Settings, state: MongoState, redactions: Counter[str]) -> ContentPolicy:
    """The masking of this deployment, counted in `redactions`; its key is kept in the state database."""
    rules, key = compile_rules(settings.mask_patterns, settings.mask_fields), await state.mask_key()
    redactions.update(dict.fromkeys(rules.rule_names, 0))
    return mask_content(lambda: Masker(rules, key, redactions))
