"""A change stream over a LibreChat in memory."""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator
from itertools import islice

from tailer.core.librechat.conversations import SETTINGS_FIELDS
from tailer.core.stream.hints import ChangeHint, Operation, Stream
from tailer.core.stream.positions import StreamPosition, is_ahead
from tailer.flow.ports import HistoryLost
from tailer.flow.records import StreamBatch
from tests.memory.librechat import MemoryLibreChat

_BATCH_SIZE = 500
POLL_SECONDS = 1.0


class MemoryChanges:
    """A `ChangeSource`: answers with what there is, and every `poll_seconds` at the latest, as a server does."""

    def __init__(
        self,
        librechat: MemoryLibreChat,
        stream: Stream,
        *,
        batch_size: int = _BATCH_SIZE,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._librechat = librechat
        self._stream = stream
        self._batch_size = batch_size
        self._poll_seconds = poll_seconds

    @property
    def stream(self) -> Stream:
        return self._stream

    async def follow(self, start: StreamPosition | None) -> AsyncIterator[StreamBatch]:
        forgotten = self._librechat.forgotten
        if start is not None and forgotten is not None and start.moment < forgotten.moment:
            raise HistoryLost(self._stream, start, "oplog_too_short")
        if start is not None and is_ahead(start, self._librechat.seconds):
            raise HistoryLost(self._stream, start, "position_ahead")
        position = start or self._librechat.position()
        # A position without a token is the beginning of its second.
        inclusive = position.token is None
        while True:
            found = self._find(position, inclusive=inclusive)
            after = found[-1][1] if len(found) == self._batch_size else self._librechat.position()
            yield StreamBatch(found, after, self._librechat.seconds)
            position, inclusive = after, False
            if len(found) < self._batch_size:
                await self._wait()

    def _find(self, position: StreamPosition, *, inclusive: bool) -> list[tuple[ChangeHint, StreamPosition]]:
        search = bisect_left if inclusive else bisect_right
        oplog = self._librechat.oplog
        first = search(oplog, position.moment, key=lambda entry: entry[1].moment)
        told = (
            (hint, place)
            for stream, place, hint in islice(oplog, first, None)
            if stream is self._stream and _is_told(stream, hint)
        )
        return list(islice(told, self._batch_size))

    async def _wait(self) -> None:
        changed = asyncio.Event()
        self._librechat.listeners.add(changed)
        try:
            async with asyncio.timeout(self._poll_seconds):
                await changed.wait()
        except TimeoutError:
            return
        finally:
            self._librechat.listeners.discard(changed)


def _is_told(stream: Stream, hint: ChangeHint) -> bool:
    """Of the updates of conversations only those of titles and settings."""
    is_update = stream is Stream.CONVERSATIONS and hint.operation is Operation.UPDATE
    return not is_update or not hint.changed.isdisjoint({"title", *SETTINGS_FIELDS})
