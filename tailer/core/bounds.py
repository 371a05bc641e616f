"""How much of a turn's text goes into its trace, whatever its author stored.

Langfuse drops an observation above 9.5 MB without a word, so every text and every trace has a limit, and a cut says
that it is one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one trace: bytes of one text, bytes of all texts together, bytes of history, observations."""

    field_bytes: int = 1_000_000
    trace_bytes: int = 6_000_000
    history_bytes: int = 64_000
    observations: int = 500


class Allowance:
    """What is left of a trace's bytes while it is built; texts are taken in the order of their worth."""

    __slots__ = ("_field_bytes", "_left", "cut_bytes")

    def __init__(self, bounds: Bounds) -> None:
        self._field_bytes = bounds.field_bytes
        self._left = bounds.trace_bytes
        self.cut_bytes = 0

    def take(self, text: str) -> str:
        """The text, or as much of its beginning as may be sent, with a mark that says how much is missing."""
        limit = min(self._field_bytes, self._left)
        # A character of ASCII is a byte: most texts pass without being encoded here.
        if text.isascii() and len(text) <= limit:
            self._left -= len(text)
            return text
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= limit:
            self._left -= len(encoded)
            return text
        missing = len(encoded) - limit
        self._left -= limit
        self.cut_bytes += missing
        return f"{encoded[:limit].decode('utf-8', 'ignore')}… [cut: {missing} bytes left out]"
