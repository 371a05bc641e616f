"""A URI that names no database: LibreChat's own driver takes `test` then, and the tailer assumes another."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from tailer.daemon.connections import open_connections
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import SourceError
from tailer.mongo.connection import Client, connect
from tailer.operations.doctor.examination import examine
from tailer.operations.doctor.findings import Verdict
from tailer.operations.opening import open_source
from tailer.settings import Settings, load_settings
from tests.evidence import Events
from tests.rows import answer, question


@dataclass(frozen=True, slots=True)
class Server:
    """A server of its own, because `test` is one database for all; `uri` names no database."""

    uri: str
    client: Client

    def settings(self, **changed: Any) -> Settings:
        uri = SecretStr(self.uri)
        return load_settings(mongo_uri=uri, state_uri=uri, http_port=0, **changed)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    with ReplicaSet(mongod_arguments=["--setParameter", "enableTestCommands=1"]) as replica_set:
        client = connect(replica_set.uri, application="test", socket_milliseconds=30_000)
        yield Server(replica_set.uri, client)
        client.close()


async def opens(settings: Settings) -> bool:
    """Whether a start gets as far as it gets with the right database."""
    async with AsyncExitStack() as stack:
        opened = await open_connections(settings, stack, Events(), lambda: None)
        return opened.source.name == settings.mongo_database


async def test_messages_in_the_drivers_own_choice_end_the_start_with_the_remedy(server: Server) -> None:
    """Otherwise the tailer would be ready, and see nothing for ever. Commands and doctor say the same."""
    await server.client["test"]["messages"].insert_many([question("q1", None), answer("a1", "q1")])
    settings = server.settings()

    with pytest.raises(SourceError, match="TAILER_MONGO_DATABASE=test") as raised:
        await opens(settings)
    with pytest.raises(SourceError, match="TAILER_MONGO_DATABASE=test"):
        async with open_source(settings, command="backfill"):
            pass
    found = {each.check: each for each in await examine(settings, downtime=timedelta(hours=1))}

    assert raised.value.exit_code == 3
    assert found["messages"].verdict is Verdict.FAIL
    assert "TAILER_MONGO_DATABASE=test" in (found["messages"].remedy or "")


@pytest.mark.parametrize(
    ("here", "there", "changed"),
    [
        (answer("a1", "q1"), answer("a2", "q2"), {}),
        (None, None, {}),
        (None, {"text": "of another program"}, {}),
        (None, answer("a2", "q2"), {"mongo_database": "LibreChat"}),
    ],
    ids=["it has messages", "none has", "other messages", "it was named"],
)
async def test_any_other_guess_is_kept(
    server: Server, here: dict[str, Any] | None, there: dict[str, Any] | None, changed: dict[str, Any]
) -> None:
    for name, row in (("LibreChat", here), ("test", there)):
        if row is not None:
            await server.client[name]["messages"].insert_one(dict(row))

    assert await opens(server.settings(**changed))


async def test_a_choice_that_may_not_be_read_is_none(server: Server) -> None:
    """The user has a role on LibreChat's database alone."""
    await server.client["test"]["messages"].insert_one(answer("a1", "q1"))
    data = {"failCommands": ["find"], "namespace": "test.messages", "errorCode": 13}
    await server.client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)

    assert await opens(server.settings())
