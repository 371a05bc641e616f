"""Whose dead letters are: they are kept together, and each is worked on by the shard of its conversation."""

from collections.abc import Mapping, Sequence
from typing import Final

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Interest
from tailer.core.stream.shard import Shard
from tailer.flow.ports import DocumentReader
from tailer.flow.records import DeadLetter
from tailer.flow.stores import ExportStore

_OF_OTHER_COLLECTIONS: Final = frozenset({Interest.TITLE, Interest.SPENDING})


class LetterOwners:
    """Finds the conversations of letters. A letter names only a document, of the collection where its work began."""

    def __init__(self, reader: DocumentReader, exports: ExportStore, shard: Shard) -> None:
        self._reader = reader
        self._exports = exports
        self._shard = shard

    async def choose_own(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        """The letters of this shard, in their order. If nothing tells the conversation of one, its document decides."""
        if self._shard.is_whole or not letters:
            return letters
        keys: dict[Interest | None, list[DocumentKey]] = {}
        for letter in letters:
            interest = letter.interest if letter.interest in _OF_OTHER_COLLECTIONS else None
            keys.setdefault(interest, []).append(letter.document_key)
        found: dict[DocumentKey, str | None] = {}
        if None in keys:
            found.update(await self._find_messages(keys[None]))
        if Interest.TITLE in keys:
            titled = await self._reader.locate_titled(keys[Interest.TITLE])
            found.update((key, row.conversation_id) for key, row in titled)
        if Interest.SPENDING in keys:
            found.update(await self._find_spending(keys[Interest.SPENDING]))
        return [
            letter
            for letter in letters
            if self._shard.owns(found.get(letter.document_key, letter.document_key))
        ]

    async def _find_messages(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, str | None]:
        """By the rows, and by the records of those that are gone."""
        sent = await self._exports.load_sent_by_document(keys)
        rows = await self._reader.locate(keys)
        return {turn.document_key: turn.session_id for turn in sent} | {
            row.key: row.conversation_id for row in rows
        }

    async def _find_spending(self, keys: Sequence[DocumentKey]) -> Mapping[DocumentKey, str | None]:
        transactions = await self._reader.read_transactions(keys)
        return {key: row.conversation_id for key, row in transactions.items()}
