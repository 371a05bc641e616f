"""Placeholders: what stands in a masked text instead of a value, such as `[email:3f9a1c0b7d2e]`.

Owns: how a placeholder is made from a value and how one is recognised.
Refuses: to keep any value, so there is no way back from a placeholder.

The tag is the first 12 hexadecimal digits (48 bits) of HMAC-SHA256(key, normalised value). Two different
values share a tag with odds of about n*n / 2**49 among n distinct values: 1 in 560 for a million of
them, 1 in 56 million for three thousand. Six digits would already collide at about five thousand values.
The name of the rule is not hashed: one value found by two rules has one tag. Without the key a tag can
neither be guessed nor checked, which matters since there are few enough phone numbers to try them all.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable

TAG_LENGTH = 12
LONGEST_NAME = 40
SHORTEST_KEY = 16
LONGEST_PLACEHOLDER = LONGEST_NAME + TAG_LENGTH + len("[:]")
ANY_PLACEHOLDER = re.compile(rf"\[[a-z0-9-]{{1,{LONGEST_NAME}}}:[0-9a-f]{{{TAG_LENGTH}}}\]")


class PlaceholderMaker:
    """Makes placeholders under one secret key."""

    __slots__ = ("_keyed",)

    def __init__(self, key: bytes) -> None:
        """Raises ValueError for a key below 16 bytes."""
        if len(key) < SHORTEST_KEY:
            message = f"the masking key has {len(key)} bytes and needs at least {SHORTEST_KEY}"
            raise ValueError(message)
        self._keyed = hmac.new(key, digestmod=hashlib.sha256)

    def __repr__(self) -> str:
        """Names the class only, so that no log shows the key."""
        return "PlaceholderMaker(key=***)"

    def make(self, rule_name: str, value: str) -> str:
        """The placeholder of a normalised value; lone surrogates are hashed as they stand."""
        keyed = self._keyed.copy()
        keyed.update(value.encode("utf-8", "surrogatepass"))
        tag = keyed.hexdigest()[:TAG_LENGTH]
        if tag.isdecimal():
            # A tag of digits only could be a real number in brackets, so no tag consists of digits only.
            tag = "abcdef"[int(tag[0]) % 6] + tag[1:]
        return f"[{rule_name}:{tag}]"


def whole_placeholders(text: str, length: int) -> int:
    """So many characters of a text, or fewer where they would end inside a placeholder: then up to its beginning."""
    start = text.rfind("[", max(0, length - LONGEST_PLACEHOLDER), length)
    found = ANY_PLACEHOLDER.match(text, start) if start >= 0 else None
    return start if found is not None and found.end() > length else length


def compile_placeholder_pattern(rule_names: Iterable[str]) -> re.Pattern[str]:
    """Matches the placeholders of the named rules, whatever key made them."""
    names = "|".join(re.escape(name) for name in rule_names)
    return re.compile(rf"\[(?:{names}):(?=[0-9]{{0,{TAG_LENGTH - 1}}}[a-f])[0-9a-f]{{{TAG_LENGTH}}}\]")
