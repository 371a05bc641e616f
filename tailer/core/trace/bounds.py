"""How much of a turn's text goes into its trace, whatever its author stored.

Langfuse silently drops an observation above 9.5 MB. So every text and every trace has a limit, and a cut text is
marked.
"""

from dataclasses import dataclass

from tailer.core.json_text import encode_json


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one trace: bytes of one text, bytes of all texts together, bytes of history, observations."""

    field_bytes: int = 1_000_000
    trace_bytes: int = 6_000_000
    history_bytes: int = 64_000
    observations: int = 500


_QUOTES = 2
_SHORT_CHARACTERS = 10_000
"""Below this length it does not matter how much longer JSON makes a text."""


class Allowance:
    """The bytes left of a trace while it is built; the most important texts take theirs first."""

    __slots__ = ("_field_bytes", "_left", "cut_bytes")

    def __init__(self, bounds: Bounds) -> None:
        self._field_bytes = bounds.field_bytes
        self._left = bounds.trace_bytes
        self.cut_bytes = 0

    def take(self, text: str) -> str:
        """The text, or as much of its beginning as may be sent, with a mark that says how much is missing."""
        limit = min(self._field_bytes, self._left)
        # An ASCII character is one byte, and six if it must be escaped: most texts pass without being encoded here.
        if len(text) <= min(_SHORT_CHARACTERS, limit) and text.isascii():
            self._left -= len(text)
            return text
        encoded = text.encode("utf-8", "replace")
        escapes = len(encode_json(text)) - len(text) - _QUOTES
        sent = len(encoded) + escapes
        if sent <= limit:
            self._left -= sent
            return text
        kept = limit * len(encoded) // sent
        missing = len(encoded) - kept
        self._left -= limit
        self.cut_bytes += missing
        return f"{encoded[:kept].decode('utf-8', 'ignore')}… [cut: {missing} bytes left out]"
