"""What an operator decides about which turns are exported and what of them is shown.

A rule names one fact of a turn and a pattern (`endpoint=openAI`, `model=gpt-4*`). Patterns are case-sensitive shell
patterns. A fact without a value matches no rule. A fact that could not be read may match any rule on it, and the
strictest of what then could be decided counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final, TypeAlias


class TemporaryPolicy(StrEnum):
    """What happens to temporary chats: nothing is sent, their numbers without text, or everything."""

    SKIP = "skip"
    METADATA = "metadata"
    FULL = "full"


class CopyPolicy(StrEnum):
    """What happens to forks, duplicates and imports: nothing is sent, or a trace without usage and cost."""

    SKIP = "skip"
    EXPORT = "export"


class NativePolicy(StrEnum):
    """What happens to turns that LibreChat traced itself: nothing is sent, or a second trace under its own id."""

    SKIP = "skip"
    DUPLICATE = "duplicate"


class DeletionPolicy(StrEnum):
    """What happens to a trace when its message is deleted: it stays, or it is deleted too."""

    KEEP = "keep"
    DELETE = "delete"


class ContentChoice(StrEnum):
    """How much of what people wrote is shown."""

    FULL = "full"
    MASKED = "masked"
    NONE = "none"


_FROM_MOST_TO_LEAST: Final = (ContentChoice.FULL, ContentChoice.MASKED, ContentChoice.NONE)


def strictest(*choices: ContentChoice) -> ContentChoice:
    """The one of some choices that shows least."""
    return max(choices, key=_FROM_MOST_TO_LEAST.index)


class Fact(StrEnum):
    """The facts of a turn that rules can name."""

    ENDPOINT = "endpoint"
    MODEL = "model"
    AGENT = "agent"
    USER = "user"
    TENANT = "tenant"
    ROLE = "role"
    GROUP = "group"
    TAG = "tag"


class Unread(Enum):
    """In place of a fact's value: there may be one, but what says so could not be read."""

    UNREAD = "unread"


UNREAD: Final = Unread.UNREAD
READ_ELSEWHERE: Final = (Fact.ROLE, Fact.GROUP, Fact.TAG)
"""The facts that other rows than the turn's own tell, so that they can be unread."""

Facts: TypeAlias = Mapping[Fact, str | tuple[str, ...] | Unread | None]
"""What is known of a turn; a user may be in several groups, and a conversation may have several tags. None: it has no
such value."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One fact and the pattern its value must have."""

    fact: Fact
    pattern: str

    def matches(self, facts: Facts) -> bool:
        """Whether the fact has a value, and one that matches the pattern."""
        return any(fnmatchcase(value, self.pattern) for value in values_of(facts, self.fact))


