"""Connections of a command, open while it works. A command has no log to write into."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tailer.events import Event
from tailer.mongo.assumed_database import refuse_wrong_guess
from tailer.mongo.connection import (
    SOCKET_MILLISECONDS,
    Client,
    Database,
    connect,
    describe_address,
    inspect_source,
    tolerant_database,
)
from tailer.mongo.failures import explained
from tailer.mongo.source_identity import holds_any_row, identify_source, refuse_own_database
from tailer.mongo.state import StateDatabase
from tailer.mongo.state.owner import check_owner
from tailer.settings import Settings


def connect_source(settings: Settings, *, command: str) -> Client:
    """A client of LibreChat's server, which nothing was asked of yet; raises SourceError."""
    return connect(
        settings.mongo_uri.get_secret_value(),
        application=f"librechat-tailer-{command}",
        socket_milliseconds=SOCKET_MILLISECONDS,
    )


def connect_state(settings: Settings, *, command: str) -> Client:
    """A client of the server that keeps the state, which nothing was asked of yet; raises SourceError."""
    return connect(
        settings.state_uri.get_secret_value(),
        application=f"librechat-tailer-{command}-state",
        socket_milliseconds=SOCKET_MILLISECONDS,
    )


@asynccontextmanager
async def open_source(settings: Settings, *, command: str) -> AsyncIterator[Database]:
    """LibreChat's database; raises SourceError where MongoDB cannot be tailed."""
    client = connect_source(settings, command=command)
    try:
        source = tolerant_database(client, settings.mongo_database)
        await inspect_source(source)
        if settings.assumes_database:
            await refuse_wrong_guess(source)
        with explained(describe_address(client)):
            yield source
    finally:
        client.close()


@asynccontextmanager
async def open_state(settings: Settings, *, command: str) -> AsyncIterator[StateDatabase]:
    """The state database, which nothing was asked of yet."""
    client = connect_state(settings, command=command)
    try:
        yield StateDatabase(client, settings.state_database, ignore_event)
    finally:
        client.close()


@asynccontextmanager
async def open_both(settings: Settings, *, command: str) -> AsyncIterator[tuple[Database, StateDatabase]]:
    """Both databases; raises StateError where the state belongs to another LibreChat, and SettingsError where it would
    be kept in LibreChat's own database."""
    async with (
        open_source(settings, command=command) as source,
        open_state(settings, command=command) as state,
    ):
        await refuse_own_database(source, state.client, state.name)
        await check_owner(state, await identify_source(source), partial(holds_any_row, source))
        yield source, state


def ignore_event(event: Event) -> None:
    """Report nothing: a command has no log, and waits while a database is away."""
    del event
