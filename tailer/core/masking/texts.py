"""Masking of one text: the search for matches, and what is written in their place.

Owns: the order of work on a text, and how much of it one turn may take. Refuses: a text that needs more. It raises
`MaskingError`, and the caller withholds the content.

The masker cuts a text at its placeholders and searches each piece with every rule. It replaces the matches and searches
the pieces in between again, until nothing is found. So masking twice equals masking once, whatever the rules are.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from tailer.core.masking.detection import ANY_DIGIT, DIGITS, Rule
from tailer.core.masking.placeholders import PlaceholderMaker
from tailer.core.masking.rules import MaskingError, MaskingRules

MOST_PASSES = 12
MOST_STEPS = 200_000
"""Of work on all texts of one turn: a second or two, in which everything else waits. A value inside JSON is one step, a
candidate of a rule is two. A megabyte of a table with an address and a number in each row takes 90,000."""
STEPS_OF_A_CANDIDATE = 2
LONGEST_AFTERWARDS = 1_000
"""Characters of a text that is still searched when the work is done: it may be a name."""
LONGEST_MATCH = 8_000
"""Characters beyond a cut that are searched too: no token is longer, for it would not fit into the header of a request.
A match of an operator's expression has fewer than a thousand."""

_RankedRules: TypeAlias = tuple[tuple[int, Rule], ...]


class TextMasker:
    """Masks texts with one set of rules and one key, and counts what it replaced."""

    def __init__(self, rules: MaskingRules, key: bytes, tally: Counter[str] | None) -> None:
        """`key`: at least 16 secret bytes (ValueError if shorter). `tally`: what counts for several maskers."""
        self._rules = rules
        self._choice = _Choice(rules.rules)
        self._by_name = {rule.name: rule for rule in rules.rules}
        self._placeholders = PlaceholderMaker(key)
        self._tally = tally
        self._left = MOST_STEPS
        self.counts: Counter[str] = Counter()

    def mask(self, text: str, cue: str = "") -> str:
        """The text with every found value replaced; raises MaskingError when it cannot be sure.

        `cue`: what stands before the text without being part of it, such as `phone: `.
        """
        return "".join([written for _, written, _ in self._segments(text, cue)])

    def mask_beginning(self, text: str, length: int) -> str:
        """So many characters of the text, masked as in the whole text: no value is left incomplete at their end."""
        kept = []
        for start, written, is_placeholder in self._segments(text[: length + LONGEST_MATCH], ""):
            if start >= length:
                break
            kept.append(written if is_placeholder else written[: length - start])
        return "".join(kept)

    def replace(self, name: str, value: str) -> str:
        """The placeholder of a value that the rule of this name found."""
        self.count(name, 1)
        rule = self._by_name.get(name)
        return self._placeholders.make(name, rule.normalise(value) if rule is not None else value)

    def spend(self, steps: int) -> None:
        """Count work; raises MaskingError when the turn has had its share."""
        self._left -= steps
        if self._left < 0:
            raise _exhausted()

    def count(self, name: str, number: int) -> None:
        """Count replacements."""
        self.counts[name] += number
        if self._tally is not None:
            self._tally[name] += number

    def _segments(self, text: str, cue: str) -> list[tuple[int, str, bool]]:
        """What is written, piece by piece: where it began in the text, and whether it is a placeholder."""
        if self._left < 0 and len(text) > LONGEST_AFTERWARDS:
            raise _exhausted()
        segments: list[tuple[int, str, bool]] = []
        position = 0
        if "[" in text:
            for placeholder in self._rules.placeholder.finditer(text):
                start, end = placeholder.span()
                self._search(text[position:start], position, None, cue, 1, segments)
                segments.append((start, placeholder.group(), True))
                position, cue = end, ""
        self._search(text[position:], position, None, cue, 1, segments)
        return segments

    def _search(
        self,
        piece: str,
        base: int,
        rules: _RankedRules | None,
        cue: str,
        passes: int,
        segments: list[tuple[int, str, bool]],
    ) -> None:
        # A rule whose triggers are not in a piece has none in a part of it either.
        active = self._choice.choose(cue + piece) if rules is None else _choose_among(rules, cue + piece)
        spans = self._find_spans(piece, active, cue) if active else ()
        if not spans:
            segments.append((base, piece, False))
            return
        if passes > MOST_PASSES:
            message = f"the text still changes after {MOST_PASSES} passes"
            raise MaskingError(message)
        position = 0
        for start, end, precedence in spans:
            if position < start:
                self._search(piece[position:start], base + position, active, cue, passes + 1, segments)
            written = self.replace(self._rules.rules[precedence].name, piece[start:end])
            segments.append((base + start, written, True))
            position, cue = end, ""
        if position < len(piece):
            self._search(piece[position:], base + position, active, "", passes + 1, segments)

    def _find_spans(self, piece: str, rules: _RankedRules, cue: str) -> list[tuple[int, int, int]]:
        """Where something is to be replaced, and by which rule: overlapping matches are one, of the earliest rule."""
        found: list[tuple[int, int, int]] = []
        for precedence, rule in rules:
            before = cue if cue and rule.is_announced(cue) else ""
            offset = len(before)
            for start, end in rule.find(before + piece):
                self.spend(STEPS_OF_A_CANDIDATE)
                if start < end and end > offset:
                    found.append((max(0, start - offset), end - offset, precedence))
        found.sort()
        merged: list[tuple[int, int, int]] = []
        for start, end, precedence in found:
            if merged and start < merged[-1][1]:
                first, last, other = merged[-1]
                merged[-1] = (first, max(last, end), min(other, precedence))
            else:
                merged.append((start, end, precedence))
        return merged


class _Choice:
    """The rules by their triggers: a short text is asked for each trigger once, and most texts hold none."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules: _RankedRules = tuple(enumerate(rules))
        self._shortest = min((rule.shortest for rule in rules), default=0)
        self._always = frozenset(rank for rank, rule in self._rules if not rule.triggers)
        self._of_digits = frozenset(rank for rank, rule in self._rules if rule.triggers is DIGITS)
        others = [ranked for ranked in self._rules if ranked[0] not in self._of_digits]
        self._as_written = [
            (word, rank) for rank, rule in others if not rule.folded for word in rule.triggers
        ]
        self._folded = [(word, rank) for rank, rule in others if rule.folded for word in rule.triggers]

    def choose(self, text: str) -> _RankedRules:
        """The rules that can find anything in a text, in order."""
        if len(text) < self._shortest:
            return ()
        ranks = {rank for word, rank in self._as_written if word in text}
        lowered = text.lower()
        ranks.update([rank for word, rank in self._folded if word in lowered])
        if ANY_DIGIT.search(text) is not None:
            ranks |= self._of_digits
        ranks |= self._always
        if not ranks:
            return ()
        return _choose_among([self._rules[rank] for rank in sorted(ranks)], text)


def _choose_among(rules: Sequence[tuple[int, Rule]], text: str) -> _RankedRules:
    if not text:
        return ()
    lowered = text.lower()
    return tuple([ranked for ranked in rules if ranked[1].may_match(text, lowered)])


def _exhausted() -> MaskingError:
    return MaskingError(f"the texts of one turn take more than {MOST_STEPS} steps")
