"""What commands ask of the active instance: marks that it finds within seconds, or as soon as there is one.

These are the only writes without a fence: a command holds no lease, and each is one that no instance takes back.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from pymongo import UpdateOne

from tailer.core.backfill import Job
from tailer.events import StateOperation
from tailer.flow.records import DeadLetter
from tailer.mongo.state.backfills import write_job
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.dead_letters import ASKED


async def ask_for_backfill(database: StateDatabase, job: Job) -> None:
    """Keep a job that the active instance does."""
    document = {"_id": job.job_id, **write_job(job)}
    await database.prepare()
    await database.attempt(
        StateOperation.ASK_FOR_BACKFILL, lambda: database["backfills"].insert_one(document)
    )


async def ask_for_replays(database: StateDatabase, letter_ids: Sequence[str]) -> None:
    """Mark dead letters to be sent again."""
    query = {"_id": {"$in": list(letter_ids)}}
    await database.attempt(
        StateOperation.ASK_FOR_REPLAY,
        lambda: database["dead_letters"].update_many(query, {"$set": {"replay": ASKED}}),
    )


async def drop_letters(database: StateDatabase, letter_ids: Sequence[str]) -> int:
    """Forget dead letters; how many there were."""
    query = {"_id": {"$in": list(letter_ids)}}
    dropped = await database.attempt(
        StateOperation.DROP_DEAD_LETTERS, lambda: database["dead_letters"].delete_many(query)
    )
    return int(dropped.deleted_count)


async def ask_anew(database: StateDatabase, letters: Sequence[DeadLetter], destination: str) -> None:
    """Ask for turns that are said to have arrived at a destination and have not: their records are forgotten, and the
    active instance builds and sends them as it does every replay."""
    if not letters:
        return
    now = datetime.now(UTC)
    belonging = Belonging(destination)
    exported = belonging.among([letter.record_id for letter in letters])
    await database.attempt(StateOperation.FORGET_EXPORTS, lambda: database["exports"].delete_many(exported))
    writes = [
        UpdateOne(
            {"_id": belonging.id_of(letter.record_id)},
            {
                "$set": {
                    "message_id": letter.message_id,
                    "document_key": letter.document_key,
                    "reason": str(letter.reason),
                    "chunk": None,
                    "item": None,
                    "last_failed_at": now,
                    "replay": ASKED,
                },
                "$setOnInsert": {"first_failed_at": now, **belonging.marks},
                "$inc": {"tries": 1},
            },
            upsert=True,
        )
        for letter in letters
    ]
    await database.attempt(StateOperation.ASK_FOR_REPLAY, lambda: database["dead_letters"].bulk_write(writes))
