"""How much of a turn's text goes into its trace, whatever its author stored.

Langfuse silently drops an observation above 9.5 MB. So every text and every trace has a limit, and a cut text is
marked. Under the policy `masked` a text is masked first: then no value is cut before it is found, and placeholders,
which may be longer than what they stand for, count as what is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tailer.core.json_text import encode_json
from tailer.core.masking.masker import Masker
from tailer.core.masking.placeholders import whole_placeholders
from tailer.core.trace.content_policy import mask_beginning


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
_MOST_BYTES_OF_A_CHARACTER = 6
"""A character is at most so long: four bytes of UTF-8, or six where JSON must escape it."""


class Allowance:
    """The bytes left of a trace while it is built; the most important texts take theirs first.

    Texts that fit whatever they consist of are measured only when one comes that may not fit. With a masker every text
    is masked, as far as it may be shown.
    """

    __slots__ = ("_field_bytes", "_left", "_masker", "_sure", "_unmeasured", "cut_bytes")

    def __init__(self, bounds: Bounds, masker: Masker | None = None) -> None:
        self._masker = masker
        self._field_bytes = bounds.field_bytes
        self._left = bounds.trace_bytes
        self._sure = bounds.trace_bytes
        self._unmeasured: list[str] = []
        self.cut_bytes = 0

    def take(self, text: str) -> str:
        """The text, or as much of its beginning as may be sent, with a mark that says how much is missing."""
        if self._masker is None:
            return self._take(text, 0)
        self._measure()
        most = min(self._field_bytes, self._left)
        missing = len(text[most:].encode("utf-8", "replace"))
        shown = self._take(mask_beginning(text, most, self._masker), missing)
        self._masker.remember(shown)
        return shown

    def _take(self, text: str, missing: int) -> str:
        """The text, or its beginning; `missing`: bytes behind it that are missing already."""
        most = _MOST_BYTES_OF_A_CHARACTER * len(text)
        if not missing and most <= self._sure and most <= self._field_bytes:
            self._sure -= most
            self._unmeasured.append(text)
            return text
        self._measure()
        shown = self._cut(text, missing)
        self._sure = self._left
        return shown

    def take_all(self, texts: Sequence[str]) -> bool:
        """Whether all of these texts fit whatever they consist of; if so, they are taken as they are."""
        if self._masker is not None:
            return False
        most = _MOST_BYTES_OF_A_CHARACTER * sum(map(len, texts))
        if most > self._sure or most > self._field_bytes:
            return False
        self._sure -= most
        self._unmeasured += texts
        return True

    def _measure(self) -> None:
        for text in self._unmeasured:
            self._left -= len(text) if _is_plain(text) else _sent_bytes(text)
        self._unmeasured.clear()
        self._sure = self._left

    def _cut(self, text: str, missing: int) -> str:
        limit = min(self._field_bytes, self._left)
        sent = len(text) if len(text) <= limit and _is_plain(text) else _sent_bytes(text)
        if sent <= limit:
            self._left -= sent
            return self._mark(text, missing) if missing else text
        encoded = text.encode("utf-8", "replace")
        size = limit * len(encoded) // sent
        kept = encoded[:size].decode("utf-8", "ignore")
        # What JSON makes longer may stand in the beginning, which is kept.
        while (longer := _sent_bytes(kept)) > limit:
            size = size * limit // longer
            kept = encoded[:size].decode("utf-8", "ignore")
        whole = whole_placeholders(text, len(kept))
        if whole < len(kept):
            kept = kept[:whole]
            size = len(kept.encode())
        self._left -= limit
        return self._mark(kept, missing + len(encoded) - size)

    def _mark(self, kept: str, missing: int) -> str:
        self.cut_bytes += missing
        return f"{kept}… [cut: {missing} bytes left out]"


def _is_plain(text: str) -> bool:
    """Whether each character counts as one byte, also those that JSON escapes."""
    return len(text) <= _SHORT_CHARACTERS and text.isascii()


def _sent_bytes(text: str) -> int:
    """The bytes of a text in UTF-8, with what JSON adds by escapes."""
    escapes = len(encode_json(text)) - len(text) - _QUOTES
    return len(text.encode("utf-8", "replace")) + escapes
