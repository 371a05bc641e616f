"""The set of masking rules: the built-in ones, the operator's expressions and the masked field names.

Owns: which rules there are, their order of precedence, and the refusal of rules that cannot be used.
Refuses: to touch any content.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tailer.core.masking import cards_and_ibans as accounts
from tailer.core.masking import credentials
from tailer.core.masking import emails_and_phones as contacts
from tailer.core.masking import named_secrets as assignments
from tailer.core.masking.detection import Finder, Rule, Span
from tailer.core.masking.expressions import LONGEST_REPEAT, compile_expression
from tailer.core.masking.fields import FIELD_RULE_NAME, build_field_rule
from tailer.core.masking.placeholders import compile_placeholder_pattern

TOO_DEEP_NAME = "too-deep"
# Where spans overlap, the earlier rule gives the name.
BUILT_IN_RULES: tuple[Rule, ...] = (
    *credentials.RULES,
    *contacts.RULES[:1],
    *accounts.RULES,
    *assignments.RULES,
    *contacts.RULES[1:],
)


class MaskingError(Exception):
    """The content could not be masked and must be withheld; the message never holds any of it."""


@dataclass(frozen=True, slots=True)
class MaskingRules:
    """What to mask: the rules for texts in order of precedence, and the exact names of fields masked
    whole."""

    rules: tuple[Rule, ...]
    field_names: frozenset[str]
    placeholder: re.Pattern[str] = field(repr=False)

    @property
    def rule_names(self) -> tuple[str, ...]:
        """Every name that a placeholder or a count can have: a closed set."""
        return (*(rule.name for rule in self.rules), FIELD_RULE_NAME, TOO_DEEP_NAME)


def _find_expression(pattern: re.Pattern[str], name: str) -> Finder:
    group: str | int = "value" if "value" in pattern.groupindex else 0

    def find(text: str) -> Iterator[Span]:
        for match in pattern.finditer(text):
            if match.end() - match.start() >= LONGEST_REPEAT:
                message = f"{name} matched {LONGEST_REPEAT} characters or more, so its match may be cut short"
                raise MaskingError(message)
            yield match.span(group)

    return find


def compile_rules(
    patterns: Sequence[str], field_names: Sequence[str], *, switched_off: Sequence[str] = ()
) -> MaskingRules:
    """Builds the rules: the built-in ones except those `switched_off` by name, and the operator's own.

    `patterns`: regular expressions. If one has a group called `value`, only that group is masked. Their rules are
    called `pattern-1`, `pattern-2` and so on. `field_names`: keys, compared exactly, whose values are masked. Raises
    ValueError that names the bad expression and the position in it, or the unknown or empty name.
    """
    known = {rule.name for rule in BUILT_IN_RULES}
    for name in switched_off:
        if name not in known:
            message = f"there is no masking rule {name!r}; the rules are {', '.join(sorted(known))}"
            raise ValueError(message)
    for number, name in enumerate(field_names, start=1):
        if not name:
            message = f"masked field name {number} is empty"
            raise ValueError(message)
    rules = [rule for rule in BUILT_IN_RULES if rule.name not in switched_off]
    for number, expression in enumerate(patterns, start=1):
        name = f"pattern-{number}"
        rules.append(
            Rule(name=name, triggers=(), find=_find_expression(compile_expression(expression, number), name))
        )
    if field_names:
        rules.insert(0, build_field_rule(tuple(field_names)))
    # The placeholders of switched-off rules still count as placeholders.
    names = known | {rule.name for rule in rules} | {FIELD_RULE_NAME, TOO_DEEP_NAME}
    return MaskingRules(tuple(rules), frozenset(field_names), compile_placeholder_pattern(sorted(names)))
