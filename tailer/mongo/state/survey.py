"""What the state database holds, for people who ask; takes part in nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.mongo.state.database import StateDatabase


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """One stream's checkpoint with what is remembered beside the position."""

    stream: Stream
    position: StreamPosition
    epoch: int
    destination: str
    saved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits in the state database."""

    batches: int
    parked: int
    dead_letters: int
    gaps: int


async def list_checkpoints(database: StateDatabase) -> Sequence[StoredCheckpoint]:
    """The checkpoints of all streams, by name."""
    found = await database.attempt(
        "list_checkpoints", lambda: database["checkpoints"].find({}).sort("_id", 1).to_list(None)
    )
    return [
        StoredCheckpoint(
            Stream(document["_id"]),
            StreamPosition(document["token"], int(document["cluster_seconds"])),
            int(document["epoch"]),
            str(document.get("destination", "")),
            document.get("saved_at"),
        )
        for document in found
    ]


async def count_pending(database: StateDatabase) -> Pending:
    """How much of each kind there is; gaps that are not filled."""

    async def count(collection: str, query: dict[str, object]) -> int:
        counted = await database.attempt(
            f"count_{collection}", lambda: database[collection].count_documents(query)
        )
        return int(counted)

    return Pending(
        batches=await count("batches", {}),
        parked=await count("parked", {}),
        dead_letters=await count("dead_letters", {}),
        gaps=await count("gaps", {"filled": False}),
    )


async def count_dead_letters(database: StateDatabase) -> int:
    """How many dead letters are kept."""
    counted = await database.attempt(
        "count_dead_letters", lambda: database["dead_letters"].count_documents({})
    )
    return int(counted)
