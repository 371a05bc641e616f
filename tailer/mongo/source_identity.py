"""The identity of a LibreChat's database, as far as its server states it, and whether it holds rows that were sent
before."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from bson.errors import InvalidId
from pymongo.errors import OperationFailure

from tailer.core.identity import DocumentKey
from tailer.core.ownership import Ownership, SourceIdentity, compare_sources
from tailer.errors import SettingsError
from tailer.mongo.connection import Client, Database, seed_hosts, tolerant_database
from tailer.mongo.document_keys import from_key
from tailer.mongo.failures import explained


async def identify_source(database: Database) -> SourceIdentity:
    """Ask the server; raises SourceError. Reading the set's id needs a privilege; without it the hosts must do."""
    with explained(database.name):
        hello = await database.command("hello")
        hosts = [*hello.get("hosts", ()), *hello.get("passives", ()), *hello.get("arbiters", ())]
        is_sharded = hello.get("msg") == "isdbgrid"
        set_id = await (_ask_cluster_id(database) if is_sharded else _ask_set_id(database))
    return SourceIdentity(database.name, set_id, frozenset(hosts or seed_hosts(database.client)))


async def refuse_own_database(source: Database, state_client: Client, state_name: str) -> None:
    """Raise SettingsError where the state would be kept in LibreChat's own database: the settings can compare hosts by
    their names only, and one server may have several. Raises SourceError."""
    # MongoDB refuses two databases whose names differ only in case.
    if state_name.casefold() != source.name.casefold():
        return
    librechats = await identify_source(source)
    found = await identify_source(tolerant_database(state_client, state_name))
    if compare_sources(librechats, replace(found, database=librechats.database)) is Ownership.SAME:
        raise SettingsError(
            operation="choosing the state database",
            subject=f"TAILER_STATE_DATABASE={state_name}",
            hint="TAILER_STATE_URI and TAILER_MONGO_URI lead to the same server, and this is LibreChat's own database, where "
            "the tailer writes nothing; give another name, or leave it out for librechat_tailer",
        )


async def _ask_set_id(database: Database) -> str | None:
    with suppress(OperationFailure):
        answer = await database.client.admin.command("replSetGetConfig")
        found = answer.get("config", {}).get("settings", {}).get("replicaSetId")
        return None if found is None else str(found)
    return None


async def _ask_cluster_id(database: Database) -> str | None:
    with suppress(OperationFailure):
        found = await database.client["config"]["version"].find_one({})
        return None if found is None or "clusterId" not in found else str(found["clusterId"])
    return None


async def holds_any_row(database: Database, keys: Sequence[DocumentKey]) -> bool:
    """Whether any of these rows is in LibreChat's messages; raises SourceError."""
    wanted = []
    for key in keys:
        with suppress(InvalidId):
            wanted.append(from_key(key))
    with explained(f"{database.name}.messages"):
        found = await database["messages"].find_one({"_id": {"$in": wanted}}, {"_id": 1})
    return found is not None
