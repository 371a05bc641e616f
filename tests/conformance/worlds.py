"""One LibreChat and one state database, real or in memory, as the cases see them."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.flow.ports import ChangeSource, DocumentReader, RowWalk
from tailer.flow.stores import LeaseStore, StateStore
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.collections import Collections
from tailer.mongo.connection import Client, Database, tolerant_database
from tailer.mongo.document_keys import from_key, to_key
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.state import MongoLease, MongoState, StateDatabase
from tailer.mongo.state.dead_letters import ASKED
from tailer.mongo.walk import MongoWalk
from tests.evidence import Events
from tests.memory import (
    MemoryChanges,
    MemoryDatabase,
    MemoryLease,
    MemoryLibreChat,
    MemoryReader,
    MemoryState,
    MemoryWalk,
)

LEASE = timedelta(seconds=8)
Document = Mapping[str, Any]


class StateWorld(Protocol):
    """A state database."""

    def lease(self) -> LeaseStore:
        """The lease as another process sees it."""
        ...

    async def lead(self) -> StateStore:
        """The stores of the next epoch."""
        ...

    async def ask_for_replay(self, record_id: str) -> None:
        """What `tailer dead-letters replay` writes."""
        ...


class LibreChatWorld(Protocol):
    """A LibreChat."""

    @property
    def reader(self) -> DocumentReader: ...

    @property
    def walk(self) -> RowWalk: ...

    def changes(self, stream: Stream) -> ChangeSource: ...

    async def insert(self, collection: str, *documents: Document) -> list[DocumentKey]: ...

    async def update(self, collection: str, key: DocumentKey, changes: Document, *removed: str) -> None: ...

    async def replace(self, collection: str, key: DocumentKey, document: Document) -> None: ...

    async def delete(self, collection: str, *keys: DocumentKey) -> None: ...


class MongoStateWorld:
    """A database of a real server."""

    def __init__(self, client: Client, name: str) -> None:
        self._database = StateDatabase(client, name, Events())

    async def prepare(self) -> None:
        await self._database.prepare()

    def lease(self) -> MongoLease:
        return MongoLease(self._database, lease_time=LEASE)

    async def lead(self) -> MongoState:
        lease = self.lease()
        while await lease.take(await lease.read()) is None:
            pass
        state = MongoState(self._database, lease.fence, destination="test")
        await state.prepare(lifetime=timedelta(days=1))
        return state

    async def ask_for_replay(self, record_id: str) -> None:
        await self._database["dead_letters"].update_one({"_id": record_id}, {"$set": {"replay": ASKED}})


class MemoryStateWorld:
    """A database in memory."""

    def __init__(self) -> None:
        self._database = MemoryDatabase()

    def lease(self) -> MemoryLease:
        return MemoryLease(self._database, lease_seconds=LEASE.total_seconds())

    async def lead(self) -> MemoryState:
        lease = self.lease()
        return MemoryState(self._database, await lease.take(await lease.read()))

    async def ask_for_replay(self, record_id: str) -> None:
        self._database.ask_for_replay(record_id)


class MongoLibreChatWorld:
    """A database of a real server."""

    def __init__(self, client: Client, name: str) -> None:
        self._database: Database = tolerant_database(client, name)
        self.reader = MongoDocuments(self._database, Events(), history_bytes=64_000, with_users=True)
        self.walk = MongoWalk(self._database, Collections(self._database, Events()))

    def changes(self, stream: Stream) -> MongoChangeStream:
        return MongoChangeStream(self._database, stream, Events())

    async def insert(self, collection: str, *documents: Document) -> list[DocumentKey]:
        rows = [dict(document) for document in documents]
        await self._database[collection].insert_many(rows)
        return [to_key(row["_id"]) for row in rows]

    async def update(self, collection: str, key: DocumentKey, changes: Document, *removed: str) -> None:
        update = {"$set": dict(changes), "$unset": dict.fromkeys(removed, "")}
        given = {name: fields for name, fields in update.items() if fields}
        await self._database[collection].update_one({"_id": from_key(key)}, given)

    async def replace(self, collection: str, key: DocumentKey, document: Document) -> None:
        fields = {name: value for name, value in document.items() if name != "_id"}
        await self._database[collection].replace_one({"_id": from_key(key)}, fields)

    async def delete(self, collection: str, *keys: DocumentKey) -> None:
        for key in keys:
            await self._database[collection].delete_one({"_id": from_key(key)})


class MemoryLibreChatWorld:
    """Collections in memory, by the clock of this machine."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._librechat = MemoryLibreChat(now)
        self.reader = MemoryReader(self._librechat, with_users=True)
        self.walk = MemoryWalk(self._librechat)

    def changes(self, stream: Stream) -> MemoryChanges:
        return MemoryChanges(self._librechat, stream)

    async def insert(self, collection: str, *documents: Document) -> list[DocumentKey]:
        return self._librechat.insert(collection, *documents)

    async def update(self, collection: str, key: DocumentKey, changes: Document, *removed: str) -> None:
        self._librechat.update(collection, key, changes, removed=removed)

    async def replace(self, collection: str, key: DocumentKey, document: Document) -> None:
        self._librechat.replace(collection, key, document)

    async def delete(self, collection: str, *keys: DocumentKey) -> None:
        self._librechat.delete(collection, *keys)
