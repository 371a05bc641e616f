"""What is known of the streams' answers: the last of each, how long it is ago, and whether reading waits."""

from collections.abc import Callable

from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import Answer


class StreamAnswers:
    """The answers of all streams of a run, by this machine's monotonic clock."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._paused: set[Stream] = set()
        self._heard_seconds: dict[Stream, float] = {}
        self._last: dict[Stream, Answer] = {}

    def note(self, stream: Stream, source_seconds: int) -> None:
        """A stream answered, at this time of the server's."""
        now = self._monotonic()
        self._heard_seconds[stream] = now
        self._last[stream] = Answer(source_seconds, now)

    def pause(self, stream: Stream) -> None:
        """Reading waits for room."""
        self._paused.add(stream)

    def resume(self, stream: Stream) -> None:
        """Reading goes on; the stream has been silent since now at the most."""
        self._paused.discard(stream)
        self._heard_seconds[stream] = self._monotonic()

    def is_paused(self, stream: Stream) -> bool:
        """Whether reading waits for room."""
        return stream in self._paused

    def last(self, stream: Stream) -> Answer | None:
        """The stream's last answer, None before the first."""
        return self._last.get(stream)

    def silent_seconds(self, stream: Stream) -> float | None:
        """How long ago the stream last answered; None before its first answer and while reading is paused."""
        heard = self._heard_seconds.get(stream)
        return None if heard is None or stream in self._paused else self._monotonic() - heard
