"""Masking: personal data and secrets in texts and structured values become placeholders.

Owns: the replacement, and what "masked" means for nested values. Refuses: to return anything that it could not mask. It
raises `MaskingError`, and the caller withholds the content.

The masker cuts a text at its placeholders and searches each piece with every rule. It replaces the matches and searches
the pieces in between again, until nothing is found. So masking twice equals masking once, whatever the rules are.
"""

import json
import re
from collections import Counter

from tailer.core.masking import named_secrets as assignments
from tailer.core.masking.fields import FIELD_RULE_NAME
from tailer.core.masking.placeholders import PlaceholderMaker
from tailer.core.masking.rules import TOO_DEEP_NAME, MaskingError, MaskingRules, compile_rules

__all__ = ["Masker", "MaskingError", "MaskingRules", "compile_rules"]

SECRET_RULE_NAME = assignments.RULES[0].name
DEEPEST_VALUE = 64
MOST_PASSES = 12
LONGEST_INTEGER_TEXT = 4000
SHORTEST_NUMBER = 10**6
LONGEST_NUMBER = 10**40
SURROGATE = re.compile("[\ud800-\udfff]")


class Masker:
    """Masks with one set of rules and one key, and counts what it replaced.

    Cheap to make: use one for a turn and read `counts` after it. Not meant to be shared between threads.
    """

    def __init__(self, rules: MaskingRules, key: bytes, tally: Counter[str] | None = None) -> None:
        """`key`: at least 16 secret bytes, the same for a whole deployment (ValueError if shorter).

        `tally`: what counts for several maskers together.
        """
        self._rules = rules
        self._by_name = {rule.name: rule for rule in rules.rules}
        self._placeholders = PlaceholderMaker(key)
        self._counts: Counter[str] = Counter()
        self._tally = self._counts if tally is None else tally

    @property
    def counts(self) -> Counter[str]:
        """Replacements so far by rule name, as a copy."""
        return Counter(self._counts)

    def mask_text(self, text: str) -> str:
        """The text with every found value replaced; raises MaskingError when it cannot be sure."""
        if "[" not in text:
            return self._mask_piece(text, 1)
        written: list[str] = []
        position = 0
        for placeholder in self._rules.placeholder.finditer(text):
            written += (self._mask_piece(text[position : placeholder.start()], 1), placeholder.group())
            position = placeholder.end()
        written.append(self._mask_piece(text[position:], 1))
        return "".join(written)

    def mask_value(self, value: object) -> object:
        """The same value with all its texts and keys masked; null, lists and dictionaries keep their shape.

        Takes what JSON can hold. A string that is itself a JSON object or array is masked inside and
        stays one. A number that turns out to be a secret becomes a placeholder. Below 64 levels
        everything is a placeholder. Raises MaskingError for anything else.
        """
        return self._mask_value(value, 0)

    def _mask_piece(self, piece: str, passes: int) -> str:
        spans = self._find_spans(piece)
        if not spans:
            return piece
        if passes > MOST_PASSES:
            message = f"the text still changes after {MOST_PASSES} passes"
            raise MaskingError(message)
        written: list[str] = []
        position = 0
        for start, end, name in spans:
            written += (
                self._mask_piece(piece[position:start], passes + 1) if position < start else "",
                self._replace(name, piece[start:end]),
            )
            position = end
        if position < len(piece):
            written.append(self._mask_piece(piece[position:], passes + 1))
        return "".join(written)

    def _find_spans(self, piece: str) -> list[tuple[int, int, str]]:
        if not piece:
            return []
        lowered = piece.lower()
        found = [
            (start, end, precedence)
            for precedence, rule in enumerate(self._rules.rules)
            if rule.may_match(piece, lowered)
            for start, end in rule.find(piece)
            if start < end
        ]
        found.sort()
        merged: list[tuple[int, int, int]] = []
        for start, end, precedence in found:
            if merged and start < merged[-1][1]:
                first, last, other = merged[-1]
                merged[-1] = (first, max(last, end), min(other, precedence))
            else:
                merged.append((start, end, precedence))
        return [(start, end, self._rules.rules[precedence].name) for start, end, precedence in merged]

    def _replace(self, name: str, value: str) -> str:
        self._counts[name] += 1
        if self._tally is not self._counts:
            self._tally[name] += 1
        rule = self._by_name.get(name)
        return self._placeholders.make(name, rule.normalise(value) if rule is not None else value)

    def _mask_value(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._mask_string(value, depth)
        if isinstance(value, int | float):
            return self._mask_number(value)
        if not isinstance(value, dict | list | tuple):
            message = f"a value of type {type(value).__name__} cannot be masked"
            raise MaskingError(message)
        if depth >= DEEPEST_VALUE:
            return self._replace(TOO_DEEP_NAME, "")
        if isinstance(value, dict):
            return self._mask_members(value, depth)
        return [self._mask_value(item, depth + 1) for item in value]

    def _mask_members(self, members: dict[object, object], depth: int) -> dict[str, object]:
        masked: dict[str, object] = {}
        repeated: Counter[str] = Counter()
        for key, value in members.items():
            name = key if isinstance(key, str) else str(key)
            new_name = self.mask_text(name)
            if new_name in masked:
                # Two spellings of one address are two keys; both entries are kept.
                repeated[new_name] += 1
                new_name = f"{new_name} ({repeated[new_name] + 1})"
            masked[new_name] = self._mask_member(name, value, depth)
        return masked

    def _mask_member(self, name: str, value: object, depth: int) -> object:
        if name in self._rules.field_names:
            return self._mask_whole(FIELD_RULE_NAME, value)
        closing = assignments.find_closing_name(name) if SECRET_RULE_NAME in self._by_name else None
        # The value of a member is known to be a value, so no further evidence of a secret is needed.
        if (
            closing is not None
            and isinstance(value, str | int | float)
            and not isinstance(value, bool)
            and assignments.is_secret_value(str(value), closing, certain=True)
        ):
            return self._mask_whole(SECRET_RULE_NAME, value)
        return self._mask_value(value, depth + 1)

    def _mask_whole(self, rule_name: str, value: object) -> object:
        if (
            value is None
            or value == ""
            or (isinstance(value, str) and self._rules.placeholder.fullmatch(value))
        ):
            return value
        if isinstance(value, str):
            return self._replace(rule_name, value)
        try:
            return self._replace(rule_name, json.dumps(value, sort_keys=True))
        except (TypeError, ValueError, RecursionError) as error:
            message = "the value of a masked field is not JSON or is nested too deeply"
            raise MaskingError(message) from error

    def _mask_number(self, number: float) -> object:
        # Only an integer can be a card or an account, and neither is shorter or much longer.
        if not SHORTEST_NUMBER <= abs(number) < LONGEST_NUMBER or not float(number).is_integer():
            return number
        text = str(int(number))
        masked = self.mask_text(text)
        return number if masked == text else masked

    def _mask_string(self, text: str, depth: int) -> str:
        stripped = text.strip()
        if stripped[:1] in ("{", "[") and stripped[-1:] in ("}", "]"):
            masked = self._mask_json(text, depth)
            if masked is not None:
                return masked
        masked = self.mask_text(text)
        return self._mask_string(masked, depth + 1) if masked != text else masked

    def _mask_json(self, text: str, depth: int) -> str | None:
        """The JSON text masked inside, or None if it is not JSON."""
        repeats = False

        def read_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
            nonlocal repeats
            members = dict(pairs)
            repeats = repeats or len(members) < len(pairs)
            return members

        def read_integer(digits: str) -> object:
            return int(digits) if len(digits) < LONGEST_INTEGER_TEXT else digits

        try:
            value = json.loads(text, object_pairs_hook=read_members, parse_int=read_integer)
        except RecursionError:
            return self._replace(TOO_DEEP_NAME, text)
        except ValueError:
            return None
        before = self._counts.total()
        masked = self._mask_value(value, depth + 1)
        if self._counts.total() == before and not repeats:
            return text
        # The parser hid what a repeated key held, so it was not masked. The text is written anew without it.
        separators = (", ", ": ") if '": ' in text else (",", ":")
        written = json.dumps(masked, ensure_ascii=False, separators=separators)
        return SURROGATE.sub(lambda surrogate: f"\\u{ord(surrogate.group()):04x}", written)
