"""Shows the progress of a long task: a bar on a terminal, a line now and then elsewhere."""

from collections.abc import Callable
from datetime import timedelta
from typing import TextIO

_BAR_CHARACTERS = 24
_LINE_SECONDS = 10.0
_RATE_SECONDS = 30.0


class Progress:
    """The number of rows done out of all, with rate and time left, written to one stream."""

    def __init__(self, stream: TextIO, monotonic: Callable[[], float]) -> None:
        self._stream = stream
        self._monotonic = monotonic
        self._seen: list[tuple[float, int]] = []
        self._line_seconds = float("-inf")
        self._is_open = False

    def say(self, words: str) -> None:
        """A line of its own."""
        self.end()
        print(words, file=self._stream, flush=True)

    def show(self, done: int, total: int | None, remark: str) -> None:
        """Show the progress; a stream that is not a terminal gets a line every ten seconds."""
        now = self._monotonic()
        self._seen = [(at, rows) for at, rows in self._seen if now - at <= _RATE_SECONDS]
        self._seen.append((now, done))
        line = describe_progress(done, total, self._rate(), remark)
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{line}")
            self._is_open = True
        elif now - self._line_seconds >= _LINE_SECONDS:
            self._line_seconds = now
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the bar as it is and continue below it."""
        if self._is_open:
            print(file=self._stream, flush=True)
            self._is_open = False

    def _rate(self) -> float:
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began) if ended > began else 0.0


def describe_progress(done: int, total: int | None, rate: float, remark: str) -> str:
    """One line: a bar and a percentage if the total is known, rows per second, and the time left at this rate."""
    pace = f"{rate:.0f} rows/s"
    if total is None:
        return f"{done} rows, {remark}, {pace}"
    share = min(1.0, done / total) if total else 1.0
    filled = round(share * _BAR_CHARACTERS)
    bar = "#" * filled + "-" * (_BAR_CHARACTERS - filled)
    left = f", {timedelta(seconds=round(max(0, total - done) / rate))} left" if rate > 0 else ""
    return f"[{bar}] {share:4.0%}  {done} of {total} rows, {remark}, {pace}{left}"
