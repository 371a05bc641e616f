"""One destination while it is made from its table: where its values come from, and what is wrong with them.

What a table does not state is as the environment says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from tailer.core.policy.policies import ContentChoice, ContentRule, Fact, strictest
from tailer.core.policy.users import UserIdChoice
from tailer.settings.content import SECRET_ACCEPTS, check_user_secret
from tailer.settings.destinations.destination import Choices, Way
from tailer.settings.destinations.problems import Problem, table_of
from tailer.settings.destinations.secret_sources import BY_VALUE, Found, find_secret
from tailer.settings.destinations.surroundings import Surroundings
from tailer.settings.destinations.tables import DestinationTable, LangfuseTable, OtlpTable
from tailer.settings.kinds import UnfitValueError
from tailer.settings.langfuse_access import check_headers

Check: TypeAlias = Callable[[str], object]
ParseHeaders: TypeAlias = Callable[[str], Mapping[str, str]]
_Value = TypeVar("_Value")
_CHOICE_NAMES: Final[Mapping[str, str]] = {
    "content": "TAILER_CONTENT",
    "content_rules": "TAILER_CONTENT_RULES",
    "user_id": "TAILER_USER_ID",
    "sample_rate": "LANGFUSE_SAMPLE_RATE",
    "environment": "LANGFUSE_TRACING_ENVIRONMENT",
    "release": "LANGFUSE_RELEASE",
}
"""The keys of a table that are settings of the environment too."""


class UnusableDestinationError(Exception):
    """The destination cannot be made; what is wrong was noted."""


@dataclass(frozen=True, slots=True)
class OtherWay:
    """The way to a server as the environment says it, and the names of its variables by key, for `sources`."""

    way: Way = field(default_factory=Way)
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Resolution:
    """The sources of one destination's values by key, and its problems, gathered while it is made."""

    name: str
    table: DestinationTable
    around: Surroundings
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The heading in the file."""
        return table_of(self.name)

    def refuse(self, key: str, problem: str, remedy: str) -> None:
        """Note what is wrong with a key."""
        self.problems.append(Problem(f"{self.where} {key}", problem, remedy))

    def take(self, key: str, stated: _Value | None, otherwise: _Value, variable: str) -> _Value:
        """The stated value, else what the environment says."""
        self.sources[key] = BY_VALUE if stated is not None else variable
        return otherwise if stated is None else stated

    def secret(self, key: str) -> Found | None:
        """The secret that the table states in one of the three ways; raises `UnusableDestinationError`."""
        found = find_secret(self.table, key, where=self.where, variables=self.around.variables)
        if isinstance(found, Problem):
            self.problems.append(found)
            raise UnusableDestinationError
        if found is not None:
            self.sources[key] = found.source
        return found

    def check(self, found: Found, check: Check, accepts: str) -> None:
        """Refuse a secret that its kind refuses."""
        try:
            check(found.value.get_secret_value())
        except UnfitValueError as error:
            self.refuse(found.key, error.problem, error.remedy or f"give {accepts}")

    def choices(self) -> Choices:
        """What the destination is shown, and what its traces carry."""
        table, given = self.table, self.around.choices
        taken = {
            key: self.take(key, getattr(table, key), getattr(given, key), variable)
            for key, variable in _CHOICE_NAMES.items()
        }
        choices = replace(given, **taken)
        if table.content is not None and table.content_rules is None:
            choices = replace(choices, content_rules=cap_rules(given.content_rules, table.content))
        return self._with_user_secret(choices)

    def _with_user_secret(self, choices: Choices) -> Choices:
        found = self.secret("user_id_secret")
        if found is not None:
            self.check(found, check_user_secret, SECRET_ACCEPTS)
            choices = replace(choices, user_id_secret=found.value)
        elif choices.user_id_secret is not None:
            self.sources["user_id_secret"] = "TAILER_USER_ID_SECRET"
        if choices.user_id is not UserIdChoice.HASH:
            return choices
        if choices.user_id_secret is None:
            self.refuse("user_id_secret", "is missing, while user_id is hash", f"give {SECRET_ACCEPTS}")
        if Fact.USER in self.around.tag_facts:
            remedy = "leave user out of TAILER_TAG_FACTS"
            self.refuse("user_id", "is hash, while TAILER_TAG_FACTS shows the id as a tag", remedy)
        return choices

    def way(
        self,
        table: LangfuseTable | OtlpTable,
        otherwise: OtherWay,
        parse: ParseHeaders,
        *check_with: frozenset[str],
    ) -> Way:
        """The way to a server. `parse` reads headers that are one text; `check_with` are names that the tailer sets
        itself, where they are others than usual."""
        headers = self._headers(table, parse, *check_with)
        if headers is None:
            headers = otherwise.way.headers
            if headers:
                self.sources["headers"] = otherwise.names["headers"]
        # A certificate and its key come from one place.
        is_own_pair = table.cert_file is not None or table.key_file is not None
        pair: LangfuseTable | OtlpTable | Way = table if is_own_pair else otherwise.way
        files: dict[str, Path | None] = {
            "ca_file": table.ca_file or otherwise.way.ca_file,
            "cert_file": pair.cert_file,
            "key_file": pair.key_file,
        }
        for key, path in files.items():
            if path is not None:
                self.sources[key] = BY_VALUE if getattr(table, key) is not None else otherwise.names[key]
        if files["key_file"] is not None and files["cert_file"] is None:
            self.refuse("key_file", "is stated without cert_file", "state both, or the certificate only")
        return Way(headers, **files)

    def _headers(
        self, table: LangfuseTable | OtlpTable, parse: ParseHeaders, *check_with: frozenset[str]
    ) -> Mapping[str, str] | None:
        if table.headers is not None and (table.headers_env or table.headers_file):
            remedy = "keep one of headers, headers_env and headers_file"
            self.refuse("headers", "is stated in several ways", remedy)
            return None
        try:
            if table.headers is None:
                found = self.secret("headers")
                return None if found is None else parse(found.value.get_secret_value())
            self.sources["headers"] = BY_VALUE
            headers = {name: value.get_secret_value() for name, value in table.headers.items()}
            check_headers(headers, *check_with)
        except UnfitValueError as error:
            self.refuse("headers", error.problem, error.remedy or "give headers by name")
            return None
        return headers


def cap_rules(rules: tuple[ContentRule, ...], content: ContentChoice) -> tuple[ContentRule, ...]:
    """The rules of the environment for a destination that states `content` alone: none shows more than that."""
    return tuple(replace(rule, choice=strictest(rule.choice, content)) for rule in rules)
