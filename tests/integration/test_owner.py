"""The state belongs to one LibreChat, on real servers: who gets it, who is refused, what a move changes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from pydantic import SecretStr

from tailer.core.identity import DocumentKey
from tailer.core.ownership import SourceIdentity
from tailer.daemon.connections import open_connections
from tailer.errors import SettingsError, StateError
from tailer.mongo.connection import Client, Database, connect, tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.source_identity import holds_any_row, identify_source, refuse_own_database
from tailer.mongo.state import StateDatabase
from tailer.mongo.state.owner import check_owner, claim_state
from tailer.operations.doctor.findings import Verdict
from tailer.operations.doctor.state import check_state
from tailer.operations.opening import open_both
from tests.e2e.databases import Databases
from tests.evidence import Events
from tests.integration.running import settings_for


@pytest.fixture
async def client(databases: Databases) -> AsyncIterator[Client]:
    opened = connect(databases.uri, application="owner", socket_milliseconds=30_000)
    yield opened
    opened.close()


@pytest.fixture
def source(client: Client, databases: Databases) -> Database:
    return tolerant_database(client, databases.source.name)


@pytest.fixture
async def state(client: Client, databases: Databases) -> StateDatabase:
    database = StateDatabase(client, databases.state.name, Events())
    await database.prepare()
    return database


async def never(keys: Sequence[DocumentKey]) -> bool:
    del keys
    return False


async def test_the_server_tells_who_it_is(source: Database) -> None:
    found = await identify_source(source)

    assert found.database == source.name
    assert found.set_id is not None
    assert len(found.set_id) == 24
    assert all(host.startswith("127.0.0.1:") for host in found.hosts)


async def test_librechats_own_database_takes_no_state_under_whatever_name_its_server_is_given(
    source: Database, databases: Databases
) -> None:
    """The settings see two servers, `localhost` and `127.0.0.1`. Commands and doctor say the same, and none writes."""
    other = connect(
        databases.uri.replace("127.0.0.1", "localhost"), application="state", socket_milliseconds=30_000
    )
    settings = settings_for(
        databases,
        None,
        state_uri=SecretStr(databases.uri.replace("127.0.0.1", "localhost")),
        state_database=source.name,
    )
    try:
        with pytest.raises(SettingsError, match="LibreChat's own database"):
            await refuse_own_database(source, other, source.name.upper())
        await refuse_own_database(source, other, databases.state.name)
        with pytest.raises(SettingsError, match="LibreChat's own database"):
            async with AsyncExitStack() as stack:
                await open_connections(settings, stack, Events(), lambda: None)
        with pytest.raises(SettingsError, match="LibreChat's own database"):
            async with open_both(settings, command="checkpoint"):
                pass
        checkpoints, (finding,) = await check_state(other, source, settings)
    finally:
        other.close()

    assert (checkpoints, finding.verdict) == ((), Verdict.FAIL)
    assert await source.list_collection_names() == []


async def test_whoever_comes_first_gets_a_state_that_has_no_owner(
    source: Database, state: StateDatabase
) -> None:
    """A state of an earlier release too, whatever is in it."""
    await state["checkpoints"].insert_one(
        {"_id": "messages", "token": "82", "cluster_seconds": 1, "epoch": 1}
    )
    found = await identify_source(source)
    assert await check_owner(state, found, never) is None

    await claim_state(state, found, never)
    await claim_state(state, found, never)

    assert await check_owner(state, found, never) == found


async def test_another_librechat_on_the_same_server_is_refused_and_changes_nothing(
    client: Client, source: Database, state: StateDatabase
) -> None:
    found = await identify_source(source)
    await claim_state(state, found, never)
    other = await identify_source(tolerant_database(client, "Staging"))
    with pytest.raises(StateError, match="TAILER_STATE_DATABASE of its own") as refused:
        await claim_state(state, other, never)

    assert source.name in refused.value.hint
    assert "Staging" in refused.value.subject
    assert await check_owner(state, found, never) == found


async def test_a_server_under_new_names_is_the_same_where_it_holds_what_was_sent(
    source: Database, state: StateDatabase
) -> None:
    """Without the privilege to read the set's id, and with every host renamed."""
    row = (await source["messages"].insert_one({"messageId": "m1"})).inserted_id
    before = SourceIdentity(source.name, None, frozenset({"old:27017"}))
    after = replace(before, hosts=frozenset({"new:27017"}))
    await claim_state(state, before, never)

    async def holds(keys: Sequence[DocumentKey]) -> bool:
        return await holds_any_row(source, keys)

    with pytest.raises(StateError, match="has moved"):
        await claim_state(state, after, holds)
    await state["exports"].insert_one({"_id": "t", "document_key": to_key(row)})
    await claim_state(state, after, holds)

    assert await check_owner(state, after, never) == after
