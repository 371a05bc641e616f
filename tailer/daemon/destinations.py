"""Opens the destination that the settings name, and proves it before anything is read."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tailer.core.trace.otlp import SpanContext
from tailer.errors import DestinationError
from tailer.events import DestinationAway, DestinationProven, Emit, SendingDisabled
from tailer.flow.ports import FollowupSink, MediaLibrary, Permit, Sink
from tailer.langfuse.access import Access
from tailer.langfuse.annotations import LangfuseAnnotations
from tailer.langfuse.connection import Credentials, LangfuseConnection, Proven, Unreachable
from tailer.langfuse.media import LangfuseMedia, MediaOptions
from tailer.langfuse.spans import LangfuseSpans
from tailer.outbound.certificates import CertificateFiles
from tailer.retrying import Backoff, Setback, try_until
from tailer.settings import Settings, SinkChoice
from tailer.settings.langfuse_access import parse_headers
from tailer.sinks.file import TraceFile

DEFAULT: Final = "default"
"""The destination that the environment alone names."""
_BACKOFF = Backoff(first_seconds=0.5, longest_seconds=30.0, jitter_seconds=1.0)


@dataclass(frozen=True, slots=True)
class OpenDestination:
    """Where traces go, and where what is said of them later goes: open, and proven.

    `name` is what operators call it; `lookup` is how long what was taken may be missing in an answer of the sink;
    `prepare` comes before the first sending of a term. `is_server` says that what it acknowledged can still get lost
    behind it."""

    name: str
    sink: Sink
    followups: FollowupSink
    media: MediaLibrary | None
    lookup: timedelta
    prepare: Callable[[], Awaitable[None]]
    is_server: bool = False


def name_destination(settings: Settings) -> str:
    """What a checkpoint remembers of the destination: Langfuse's address, or the path of the file."""
    return settings.langfuse_url if settings.sink is SinkChoice.LANGFUSE else str(settings.file_path)


@asynccontextmanager
async def open_destination(
    settings: Settings, emit: Emit, *, known: bool, permit: Permit
) -> AsyncIterator[OpenDestination]:
    """The destination, proven unless nothing is to be sent; raises DestinationError.

    `known` says that it was written to before; then the start waits for it. It is written to only while `permit` holds.
    """
    if not settings.langfuse_enabled:
        emit(SendingDisabled())
    if settings.sink is SinkChoice.FILE:
        file = TraceFile(settings.file_path, permit)
        if settings.langfuse_enabled:
            await file.check()
        # A line that is not in the file was not written.
        yield OpenDestination(DEFAULT, file, file, None, timedelta(), file.prepare)
        return
    secret = settings.langfuse_secret_key
    credentials = Credentials(
        host=settings.langfuse_url,
        public_key=settings.langfuse_public_key or "",
        secret_key=secret.get_secret_value() if secret is not None else "",
    )
    context = SpanContext(settings.langfuse_environment, settings.langfuse_release)
    async with LangfuseConnection(
        credentials,
        request_timeout=settings.request_timeout,
        connections=settings.concurrent_requests,
        permit=permit,
        access=make_access(settings),
        emit=emit,
    ) as connection:
        if settings.langfuse_enabled:
            await _prove(connection, emit, known=known)
        yield OpenDestination(
            DEFAULT,
            LangfuseSpans(connection, context),
            LangfuseAnnotations(connection, environment=settings.langfuse_environment),
            _open_media(settings, connection, emit),
            settings.lookup_time,
            _nothing,
            is_server=True,
        )


def make_access(settings: Settings) -> Access:
    """The settings of the way to Langfuse."""
    headers = settings.langfuse_headers
    return Access(
        {} if headers is None else parse_headers(headers.get_secret_value()),
        CertificateFiles(settings.langfuse_ca_file, settings.langfuse_cert_file, settings.langfuse_key_file),
    )


async def _nothing() -> None:
    """A server needs no preparation."""


def _open_media(settings: Settings, connection: LangfuseConnection, emit: Emit) -> MediaLibrary | None:
    if settings.media_root is None:
        return None
    return LangfuseMedia(connection, MediaOptions(settings.media_root, settings.media_bytes), emit)


async def _prove(connection: LangfuseConnection, emit: Emit, *, known: bool) -> None:
    """Check that the keys are good. A Langfuse that has never answered is a wrong address; one that has is waited
    for."""
    host = connection.credentials.host

    def report(setback: Setback[Proven | Unreachable]) -> None:
        if isinstance(setback.answer, Unreachable):
            emit(DestinationAway(host, setback.answer.reason, setback.wait_seconds))

    answer = await try_until(
        connection.prove,
        is_final=lambda answer: not known or isinstance(answer, Proven),
        wait=lambda _, tries: _BACKOFF.wait_seconds(tries),
        report=report,
    )
    if isinstance(answer, Unreachable):
        raise DestinationError(
            operation="reaching Langfuse",
            subject=host,
            hint=f"nothing usable answers there ({answer.reason}"
            f"{': ' if answer.detail else ''}{answer.detail}); check LANGFUSE_HOST, and that this machine may reach it "
            "(proxy, firewall, DNS)",
        )
    emit(DestinationProven(host, answer.project))
