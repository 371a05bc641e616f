"""When rows were saved again without a change. The last time before an answer is where a regenerated answer began."""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import ChangeHint

_TIMES_OF_ONE_ROW = 4
"""Touches remembered per row: those of a regenerated answer, and of the one after it."""


class Touches:
    """The touches of at most `limit` rows. The least recently touched row is forgotten first."""

    def __init__(self, *, limit: int = 6_000) -> None:
        self._limit = limit
        self._times: OrderedDict[DocumentKey, tuple[int, ...]] = OrderedDict()

    def note(self, hint: ChangeHint) -> None:
        """Remember that a row was saved again without a change, if the time is known."""
        if hint.written_milliseconds is None:
            return
        times = {*self._times.pop(hint.document_key, ()), hint.written_milliseconds}
        self._times[hint.document_key] = tuple(sorted(times)[-_TIMES_OF_ONE_ROW:])
        if len(self._times) > self._limit:
            self._times.popitem(last=False)

    def of(self, key: DocumentKey) -> tuple[int, ...]:
        """The touches of a row as far as they are remembered, oldest first."""
        return self._times.get(key, ())

    def recent(self, limit: int) -> list[tuple[DocumentKey, tuple[int, ...]]]:
        """The newest touches, to be stored with a checkpoint: a restart would not see them again."""
        newest = list(islice(reversed(self._times.items()), limit))
        return newest[::-1]

    def restore(self, touches: Iterable[tuple[DocumentKey, tuple[int, ...]]]) -> None:
        """Put stored touches back, before any hint is read."""
        for key, times in touches:
            self._times[key] = times
