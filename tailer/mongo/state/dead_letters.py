"""`dead_letters`: turns that cannot be sent, with the reason, until an operator handles them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import Binary
from pymongo import UpdateOne

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Interest
from tailer.events import StateOperation
from tailer.flow.letter_reasons import LetterReason
from tailer.flow.records import DeadLetter
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.records import read_item, write_item

ASKED = "asked"
"""The state of a requested replay; any other word is its result."""


class DeadLetters:
    """A `DeadLetterStore`."""

    _database: StateDatabase
    _fence: Fence
    _belonging: Belonging

    async def find_refused(self, record_ids: Sequence[str]) -> frozenset[str]:
        """Dead letters with a chunk that the destination refused."""
        query = {**self._belonging.among(record_ids), "chunk": {"$ne": None}}
        found = await self._database.attempt(
            StateOperation.FIND_REFUSED,
            lambda: self._database["dead_letters"].find(query, {"_id": 1}).to_list(None),
        )
        return frozenset(self._belonging.record_of(document["_id"]) for document in found)

    async def load_replays(self, limit: int, *, except_for: Collection[str] = ()) -> Sequence[DeadLetter]:
        """Dead letters whose replay was requested, those that failed first at the front."""
        query: dict[str, Any] = {"replay": ASKED, **self._belonging.query}
        if except_for:
            query["_id"] = {"$nin": [self._belonging.id_of(record_id) for record_id in except_for]}
        found = await self._database.attempt(
            StateOperation.LOAD_REPLAYS,
            lambda: self._database["dead_letters"].find(query).sort("first_failed_at", 1).to_list(limit),
        )
        return [_read_letter(document, self._belonging) for document in found]

    async def end_replay(self, record_id: str, outcome: str) -> bool:
        """Keep a dead letter whose replay gave nothing, with a word for the reason; False if its replay is no longer
        requested."""
        query = {"_id": self._belonging.id_of(record_id), "replay": ASKED}
        ended = await self._fence.write(
            StateOperation.END_REPLAY,
            lambda transaction: transaction["dead_letters"].update_one(
                query, {"$set": {"replay": outcome}}, session=transaction.session
            ),
        )
        return bool(ended.matched_count)

    async def drop_dead_letters(self, record_ids: Sequence[str]) -> None:
        """Forget dead letters."""
        query = self._belonging.among(record_ids)
        await self._fence.write(
            StateOperation.DROP_DEAD_LETTERS,
            lambda transaction: transaction["dead_letters"].delete_many(query, session=transaction.session),
        )

    async def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Store turns that cannot be sent; a repeated one counts its tries."""
        writes = write_letters(letters, datetime.now(UTC), self._belonging)
        if writes:
            await self._fence.write(
                StateOperation.ADD_DEAD_LETTERS,
                lambda transaction: transaction["dead_letters"].bulk_write(
                    writes, session=transaction.session
                ),
            )


def write_letters(
    letters: Sequence[DeadLetter], failed_at: datetime, belonging: Belonging
) -> list[UpdateOne]:
    """The writes that keep letters; a letter that is there counts one more try."""
    return [
        UpdateOne(
            {"_id": belonging.id_of(letter.record_id)},
            {
                "$set": {
                    "message_id": letter.message_id,
                    "document_key": letter.document_key,
                    "reason": str(letter.reason),
                    "chunk": None if letter.chunk is None else Binary(letter.chunk),
                    "item": None if letter.item is None else write_item(letter.item),
                    "interest": None if letter.interest is None else letter.interest.value,
                    "last_failed_at": failed_at,
                },
                "$unset": {"replay": ""},
                "$setOnInsert": {"first_failed_at": failed_at, **belonging.marks},
                "$inc": {"tries": 1},
            },
            upsert=True,
        )
        for letter in letters
    ]


def _read_letter(document: Mapping[str, Any], belonging: Belonging) -> DeadLetter:
    chunk, item, interest = document.get("chunk"), document.get("item"), document.get("interest")
    return DeadLetter(
        record_id=belonging.record_of(document["_id"]),
        message_id=document["message_id"],
        document_key=DocumentKey(document["document_key"]),
        reason=LetterReason.parse(str(document["reason"])),
        chunk=None if chunk is None else bytes(chunk),
        item=None if item is None else read_item(item),
        # A letter of an earlier release has none.
        interest=None if interest is None else Interest(interest),
    )
