"""Masking: personal data and secrets in texts and structured values become placeholders.

Owns: what "masked" means for nested values, and the memory of a turn's long texts. Refuses: to return anything that it
could not mask. It raises `MaskingError`, and the caller withholds the content.
"""

import json
import re
from collections import Counter
from collections.abc import Callable

from tailer.core.light_dataclass import light_dataclass
from tailer.core.masking import named_secrets as assignments
from tailer.core.masking.detection import never_announced
from tailer.core.masking.fields import FIELD_RULE_NAME
from tailer.core.masking.rules import TOO_DEEP_NAME, MaskingError, MaskingRules, compile_rules
from tailer.core.masking.texts import TextMasker

__all__ = ["Masker", "MaskingError", "MaskingRules", "compile_rules"]

SECRET_RULE_NAME = assignments.RULES[0].name
DEEPEST_VALUE = 64
LONGEST_INTEGER_TEXT = 4000
SHORTEST_NUMBER = 10**6
LONGEST_NUMBER = 10**40
SURROGATE = re.compile("[\ud800-\udfff]")
CUE_LENGTH = 64
"""As far as a cue may stand before what it announces."""
MOST_NAMES = 1_000
SHORTEST_REMEMBERED = 200
MOST_REMEMBERED = 32_000_000
"""Characters of a turn; more than its trace may hold."""


@light_dataclass(frozen=True, slots=True)
class _Context:
    """Where a value stands: the key before it as a cue, and the name of a secret that covers it."""

    cue: str
    secret_name: str | None


_NO_CONTEXT = _Context("", None)


