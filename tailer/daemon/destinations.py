"""Opens the destinations that the settings name, and proves them before anything is read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import assert_never

from tailer.core.trace.otlp import SpanContext
from tailer.daemon.ways import file_remedy, langfuse_access, langfuse_credentials, otlp_options
from tailer.errors import DestinationError
from tailer.events import (
    DestinationAway,
    DestinationProven,
    DestinationRefused,
    Emit,
    SendingDisabled,
    tell_of,
)
from tailer.flow.ports import FollowupSink, MediaLibrary, Permit, Sink
from tailer.langfuse.annotations import LangfuseAnnotations
from tailer.langfuse.connection import LangfuseConnection
from tailer.langfuse.data_access import shortest_sight
from tailer.langfuse.media import LangfuseMedia, MediaOptions
from tailer.langfuse.spans import LangfuseSpans
from tailer.otlp.destination import open_otlp
from tailer.otlp.metrics import GenAiMetrics
from tailer.outbound.proof import Proven, Unreachable
from tailer.retrying import Backoff, Setback, try_until
from tailer.settings import Settings
from tailer.settings.destinations import (
    DestinationSettings,
    FileDestination,
    LangfuseDestination,
    OtlpDestination,
    address_of,
)
from tailer.sinks.file import TraceFile

_BACKOFF = Backoff(first_seconds=0.5, longest_seconds=30.0, jitter_seconds=1.0)


@dataclass(frozen=True, slots=True)
class OpenDestination:
    """Where traces go, and where what is said of them later goes: open, and proven.

    `name` is what operators call it; `lookup` is how long what was taken may be missing in an answer of the sink;
    `prepare` comes before the first sending of a term; `prove` asks whether it can be used. `is_server` says that what
    it acknowledged can still get lost behind it; `metrics` counts what it acknowledged and reports that to it."""

    name: str
    sink: Sink
    followups: FollowupSink
    media: MediaLibrary | None
    lookup: timedelta
    prepare: Callable[[], Awaitable[None]]
    prove: Callable[[], Awaitable[Proven | Unreachable]]
    is_server: bool = False
    metrics: GenAiMetrics | None = None


def name_destination(settings: Settings) -> str:
    """What a checkpoint remembers of the destinations: the address of a server, or the path of a file."""
    return ", ".join(address_of(destination) for destination in settings.destinations)


@asynccontextmanager
async def open_destinations(
    settings: Settings, emit: Emit, *, known: bool, permit: Permit
) -> AsyncIterator[Sequence[OpenDestination]]:
    """All destinations, proven unless nothing is to be sent; raises DestinationError.

    `known` says that they were written to before; then the start waits for a single one. Of several, those that cannot
    be used at the moment are told, and the others do not wait for them; one at least must be usable at a first start.
    They are written to only while `permit` holds.
    """
    if not settings.langfuse_enabled:
        emit(SendingDisabled())
    several = len(settings.destinations) > 1
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                open_destination(
                    settings,
                    described,
                    tell_of(emit, described.name) if several else emit,
                    permit=permit,
                )
            )
            for described in settings.destinations
        ]
        if settings.langfuse_enabled:
            if several:
                await _prove_some(opened, emit, known=known)
            else:
                await _prove(opened[0], emit, known=known)
        yield opened


@asynccontextmanager
async def open_destination(
    settings: Settings, described: DestinationSettings, emit: Emit, *, permit: Permit
) -> AsyncIterator[OpenDestination]:
    """One destination; nothing is asked of it yet."""
    match described:
        case FileDestination(name=name, path=path):
            file = TraceFile(path, permit, remedy=file_remedy(described, settings))

            async def check() -> Proven:
                await file.check()
                return Proven(None)

            # A line that is not in the file was not written.
            yield OpenDestination(name, file, file, None, timedelta(), file.prepare, check)
        case LangfuseDestination():
            async with _connect(settings, described, emit, permit) as connection:
                context = SpanContext(described.choices.environment, described.choices.release)
                yield OpenDestination(
                    described.name,
                    LangfuseSpans(connection, context, sight=shortest_sight(described.host)),
                    LangfuseAnnotations(connection, environment=described.choices.environment),
                    _open_media(settings, connection, emit),
                    settings.lookup_time,
                    _nothing,
                    connection.prove,
                    is_server=True,
                )
        case OtlpDestination():
            options = otlp_options(described)

            async def ask() -> Proven | Unreachable:
                # Before the lease is held nothing may be sent. An empty request is no more than a question.
                async with open_otlp(replace(options, metrics=None), emit, connections=1) as asking:
                    return await asking.prove()

            async with open_otlp(
                options,
                emit,
                connections=settings.concurrent_requests,
                permit=permit,
                environment=described.choices.environment,
                release=described.choices.release,
            ) as otlp:
                yield OpenDestination(
                    described.name,
                    otlp.spans,
                    otlp.followups,
                    None,
                    timedelta(),
                    _nothing,
                    ask,
                    metrics=otlp.metrics,
                )
        case _:
            assert_never(described)


def _connect(
    settings: Settings, described: LangfuseDestination, emit: Emit, permit: Permit
) -> LangfuseConnection:
    return LangfuseConnection(
        langfuse_credentials(described),
        request_timeout=settings.request_timeout,
        connections=settings.concurrent_requests,
        permit=permit,
        access=langfuse_access(described),
        emit=emit,
    )


async def _nothing() -> None:
    """A server needs no preparation."""


def _open_media(settings: Settings, connection: LangfuseConnection, emit: Emit) -> MediaLibrary | None:
    if settings.media_root is None:
        return None
    return LangfuseMedia(connection, MediaOptions(settings.media_root, settings.media_bytes), emit)


async def _prove(opened: OpenDestination, emit: Emit, *, known: bool) -> None:
    """Check that the only destination can be used. One that has never answered is a wrong address; one that has is
    waited for."""

    def report(setback: Setback[Proven | Unreachable]) -> None:
        if isinstance(setback.answer, Unreachable):
            emit(DestinationAway(opened.sink.name, setback.answer.explained, setback.wait_seconds))

    answer = await try_until(
        opened.prove,
        is_final=lambda answer: not known or isinstance(answer, Proven),
        wait=lambda _, tries: _BACKOFF.wait_seconds(tries),
        report=report,
    )
    if isinstance(answer, Unreachable):
        raise describe_unreachable(opened, answer)
    if opened.is_server:
        emit(DestinationProven(opened.sink.name, answer.project))


async def _prove_some(opened: Sequence[OpenDestination], emit: Emit, *, known: bool) -> None:
    """Ask each of several destinations once. What one of them refuses concerns the others only where none is left."""
    answers = await asyncio.gather(*(each.prove() for each in opened), return_exceptions=True)
    troubles: list[DestinationError] = []
    for each, answer in zip(opened, answers, strict=True):
        tell = tell_of(emit, each.name)
        if isinstance(answer, Proven):
            if each.is_server:
                tell(DestinationProven(each.sink.name, answer.project))
        elif isinstance(answer, Unreachable):
            troubles.append(describe_unreachable(each, answer))
            tell(DestinationAway(each.sink.name, answer.reason, 0.0))
        elif isinstance(answer, DestinationError):
            troubles.append(answer)
            tell(DestinationRefused(answer.subject, answer.hint))
        else:
            raise answer
    if len(troubles) == len(opened) and not known:
        raise troubles[0]


def describe_unreachable(opened: OpenDestination, answer: Unreachable) -> DestinationError:
    """Says that nothing usable answers at a destination."""
    where, setting = ("Langfuse", "LANGFUSE_HOST") if opened.is_server else ("the destination", "its address")
    return DestinationError(
        operation=f"reaching {where}",
        subject=opened.sink.name,
        hint=f"nothing usable answers there ({answer.explained}); check {setting}, and that this machine may reach it "
        "(proxy, firewall, DNS)",
    )
