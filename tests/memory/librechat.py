"""LibreChat's database in memory: what it stores, and what its oplog tells of it."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import bson
from bson import ObjectId

from tailer.core.identity import DocumentKey
from tailer.core.librechat.bson_values import milliseconds, string
from tailer.core.librechat.conversations import SETTINGS_FIELDS
from tailer.core.stream.hints import ChangeHint, Operation, Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.turn.temporary import ASSISTANTS
from tailer.mongo.document_keys import TOLERANT, to_key

Document = Mapping[str, Any]


class MemoryLibreChat:
    """Collections by name. `now` is the server's clock, in seconds since 1970.

    `oplog` holds, for each change of a collection that is tailed, its stream, its place and its hint; `listeners` are
    set with each.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._collections: defaultdict[str, dict[DocumentKey, Document]] = defaultdict(dict)
        self._changes = 0
        self.oplog: list[tuple[Stream, StreamPosition, ChangeHint]] = []
        self.forgotten: StreamPosition | None = None
        self.listeners: set[asyncio.Event] = set()

    def find(self, collection: str, keys: Sequence[DocumentKey] | None = None) -> list[Document]:
        """The documents of a collection, or those with these keys."""
        stored = self._collections[collection]
        return list(stored.values()) if keys is None else [stored[key] for key in keys if key in stored]

    def insert(self, collection: str, *documents: Document) -> list[DocumentKey]:
        """Store documents; each gets an `_id` where it has none."""
        keys = []
        for document in documents:
            stored = _store({"_id": ObjectId(), **document})
            key = to_key(stored["_id"])
            assert key not in self._collections[collection]
            self._collections[collection][key] = stored
            self._tell(collection, Operation.INSERT, key, stored)
            keys.append(key)
        return keys

    def update(
        self, collection: str, key: DocumentKey, changes: Document, *, removed: Sequence[str] = ()
    ) -> None:
        """Set fields, and remove some; what is there already as it is is no change."""
        before = self._collections[collection][key]
        stored = _store({**before, **changes})
        after = {name: value for name, value in stored.items() if name not in removed}
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        if changed:
            self._collections[collection][key] = after
            self._tell(collection, Operation.UPDATE, key, after, frozenset(changed))

    def replace(self, collection: str, key: DocumentKey, document: Document) -> None:
        """Store another document in the place of one."""
        stored = _store({**document, "_id": self._collections[collection][key]["_id"]})
        self._collections[collection][key] = stored
        self._tell(collection, Operation.REPLACE, key, stored)

    def delete(self, collection: str, *keys: DocumentKey) -> None:
        """Delete documents."""
        for key in keys:
            del self._collections[collection][key]
            self._tell(collection, Operation.DELETE, key, {})

    def forget_history(self) -> None:
        """Let the oplog begin now: no position before this moment can be resumed from."""
        self.forgotten = self.position()
        self.oplog.clear()

    def position(self) -> StreamPosition:
        """The place behind everything that was written."""
        seconds = int(self._now())
        return StreamPosition(f"82{seconds:08X}{self._changes:08X}", seconds)

    @property
    def seconds(self) -> int:
        """The server's time."""
        return int(self._now())

    def _tell(
        self,
        collection: str,
        operation: Operation,
        key: DocumentKey,
        document: Document,
        changed: frozenset[str] = frozenset(),
    ) -> None:
        if collection not in list(Stream):
            return
        self._changes += 1
        position, whole = self.position(), operation in (Operation.INSERT, Operation.REPLACE)
        written = document.get("updatedAt") if "updatedAt" in changed else None
        is_date = isinstance(written, datetime)
        hint = ChangeHint(
            operation=operation,
            document_key=key,
            cluster_seconds=position.cluster_seconds,
            written_milliseconds=milliseconds(written) if is_date else int(self._now() * 1000),
            changed=changed,
            message_id=string(document.get("messageId")) if whole else None,
            parent_message_id=string(document.get("parentMessageId")) if whole else None,
            created_by_user=document.get("isCreatedByUser") is True if whole else None,
            conversation_id=string(document.get("conversationId")) if whole else None,
            **_values(Stream(collection), document, changed, whole=whole),
        )
        self.oplog.append((Stream(collection), position, hint))
        for listener in self.listeners:
            listener.set()


def _values(stream: Stream, document: Document, changed: frozenset[str], *, whole: bool) -> dict[str, Any]:
    """What travels along of a document."""
    if stream is Stream.CONVERSATIONS:
        told = {
            name: document[name]
            for name in SETTINGS_FIELDS
            if name in document and (whole or name in changed)
        }
        title = string(document.get("title")) if not whole and "title" in changed else None
        return {"settings": told, "title": title}
    if stream is not Stream.MESSAGES or not whole:
        return {}
    text, unfinished = string(document.get("text")), document.get("unfinished") is True
    stopped = unfinished and text is not None and bool(text or "langfuseSampled" not in document)
    expires = "isTemporary" not in document and document.get("expiredAt") is not None
    silent = stopped or document.get("endpoint") in ASSISTANTS
    return {
        "unfinished": unfinished,
        "stopped": stopped,
        "temporary": document.get("isTemporary") is True or expires or silent,
        "text": text
        if document.get("isCreatedByUser") is True and len((text or "").encode()) <= 4_000
        else None,
    }


def _store(document: Document) -> dict[str, Any]:
    """What a reader gets of it: times of whole milliseconds, lists for tuples, and nothing shared with the writer."""
    stored: dict[str, Any] = bson.decode(bson.encode(document), TOLERANT)
    return stored
