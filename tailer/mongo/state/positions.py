"""Where each stream stands: the one place that knows in which documents a position may stand.

A position is stored in a checkpoint document of its own, or in the slot of the batch that carried it. Each has the
epoch of its writer and a number within that epoch, in the order in which the writer worked them out: the newest counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct
from typing import Any, Final, Protocol

from bson import Binary, Int64
from motor.motor_asyncio import AsyncIOMotorCollection

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.flow.records import Checkpoint
from tailer.mongo.hint_pipeline import PIPELINE_FINGERPRINTS
from tailer.mongo.state.database import Transaction
from tailer.mongo.state.names import StateNames

_TOUCH: Final = Struct("<12sq")
"""The ObjectId of a row, and a time in milliseconds."""
_OBJECT_ID_DIGITS: Final = 24
_POSITIONS: Final = {"positions": 1}
_Touches = Sequence[tuple[DocumentKey, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """One stream's checkpoint with everything stored beside the position."""

    stream: Stream
    checkpoint: Checkpoint
    epoch: int
    number: int
    destination: str
    saved_at: datetime | None

    @property
    def position(self) -> StreamPosition:
        """The position alone."""
        return self.checkpoint.position


class Collections(Protocol):
    """A database by its collections."""

    def __getitem__(self, name: str, /) -> "AsyncIOMotorCollection[dict[str, Any]]": ...


async def find_positions(
    collections: Collections, names: StateNames | None = None
) -> Mapping[Stream, StoredCheckpoint]:
    """The newest stored position of every stream that has one, in the order of their names."""
    names = names or StateNames()
    kept = await collections["checkpoints"].find(names.query).to_list(None)
    return _choose_newest(kept, await collections["slots"].find(names.query, _POSITIONS).to_list(None), names)


def find_positions_within(transaction: Transaction, names: StateNames) -> Mapping[Stream, StoredCheckpoint]:
    """The same within a transaction."""
    kept = list(transaction["checkpoints"].find(names.query, session=transaction.session))
    slots = list(transaction["slots"].find(names.query, _POSITIONS, session=transaction.session))
    return _choose_newest(kept, slots, names)


def _choose_newest(
    kept: Iterable[Mapping[str, Any]], slots: Iterable[Mapping[str, Any]], names: StateNames
) -> Mapping[Stream, StoredCheckpoint]:
    found = [read_position(names.stream(document["_id"]), document) for document in kept]
    found += [
        read_position(Stream(name), fields)
        for slot in slots
        for name, fields in slot.get("positions", {}).items()
    ]
    found.sort(key=lambda stored: (stored.stream, stored.epoch, stored.number))
    return {stored.stream: stored for stored in found}


def find_oldest(stored: Iterable[StoredCheckpoint]) -> Mapping[Stream, StreamPosition]:
    """The oldest position of every stream among those of several shards."""
    positions: dict[Stream, StreamPosition] = {}
    for each in stored:
        known = positions.get(each.stream)
        if known is None or each.position.moment < known.moment:
            positions[each.stream] = each.position
    return positions


def write_position(
    stream: Stream, checkpoint: Checkpoint, *, destination: str, epoch: int, number: int
) -> dict[str, Any]:
    """A position as it is stored. `destination` is where its turns went."""
    packed, others = _pack(checkpoint.touches)
    fields = {
        "token": checkpoint.position.token,
        "cluster_seconds": checkpoint.position.cluster_seconds,
        "packed_touches": Binary(packed),
        "pipeline": PIPELINE_FINGERPRINTS[stream],
        "destination": destination,
        "epoch": epoch,
        "number": Int64(number),
        "saved_at": datetime.now(UTC),
    }
    return {**fields, "touches": others} if others else fields


def read_position(stream: Stream, document: Mapping[str, Any]) -> StoredCheckpoint:
    """The position of a stored document. Those of releases before the slots have no number, and touches in a list."""
    touches = [(DocumentKey(key), tuple(times)) for key, times in document.get("touches", ())]
    touches += _unpack(document.get("packed_touches", b""))
    saved_at = document.get("saved_at")
    saved_seconds = None if saved_at is None else int(saved_at.replace(tzinfo=UTC).timestamp())
    position = StreamPosition(document["token"], int(document["cluster_seconds"]))
    return StoredCheckpoint(
        stream,
        Checkpoint(position, tuple(touches), saved_seconds),
        int(document.get("epoch", 0)),
        int(document.get("number", 0)),
        str(document.get("destination", "")),
        saved_at,
    )


def _pack(touches: _Touches) -> tuple[bytes, list[Any]]:
    """Twenty bytes for each time of a row, and those rows whose `_id` is no ObjectId as they are."""
    packed, others = [], []
    for key, times in touches:
        if len(key) == _OBJECT_ID_DIGITS:
            packed.append(_pack_row(key, times))
        else:
            others.append([key, list(times)])
    return b"".join(packed), others


@lru_cache(maxsize=1024)
def _pack_row(key: DocumentKey, times: tuple[int, ...]) -> bytes:
    """The same rows go with one position after another."""
    row = bytes.fromhex(key)
    return b"".join(_TOUCH.pack(row, time) for time in times)


def _unpack(packed: bytes) -> _Touches:
    """The times of each row, in the order in which the rows were packed."""
    touches: dict[DocumentKey, list[int]] = {}
    for row, time in _TOUCH.iter_unpack(packed):
        touches.setdefault(DocumentKey(row.hex()), []).append(time)
    return [(key, tuple(times)) for key, times in touches.items()]
