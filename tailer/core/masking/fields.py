"""The rule for the operator's field names inside text: JSON in a code block, truncated output, dictionaries.

Owns: finding the value after `"name":` without a parser, since such text often does not parse. Refuses: to keep any
part of a value that never ends. A string or bracket without an end is masked to the end of the text.
"""

import re
from collections.abc import Iterator, Sequence

from tailer.core.masking.detection import Rule, Span

FIELD_RULE_NAME = "field"
SCALAR = re.compile(r"[^\s,}\]]+")
BRACKET = re.compile(r"[\[\]{}]|(?P<quote>\\{0,3}[\"'])")
NOTHING = frozenset({"null", "None"})


def _end_of_string(text: str, start: int, quote: str) -> int:
    """The index of the quote (or the end of the text) that ends a string whose content begins at `start`."""
    position = text.find(quote, start)
    while position > 0 and len(quote) == 1 and text[position - 1] == "\\":
        slashes = len(text[start:position]) - len(text[start:position].rstrip("\\"))
        if slashes % 2 == 0:
            break
        position = text.find(quote, position + 1)
    return len(text) if position < 0 else position


def _end_of_container(text: str, start: int) -> int:
    depth = 0
    position = start
    while (found := BRACKET.search(text, position)) is not None:
        position = found.end()
        if found["quote"]:
            position = _end_of_string(text, position, found["quote"]) + len(found["quote"])
        elif found.group() in "[{":
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return position
    return len(text)


def build_field_rule(names: Sequence[str]) -> Rule:
    """The rule that masks what follows any of these names, quoted and with a colon."""
    pattern = re.compile(
        r"(?P<quote>\\{0,3}[\"'])(?:"
        + "|".join(map(re.escape, names))
        + r")(?P=quote)[ \t\r\n]{0,64}:[ \t\r\n]{0,64}"
    )

    def find(text: str) -> Iterator[Span]:
        position = 0
        while (match := pattern.search(text, position)) is not None:
            start = position = match.end()
            quote = match["quote"]
            if text.startswith(quote, start):
                start += len(quote)
                position = end = _end_of_string(text, start, quote)
            elif text[start : start + 1] in ("{", "["):
                position = end = _end_of_container(text, start)
            else:
                scalar = SCALAR.match(text, start)
                if scalar is None or scalar.group() in NOTHING:
                    continue
                position = end = scalar.end()
            if start < end:
                yield start, end

    return Rule(name=FIELD_RULE_NAME, triggers=tuple(names), find=find)
