"""The identity of a LibreChat's database, as far as its server states it, and whether it holds rows that were sent
before."""

from collections.abc import Sequence
from contextlib import suppress

from bson.errors import InvalidId
from pymongo.errors import OperationFailure

from tailer.core.identity import DocumentKey
from tailer.core.ownership import SourceIdentity
from tailer.mongo.connection import Database, seed_hosts
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
