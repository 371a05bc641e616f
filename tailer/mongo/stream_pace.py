"""How often a change stream is asked, and how long the server may hold a request without events."""

import math
import time
from typing import Final

from tailer.core.stream.hints import Stream
from tailer.mongo.quiet import Quiet

_BUSY_EVENTS: Final = 250
_PACE_SECONDS: Final = {Stream.MESSAGES: 0.4, Stream.CONVERSATIONS: 1.0, Stream.TRANSACTIONS: 1.0}
"""A `getMore` answers as soon as there is one event, so under load each reply brings a handful and costs as much as a
full one; if a `$match` hides the event, it brings none. So after a reply that is not nearly full, the next one is
requested this long after the last. That is little beside the settle time, and a tenth of the work for the server."""
_HASTY_PACE_SECONDS: Final = {**_PACE_SECONDS, Stream.MESSAGES: 0.25}
_HASTY_EVENTS_A_SECOND: Final = 200
"""With so many events a round takes longer, so messages are read sooner; a request more does not count then."""
_SHORTEST_HOLD_MILLISECONDS: Final = {
    Stream.MESSAGES: 500,
    Stream.CONVERSATIONS: 100,
    Stream.TRANSACTIONS: 100,
}
"""How long the server holds a request without events at least. While it does, each write of anybody to any collection
makes it look again; and as messages are written, few of the others' events come."""


class StreamPace:
    """The pace of one stream. `quiet` is shared by the streams of a term; `longest_hold_milliseconds` is what the
    connection allows."""

    def __init__(self, stream: Stream, quiet: Quiet, *, longest_hold_milliseconds: int) -> None:
        self._stream = stream
        self._quiet = quiet
        self._longest_hold_milliseconds = longest_hold_milliseconds
        self._before_seconds = self._asked_seconds = -math.inf

    def begin(self) -> None:
        """A cursor was opened: its first request waits for nothing."""
        self._before_seconds = self._asked_seconds = -math.inf

    def note_events(self) -> None:
        """Something happened in this stream."""
        self._quiet.end()

    def pause_seconds(self, events: int) -> float:
        """How long the next request waits after a reply that brought so many events."""
        if events >= _BUSY_EVENTS:
            return 0.0
        now = time.monotonic()
        is_hasty = events > (now - self._before_seconds) * _HASTY_EVENTS_A_SECOND
        pace = (_HASTY_PACE_SECONDS if is_hasty else _PACE_SECONDS)[self._stream]
        return max(0.0, self._asked_seconds + pace - now)

    def ask(self) -> int:
        """Note that a request is made now; how many milliseconds the server may hold it."""
        self._before_seconds, self._asked_seconds = self._asked_seconds, time.monotonic()
        return self._quiet.hold_milliseconds(
            shortest=_SHORTEST_HOLD_MILLISECONDS[self._stream],
            longest=self._longest_hold_milliseconds,
        )