@dataclass(frozen=True, slots=True)
class ContentRule:
    """What is shown of turns that a rule matches."""

    rule: Rule
    choice: ContentChoice


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a turn is not exported: the fact that a rule names, and whether it is so only because that fact is unread."""

    fact: Fact
    unread: bool = False


@dataclass(frozen=True, slots=True)
class Policies:
    """All decisions together. The first matching content rule decides, else `content`.

    A turn is denied by any rule in `deny`. It is also denied by `allow`, if that names one of its facts and no pattern
    matches. An unread fact denies wherever one of its values would.
    """

    temporary: TemporaryPolicy = TemporaryPolicy.SKIP
    copies: CopyPolicy = CopyPolicy.SKIP
    native: NativePolicy = NativePolicy.SKIP
    content: ContentChoice = ContentChoice.FULL
    content_rules: tuple[ContentRule, ...] = ()
    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    def denied_by(self, facts: Facts) -> Denial | None:
        """The reason why a turn is not exported, None if it is exported."""
        for rule in self.deny:
            if rule.matches(facts):
                return Denial(rule.fact)
        for fact in dict.fromkeys(rule.fact for rule in self.allow):
            if not is_unread(facts, fact) and not any(
                rule.matches(facts) for rule in self.allow if rule.fact is fact
            ):
                return Denial(fact)
        asked = (rule.fact for rule in (*self.deny, *self.allow))
        unread = next((fact for fact in asked if is_unread(facts, fact)), None)
        return None if unread is None else Denial(unread, unread=True)

    def content_for(self, facts: Facts, *, temporary: bool) -> ContentChoice:
        """What is shown of a turn."""
        if temporary and self.temporary is TemporaryPolicy.METADATA:
            return ContentChoice.NONE
        possible: list[ContentChoice] = []
        for content_rule in self.content_rules:
            if content_rule.rule.matches(facts):
                return strictest(*possible, content_rule.choice)
            if is_unread(facts, content_rule.rule.fact):
                possible.append(content_rule.choice)
        return strictest(*possible, self.content)

    @property
    def content_digest(self) -> str:
        """What is remembered of these policies with a sent turn: another digest, another choice of content maybe."""
        rules = (f"{each.rule.fact}={each.rule.pattern}:{each.choice}" for each in self.content_rules)
        return sha256("\x00".join((self.temporary, self.content, *rules)).encode()).hexdigest()[:16]

    @property
    def may_mask(self) -> bool:
        """Whether the content of any turn is to be masked."""
        choices = (self.content, *(content_rule.choice for content_rule in self.content_rules))
        return ContentChoice.MASKED in choices

    @property
    def needs_users(self) -> bool:
        """Whether a rule asks for the role of a user."""
        return self._name(Fact.ROLE)

    @property
    def needs_groups(self) -> bool:
        """Whether a rule asks for the groups of a user."""
        return self._name(Fact.GROUP)

    def _name(self, fact: Fact) -> bool:
        rules = (*self.allow, *self.deny, *(content_rule.rule for content_rule in self.content_rules))
        return any(rule.fact is fact for rule in rules)


def values_of(facts: Facts, fact: Fact) -> tuple[str, ...]:
    """The values of a fact, none where it has none or could not be read."""
    value = facts.get(fact)
    return (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()


def is_unread(facts: Facts, fact: Fact) -> bool:
    """Whether a fact may have values that could not be read."""
    return facts.get(fact) is UNREAD


def parse_rule(text: str) -> Rule:
    """Read `fact=pattern`; raises ValueError that says what is wrong."""
    name, separator, pattern = text.strip().partition("=")
    names = ", ".join(fact.value for fact in Fact)
    if not separator or not pattern.strip():
        message = f"{text!r} is not fact=pattern with a fact of {names}"
        raise ValueError(message)
    try:
        return Rule(Fact(name.strip()), pattern.strip())
    except ValueError:
        message = f"{name.strip()!r} is none of {names}"
        raise ValueError(message) from None


def parse_content_rule(text: str) -> ContentRule:
    """Read `fact=pattern:choice`; raises ValueError that says what is wrong."""
    rule, separator, choice = text.rpartition(":")
    choices = ", ".join(known.value for known in ContentChoice)
    if not separator or choice.strip() not in set(ContentChoice):
        message = f"{text!r} does not end in a colon and one of {choices}"
        raise ValueError(message)
    return ContentRule(parse_rule(rule), ContentChoice(choice.strip()))


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Read several rules."""
    return tuple(parse_rule(text) for text in texts)


def is_sampled(conversation_id: str, rate: float) -> bool:
    """Whether a whole conversation belongs to the sample; `rate` is a share between 0 and 1.

    The conversation id decides, so that no conversation is shown in part. A higher rate keeps every conversation
    that a lower rate kept.
    """
    if rate >= 1.0:
        return True
    digest = sha256(b"sample:" + conversation_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < rate * 2**64


class TracesShown(StrEnum):
    """What the status page shows of the last traces."""

    NONE = "none"
    TREE = "tree"
    CONTENT = "content"
