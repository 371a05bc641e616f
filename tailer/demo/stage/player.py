"""Plays recorded LibreChat traffic into a real database, write by write.

Owns the translation of change events back into the writes that caused them, and the pace. It refuses to rewrite a
recording (`Recording.shift` and `Recording.rename` do that) and to choose a database: it writes where the caller says.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, assert_never

from motor.motor_asyncio import AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import WriteConcern

from tailer.demo.stage.recording import Document, RecordedEvent, Recording, UpdateDescription, interleave
from tailer.errors import TailerError

MAJORITY: Final = WriteConcern(w="majority")
"""For tests with a failover: an acknowledged write is never rolled back."""


def _ignore(event: RecordedEvent) -> None:
    del event


async def play(
    recordings: Recording | Sequence[Recording],
    database: AsyncIOMotorDatabase[Document],
    *,
    speed: float | None,
    max_gap: timedelta | None = None,
    write_concern: WriteConcern | None = None,
    on_applied: Callable[[RecordedEvent], None] = _ignore,
) -> int:
    """Apply every event, interleaved by their times, one after another; returns how many.

    `speed` 1.0 is the recorded pace, 2.0 twice as fast, None as fast as the server takes them. `max_gap`
    bounds each recorded silence before the speed applies. Neither changes the times stored: those are the
    recording's, so with a speed above 1.0 or a shortened silence they run ahead of the clock. Several
    recordings belong on one time line first (`shift`). `on_applied` is called after each acknowledged write.
    Documents keep their recorded `_id`: playing the same recording twice without `rename` raises pymongo's
    DuplicateKeyError.
    """
    if speed is not None and speed <= 0:
        raise ValueError("speed is above 0, or None")
    clock = asyncio.get_running_loop()
    due = clock.time()
    before = None
    count = 0
    for at, event in interleave([recordings] if isinstance(recordings, Recording) else recordings):
        if speed is not None:
            gap = timedelta() if before is None else at - before
            due += (gap if max_gap is None else min(gap, max_gap)).total_seconds() / speed
            await asyncio.sleep(max(0.0, due - clock.time()))
        before = at
        await apply(event, database, write_concern=write_concern)
        on_applied(event)
        count += 1
    return count


async def apply(
    event: RecordedEvent,
    database: AsyncIOMotorDatabase[Document],
    *,
    write_concern: WriteConcern | None = None,
) -> None:
    """Make the write that caused the event, in the collection of the same name."""
    collection = database.get_collection(event.collection, write_concern=write_concern)
    match event.operation:
        case "insert":
            await collection.insert_one(_full_document(event))
        case "update":
            await _update(event, collection)
        case "replace":
            await collection.replace_one(event.document_key, _full_document(event))
        case "delete":
            await collection.delete_one(event.document_key)
        case _:
            assert_never(event.operation)


async def _update(event: RecordedEvent, collection: AsyncIOMotorCollection[Document]) -> None:
    if event.update is None:
        raise _unplayable(event, "an update without updateDescription")
    for change in _changes(event.update):
        result = await collection.update_one(event.document_key, change)
        if result.matched_count == 0:
            # The document is older than the recording, so the recording has no insert of it.
            await collection.insert_one(_full_document(event))
            return


def _changes(update: UpdateDescription) -> list[Document]:
    """The update as MongoDB's update operators.

    Truncation first and alone, as it may share a path with `$set`.
    """
    changes: list[Document] = []
    if update.truncated_arrays:
        changes.append(
            {"$push": {field: {"$each": [], "$slice": size} for field, size in update.truncated_arrays}}
        )
    fields: Document = {}
    if update.updated_fields:
        fields["$set"] = update.updated_fields
    if update.removed_fields:
        fields["$unset"] = dict.fromkeys(update.removed_fields, "")
    return [*changes, fields] if fields else changes


def _full_document(event: RecordedEvent) -> Document:
    if event.full_document is None:
        raise _unplayable(event, f"{event.operation} of a document that the recording does not hold")
    # A copy, because drivers add a missing `_id` to the very document they are given.
    return dict(event.full_document)


def _unplayable(event: RecordedEvent, reason: str) -> TailerError:
    return TailerError(
        operation="play recording",
        subject=f"{event.collection} at {event.offset}",
        hint=f"{reason}; record it again",
    )
