"""The connections of a daemon, active or standing by: proven connections to MongoDB, the state and Langfuse."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

from tailer.core.layout import Layout
from tailer.core.lease import LeaseRhythm
from tailer.core.stream.positions import Answer
from tailer.daemon.destinations import OpenDestination, name_destination, open_destinations
from tailer.errors import SourceAway
from tailer.events import Emit, SourceUnanswered
from tailer.flow.layouts import Agreement
from tailer.flow.leadership import Candidacy
from tailer.mongo.assumed_database import refuse_wrong_guess
from tailer.mongo.collections import Collections
from tailer.mongo.connection import (
    SOCKET_MILLISECONDS,
    Database,
    SourceFacts,
    answers,
    connect,
    describe_address,
    inspect_source,
    selection_patience,
    tolerant_database,
)
from tailer.mongo.credential_files import CredentialFiles
from tailer.mongo.source_identity import holds_any_row, identify_source, refuse_own_database
from tailer.mongo.state import MongoLease, StateDatabase
from tailer.mongo.state.checkpoints import was_delivered_before
from tailer.mongo.state.layout import MongoLayouts
from tailer.mongo.state.names import names_of
from tailer.mongo.state.owner import claim_state
from tailer.retrying import Backoff, Setback, try_through
from tailer.settings import Settings

_FILES_SECONDS: Final = 3.0
_SOURCE_PATIENCE: Final = timedelta(seconds=30)
_BACKOFF: Final = Backoff(first_seconds=0.5, longest_seconds=5.0, jitter_seconds=1.0)


_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Connections:
    """Open and proven connections. `began` is the server's first answer."""

    source: Database
    facts: SourceFacts
    state: StateDatabase
    lease: MongoLease
    candidacy: Candidacy
    agreement: Agreement[MongoLease]
    destinations: Sequence[OpenDestination]
    began: Answer
    files: CredentialFiles

    async def wait_until_outdated(self) -> tuple[str, ...]:
        """Wait until the server is silent and files differ from when they were read; returns those files."""
        while True:
            await asyncio.sleep(_FILES_SECONDS)
            changed = self.files.changed()
            if changed and not all([await answers(self.source), await self.state.answers()]):
                return tuple(map(str, changed))

    @property
    def age_seconds(self) -> float:
        """How long ago the server first answered."""
        return time.monotonic() - self.began.told_seconds

    @property
    def address(self) -> str:
        """The hosts of LibreChat's MongoDB."""
        return describe_address(self.source.client)


async def open_connections(
    settings: Settings, stack: AsyncExitStack, emit: Emit, on_look: Callable[[], None]
) -> Connections:
    """Open what the settings name, in the order of what can be wrong; `stack` closes it.

    `on_look` is called each time a standby looks at the lease. Raises TailerError for what an operator must fix.
    """
    uri = settings.mongo_uri.get_secret_value()
    # Before the driver reads them: what changes in between counts as changed.
    files = CredentialFiles([uri, settings.state_uri.get_secret_value()], holders=settings.uri_files)
    state_uri = settings.state_uri.get_secret_value()
    source_client = connect(
        uri,
        application="librechat-tailer",
        socket_milliseconds=SOCKET_MILLISECONDS,
        keeps_state=state_uri == uri,
    )
    stack.callback(source_client.close)
    state_client = source_client
    if state_uri != uri:
        state_client = connect(
            state_uri,
            application="librechat-tailer-state",
            socket_milliseconds=SOCKET_MILLISECONDS,
            keeps_state=True,
        )
        stack.callback(state_client.close)
    source = tolerant_database(source_client, settings.mongo_database)
    facts = await _ask_patiently(inspect_source, source, emit)
    if settings.assumes_database:
        await _ask_patiently(refuse_wrong_guess, source, emit)
    await Collections(source, emit).prove()
    own = partial(refuse_own_database, state_client=state_client, state_name=settings.state_database)
    await _ask_patiently(own, source, emit)
    cluster_seconds = int(time.time()) if facts.now is None else facts.now.time
    began = Answer(cluster_seconds, time.monotonic())
    state = StateDatabase(state_client, settings.state_database, emit)
    names = names_of(settings.shard)
    lease = MongoLease(state, lease_time=settings.lease_time, names=names)
    rhythm = LeaseRhythm(settings.lease_time.total_seconds())
    candidacy = Candidacy(lease, rhythm, emit, clock=_unstopped_seconds, on_look=on_look)
    agreement = Agreement(
        MongoLayouts(state, lease_time=settings.lease_time),
        Layout(settings.shard.total, None if settings.shard.is_whole else cluster_seconds),
        rhythm,
        emit,
        clock=_unstopped_seconds,
        on_look=on_look,
    )
    known = await was_delivered_before(state, name_destination(settings), names)
    destinations = await stack.enter_async_context(
        open_destinations(settings, emit, known=known, permit=candidacy)
    )
    await state.prepare()
    identity = await _ask_patiently(identify_source, source, emit)
    await claim_state(state, identity, partial(holds_any_row, source))
    return Connections(source, facts, state, lease, candidacy, agreement, destinations, began, files)


def _unstopped_seconds() -> float:
    """A clock that keeps running while this process, or on Linux the whole machine, is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


async def _ask_patiently(
    ask: Callable[[Database], Awaitable[_Answer]], database: Database, emit: Emit
) -> _Answer:
    """What a server answers; at the start an absent one is waited for only a while."""
    patience = _SOURCE_PATIENCE + selection_patience(database.client)

    def report(setback: Setback[BaseException]) -> None:
        if isinstance(setback.answer, SourceAway):
            emit(SourceUnanswered(setback.answer.subject, setback.wait_seconds, setback.answer.hint))

    return await try_through(
        lambda: ask(database),
        passes=lambda error: isinstance(error, SourceAway),
        backoff=_BACKOFF,
        report=report,
        patience=patience,
    )
