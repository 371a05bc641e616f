"""The files of turns: uploaded before their trace is built, a few at a time, and waited for while they may still come.

A turn whose files cannot be uploaded now is given back for later. It is sent without them only if the destination
accepts other things meanwhile: a storage that is never fixed must not hold back turns for ever. All turns of a round
wait for its uploads, so where the storage does not take one, the others do not try for a while.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tailer.core.identity import DocumentKey, observation_id
from tailer.core.trace.export import ExportOptions, shows_media, trace_id_of
from tailer.core.trace.files import files_of
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import TurnRecord
from tailer.events import Emit, MediaLeftOut, MediaRetried
from tailer.flow.lanes.setbacks import Setbacks, Waiting
from tailer.flow.ports import MediaLibrary
from tailer.flow.sending.destination_health import Channel, DestinationHealth
from tailer.flow.sending.outcomes import Delivered, Refused, Retry, StorageAway, explain
from tailer.flow.sending.presence import Presence

_AT_ONCE: Final = 4
"""How many turns upload files at a time; each holds one file in memory."""
_PATIENT_TRIES: Final = 8
"""Tries, some two minutes of them. After that the storage alone is at fault, if the destination has accepted something
since."""


class Attachments:
    """The way of files to the media library."""

    def __init__(
        self,
        library: MediaLibrary,
        health: DestinationHealth,
        setbacks: Setbacks,
        presence: Presence,
        options: ExportOptions,
        emit: Emit,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._library = library
        self._health = health
        self._setbacks = setbacks
        self._presence = presence
        self._options = options
        self._emit = emit
        self._monotonic = monotonic
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._closed_since = self._closed_until = 0.0

    async def publish(
        self, turns: Iterable[tuple[Row, TurnRecord]]
    ) -> Mapping[DocumentKey, tuple[str, ...] | Waiting]:
        """By row, the references of the files that may be shown, or how long the turn waits for them."""
        shown = [(row, record) for row, record in turns if shows_media(record, self._options)]
        published = await asyncio.gather(*(self._publish_one(row, record) for row, record in shown))
        return {row.key: files for (row, _), files in zip(shown, published, strict=True)}

    async def _publish_one(self, row: Row, record: TurnRecord) -> tuple[str, ...] | Waiting:
        async with self._gate:
            now = self._monotonic()
            if now < self._closed_until:
                # It was not tried, so it does not count as a try.
                return Waiting(0, self._closed_since, self._closed_until - now)
            answer = await self._upload(row, record)
        self._health.note(Channel.MEDIA, answer if isinstance(answer, Retry | Refused) else Delivered())
        if not isinstance(answer, Retry | Refused | StorageAway):
            self._setbacks.clear(row.key)
            self._setbacks.clear(Channel.MEDIA)
            return answer
        if isinstance(answer, StorageAway):
            pause = self._setbacks.add(Channel.MEDIA, answer)
            self._closed_since = pause.since_seconds
            self._closed_until = self._monotonic() + pause.wait_seconds
        waiting = self._setbacks.add(row.key, answer)
        if not self._is_hopeless(waiting, answer):
            if not isinstance(answer, Refused):
                # The health of the destination reports once that keys are refused.
                self._emit(MediaRetried(explain(answer), waiting.tries, waiting.wait_seconds))
            return waiting
        self._setbacks.clear(row.key)
        self._emit(MediaLeftOut("refused" if isinstance(answer, Refused) else "unavailable"))
        return ()

    async def _upload(self, row: Row, record: TurnRecord) -> tuple[str, ...] | Retry | Refused | StorageAway:
        """The answer of the library, for which other destinations do not wait long."""
        root_id = observation_id(row.message_id, "root")
        try:
            async with asyncio.timeout(self._presence.patience_seconds):
                return await self._library.publish(trace_id_of(row), root_id, list(files_of(record)))
        except TimeoutError:
            return StorageAway("timeout")

    def _is_hopeless(self, waiting: Waiting, answer: Retry | Refused | StorageAway) -> bool:
        """Whether only the files are in trouble, and for long enough; then the turn is sent without them."""
        taken = self._health.accepted_seconds
        destination_takes = taken is not None and taken > waiting.since_seconds
        if waiting.tries >= _PATIENT_TRIES:
            return destination_takes or isinstance(answer, StorageAway)
        return False