class Masker:
    """Masks with one set of rules and one key, and counts what it replaced.

    Cheap to make: use one for a turn and read `counts` after it. A long text that comes again is not searched again.
    Not meant to be shared between threads.
    """

    def __init__(self, rules: MaskingRules, key: bytes, tally: Counter[str] | None = None) -> None:
        """`key`: at least 16 secret bytes, the same for a whole deployment (ValueError if shorter).

        `tally`: what counts for several maskers together.
        """
        self._rules = rules
        self._texts = TextMasker(rules, key, tally)
        self._seeks_secrets = any(rule.name == SECRET_RULE_NAME for rule in rules.rules)
        self._cued = [rule for rule in rules.rules if rule.is_announced is not never_announced]
        self._contexts: dict[str, _Context] = {}
        self._harmless: set[str] = set()
        self._remembered: dict[tuple[str, int | None], tuple[str | MaskingError, Counter[str]]] = {}
        self._memory = MOST_REMEMBERED

    @property
    def counts(self) -> Counter[str]:
        """Replacements so far by rule name, as a copy."""
        return Counter(self._texts.counts)

    def mask_text(self, text: str) -> str:
        """The text with every found value replaced; raises MaskingError when it cannot be sure."""
        return self._texts.mask(text)

    def mask_beginning(self, text: str, length: int) -> str:
        """So many characters of a text, masked as in the whole of it; a text that is no longer is masked as a value.

        A value at their end is replaced as a whole, although it goes on beyond them. Raises MaskingError when it
        cannot be sure.
        """
        if len(text) <= length:
            return str(self.mask_value(text))
        if length == 0:
            return ""
        return self._recall(text, length, lambda: self._texts.mask_beginning(text, length))

    def mask_value(self, value: object) -> object:
        """The same value with all its texts and keys masked; null, lists and dictionaries keep their shape.

        Takes what JSON can hold. A string that is itself a JSON object or array is masked inside and
        stays one. A number that turns out to be a secret becomes a placeholder. What stands under a key is masked as
        behind it in a text, and everything under a key that announces a secret. Below 64 levels
        everything is a placeholder. Raises MaskingError for anything else.
        """
        return self._mask_value(value, 0, _NO_CONTEXT)

    def remember(self, masked: str) -> None:
        """Take a text for masked: one that this masker wrote, or the beginning of one."""
        if len(masked) >= SHORTEST_REMEMBERED and (masked, None) not in self._remembered:
            self._remember((masked, None), masked, Counter())

    def _recall(self, text: str, length: int | None, mask: Callable[[], str]) -> str:
        """What `mask` gives for a text, and counts; the same without its work where the text came before."""
        if len(text) < SHORTEST_REMEMBERED:
            return mask()
        known = self._remembered.get((text, length))
        if known is not None:
            masked, counts = known
            if isinstance(masked, MaskingError):
                raise masked
            for name, number in counts.items():
                self._texts.count(name, number)
            return masked
        before = self.counts
        try:
            masked = mask()
        except MaskingError as error:
            self._remember((text, length), error, Counter())
            raise
        self._remember((text, length), masked, self._texts.counts - before)
        self.remember(masked)
        return masked

    def _remember(
        self, key: tuple[str, int | None], masked: str | MaskingError, counts: Counter[str]
    ) -> None:
        self._memory -= len(key[0])
        if self._memory >= 0:
            self._remembered[key] = masked, counts

    def _mask_value(self, value: object, depth: int, context: _Context) -> object:
        if depth > 0:
            self._texts.spend(1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str | int | float):
            return self._mask_scalar(value, depth, context)
        if not isinstance(value, dict | list | tuple):
            message = f"a value of type {type(value).__name__} cannot be masked"
            raise MaskingError(message)
        if depth >= DEEPEST_VALUE:
            return self._texts.replace(TOO_DEEP_NAME, "")
        if isinstance(value, dict):
            return self._mask_members(value, depth, context)
        return [self._mask_value(item, depth + 1, context) for item in value]

    def _mask_members(
        self, members: dict[object, object], depth: int, context: _Context
    ) -> dict[str, object]:
        masked: dict[str, object] = {}
        repeated: Counter[str] = Counter()
        for key, value in members.items():
            name = key if isinstance(key, str) else str(key)
            new_name = self._mask_name(name)
            if new_name in masked:
                # Two spellings of one address are two keys; both entries are kept.
                repeated[new_name] += 1
                new_name = f"{new_name} ({repeated[new_name] + 1})"
            if name in self._rules.field_names:
                masked[new_name] = self._mask_whole(FIELD_RULE_NAME, value)
            else:
                masked[new_name] = self._mask_value(value, depth + 1, self._enter(name, context))
        return masked

    def _mask_name(self, name: str) -> str:
        """A key. Most keys come again and again and hold nothing to mask."""
        if name in self._harmless:
            return name
        self._texts.spend(1)
        masked = self._texts.mask(name)
        if masked == name and len(self._harmless) < MOST_NAMES:
            self._harmless.add(name)
        return masked

    def _enter(self, name: str, outer: _Context) -> _Context:
        """What is known of the value of a member, and of the items of its list."""
        known = self._contexts.get(name) if outer.secret_name is None else None
        if known is not None:
            return known
        before = f"{name[-CUE_LENGTH:]}: "
        cue = before if any(rule.is_announced(before) for rule in self._cued) else ""
        closing = assignments.find_closing_name(name) if self._seeks_secrets else None
        secret_name = closing or outer.secret_name
        context = _Context(cue, secret_name) if cue or secret_name is not None else _NO_CONTEXT
        if outer.secret_name is None and len(self._contexts) < MOST_NAMES:
            self._contexts[name] = context
        return context

    def _mask_scalar(self, value: str | float, depth: int, context: _Context) -> object:
        # The value of a member is known to be a value, so no further evidence of a secret is needed.
        name = context.secret_name
        if name is not None:
            # The digits of a placeholder make no secret of the text around it.
            judged = self._rules.placeholder.sub("x", str(value))
            if assignments.is_secret_value(judged, name, certain=True):
                return self._mask_whole(SECRET_RULE_NAME, value)
        if isinstance(value, str):
            return self._mask_string(value, depth, context)
        return self._mask_number(value, context)

    def _mask_whole(self, rule_name: str, value: object) -> object:
        if (
            value is None
            or value == ""
            or (isinstance(value, str) and self._rules.placeholder.fullmatch(value))
        ):
            return value
        if isinstance(value, str):
            return self._texts.replace(rule_name, value)
        try:
            return self._texts.replace(rule_name, json.dumps(value, sort_keys=True))
        except (TypeError, ValueError, RecursionError) as error:
            message = "the value of a masked field is not JSON or is nested too deeply"
            raise MaskingError(message) from error

    def _mask_number(self, number: float, context: _Context) -> object:
        # Only an integer can be a card or an account, and neither is shorter or much longer.
        if not SHORTEST_NUMBER <= abs(number) < LONGEST_NUMBER or not float(number).is_integer():
            return number
        text = str(int(number))
        masked = self._texts.mask(text, context.cue)
        return number if masked == text else masked

    def _mask_string(self, text: str, depth: int, context: _Context) -> str:
        if context is _NO_CONTEXT:
            return self._recall(text, None, lambda: self._mask_anew(text, depth, context))
        return self._mask_anew(text, depth, context)

    def _mask_anew(self, text: str, depth: int, context: _Context) -> str:
        masked = self._mask_json(text, depth, context) if _looks_like_json(text) else None
        if masked is not None:
            return masked
        masked = self._texts.mask(text, context.cue)
        if masked != text and _looks_like_json(masked):
            # What replacements made JSON of is masked as JSON.
            inside = self._mask_json(masked, depth + 1, context)
            return masked if inside is None else inside
        return masked

    def _mask_json(self, text: str, depth: int, context: _Context) -> str | None:
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
            return self._texts.replace(TOO_DEEP_NAME, text)
        except ValueError:
            return None
        before = self._texts.counts.total()
        masked = self._mask_value(value, depth + 1, context)
        if self._texts.counts.total() == before and not repeats:
            return text
        # The parser hid what a repeated key held, so it was not masked. The text is written anew without it.
        separators = (", ", ": ") if '": ' in text else (",", ":")
        written = json.dumps(masked, ensure_ascii=False, separators=separators)
        return SURROGATE.sub(lambda surrogate: f"\\u{ord(surrogate.group()):04x}", written)


def _looks_like_json(text: str) -> bool:
    stripped = text.strip()
    return stripped[:1] in ("{", "[") and stripped[-1:] in ("}", "]")
