"""What a masking rule is, and how a plain regular expression becomes one.

Owns: the shape of a rule (name, triggers, finder, normaliser), the cheap test that saves a text from the finder, and
the left boundary that all token rules share. Refuses: to know any particular secret, and to replace anything.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Span = tuple[int, int]
Finder = Callable[[str], Iterator[Span]]

DIGITS = tuple("0123456789")
ANY_DIGIT = re.compile("[0-9]")

# A token starts where no letter or digit stands before it; the letter of an escaped line break (a backslash
# and "n", as in source code and cut-off JSON) does not count as one.
BOUNDARY = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"


def keep_as_written(value: str) -> str:
    """The normaliser of values with only one spelling."""
    return value


def never_announced(before: str) -> bool:
    """The cue of rules to which it does not matter what stands before a value."""
    del before
    return False


def accept_all(match: re.Match[str]) -> bool:
    """The check of rules whose expression alone decides."""
    del match
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of value to mask.

    `triggers`: a text that holds none of them cannot hold such a value (no triggers: always look). `folded`: triggers
    are lower case and are looked for in the lower-cased text. `find`: gives the spans `[start, end)` to replace, in
    order and without overlap, in time linear in the text; an empty one tells of a candidate that took work and is none.
    `normalise`: brings spellings of one value to one form, so that they get one placeholder. `shortest`: a text of
    fewer characters holds no such value. `is_announced`: whether a text such as `phone: `, put before a value, can make
    one of this kind of it.
    """

    name: str
    triggers: tuple[str, ...]
    find: Finder
    normalise: Callable[[str], str] = keep_as_written
    folded: bool = False
    shortest: int = 1
    is_announced: Callable[[str], bool] = never_announced

    def may_match(self, text: str, lowered: str) -> bool:
        """Whether `text` is long enough and holds any trigger."""
        if len(text) < self.shortest:
            return False
        if self.triggers is DIGITS:
            return ANY_DIGIT.search(text) is not None
        haystack = lowered if self.folded else text
        for trigger in self.triggers:
            if trigger in haystack:
                return True
        return not self.triggers


def find_with(
    expression: str, accepts: Callable[[re.Match[str]], bool] = accept_all, flags: int = 0
) -> Finder:
    """A finder for `expression`: it gives the spans of the named group that took part, or else of the whole match."""
    pattern = re.compile(expression, flags)

    def find(text: str) -> Iterator[Span]:
        for match in pattern.finditer(text):
            if accepts(match):
                yield match.span(match.lastgroup or 0)

    return find
