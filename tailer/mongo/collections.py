"""Queries on LibreChat's collections: repeated while a failure passes, not for a while where a privilege is missing."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from cachetools import TTLCache
from pymongo.errors import ExecutionTimeout, OperationFailure, PyMongoError

from tailer.core.turn.readback import Row
from tailer.errors import SourceError
from tailer.events import CollectionDenied, Emit, ReadFailed, RowUnreadable
from tailer.mongo.connection import Database
from tailer.mongo.document_keys import to_key
from tailer.mongo.driver_thread import run_job
from tailer.mongo.failures import certificate_trouble, explain_source_failure, failure_name, passes
from tailer.mongo.message_rows import ROW_FIELDS, missing_id, read_row
from tailer.mongo.reading import Reading
from tailer.mongo.retrying import keep_trying

Result = TypeVar("Result")

_UNAUTHORIZED = 13
_NEEDED = ("messages", "conversations")
"""The collections without which nothing works. A refusal of any other collection is reported once and tolerated."""
_REFUSED_SECONDS = 600
"""After so long a refused collection is asked again: what is missing can be granted."""


class _Refused(Exception):
    """A collection that is not needed may not be read."""

    def __init__(self, collection: str) -> None:
        super().__init__(collection)
        self.collection = collection


class Collections:
    """LibreChat's database, read only. `proven` says that this process could read what it needs at its start; `clock`
    is in seconds."""

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        proven: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._emit = emit
        self._denied: TTLCache[str, None] = TTLCache(maxsize=100, ttl=_REFUSED_SECONDS, timer=clock)
        self._reported: set[str] = set()
        self._proven: set[str] = set(_NEEDED) if proven else set()

    async def prove(self) -> None:
        """Check that everything needed can be read in the way that it will be; raises SourceError."""
        await self.find("messages", {}, ROW_FIELDS, limit=1)
        await self.find("conversations", {}, {"_id": 1}, limit=1)

    async def find(
        self,
        collection: str,
        query: Mapping[str, object],
        fields: Mapping[str, object],
        *,
        limit: int = 0,
        sort: Sequence[tuple[str, int]] = (),
    ) -> list[dict[str, Any]]:
        """All documents of a query; none from a collection that may not be read."""
        return await self.run(lambda reading: reading.find(collection, query, fields, limit=limit, sort=sort))

    async def run(self, job: Callable[[Reading], Result]) -> Result:
        """The result of a job of several queries: one hop to the driver's thread, however many they are.

        The whole job is repeated while a failure passes, and again without a collection that may not be read.
        """
        reading = self._begin()

        async def call() -> Result:
            nonlocal reading
            reading = self._begin()
            return await run_job(job, reading)

        while True:
            try:
                answer = await self._keep_asking(lambda: reading.collection, call, passes, is_spared=True)
            except _Refused as refusal:
                self._denied[refusal.collection] = None
                if refusal.collection not in self._reported:
                    self._reported.add(refusal.collection)
                    self._emit(CollectionDenied(refusal.collection))
                continue
            self._proven |= reading.asked
            self._reported -= reading.asked
            for event in reading.unreadable:
                self._emit(event)
            return answer

    def _begin(self) -> Reading:
        # A copy, so that a job does not read a part of what it needs before it may, and the rest after it.
        return Reading(self._database.delegate, frozenset(self._denied))

    async def ask(
        self,
        collection: str,
        call: Callable[[], Awaitable[Result]],
        *,
        passing: Callable[[BaseException], bool] = passes,
    ) -> Result:
        """The result of a question about a collection, repeated while its failure passes.

        A failure that does not pass is waited for too once the collection has answered: what is revoked can be granted
        again. Before that it is a SourceError.
        """
        answer = await self._keep_asking(lambda: collection, call, passing, is_spared=False)
        self._proven.add(collection)
        return answer

    async def _keep_asking(
        self,
        asked: Callable[[], str],
        call: Callable[[], Awaitable[Result]],
        passing: Callable[[BaseException], bool],
        *,
        is_spared: bool,
    ) -> Result:
        """Ask until an answer comes. `is_spared`: a refusal of a collection that is not needed is raised at once."""

        def is_refused(error: BaseException) -> bool:
            is_unauthorized = isinstance(error, OperationFailure) and error.code == _UNAUTHORIZED
            return is_spared and is_unauthorized and asked() not in _NEEDED

        def is_waited_for(error: BaseException) -> bool:
            if isinstance(error, ExecutionTimeout) or is_refused(error):
                return passing(error)
            return passing(error) or (asked() in self._proven and isinstance(error, PyMongoError))

        def report(error: PyMongoError) -> None:
            hint = certificate_trouble(error) if passes(error) else self._explain(asked(), error).hint
            self._emit(ReadFailed(asked(), failure_name(error), hint))

        try:
            return await keep_trying(call, report, passing=is_waited_for)
        except ExecutionTimeout:
            raise
        except PyMongoError as error:
            if is_refused(error):
                raise _Refused(asked()) from error
            raise self._explain(asked(), error) from error

    def _explain(self, collection: str, error: PyMongoError) -> SourceError:
        return explain_source_failure(error, f"{self._database.name}.{collection}")

    def read_row(self, document: Mapping[str, Any]) -> Row | None:
        """A message read with `ROW_FIELDS`. A message without ids is reported and becomes None."""
        row = read_row(document, document.get("bytes"))
        if row is None:
            self._emit(RowUnreadable("messages", to_key(document["_id"]), missing_id(document)))
        return row
