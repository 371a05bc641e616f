"""From a table and the environment to a destination: what the table does not state is as the environment says.

What leads to a server goes together. The keys, headers and certificates of the environment are those of its own
`LANGFUSE_HOST` (or `OTEL_EXPORTER_OTLP_ENDPOINT`): a table that states another host states them too, if it needs any.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from pydantic import SecretStr

from tailer.core.policy.policies import ContentChoice, ContentRule, Fact
from tailer.core.policy.users import UserIdChoice
from tailer.settings.content import SECRET_ACCEPTS, check_user_secret
from tailer.settings.destinations.destination import (
    Choices,
    Compression,
    DestinationSettings,
    FileDestination,
    LangfuseDestination,
    OtlpDestination,
    Way,
)
from tailer.settings.destinations.otel_environment import (
    METRICS_PATH,
    TRACES_PATH,
    OtelEnvironment,
    UnfitVariableError,
    decode_headers,
)
from tailer.settings.destinations.problems import Problem, table_of
from tailer.settings.destinations.secret_sources import BY_VALUE, Found, find_secret
from tailer.settings.destinations.surroundings import Surroundings
from tailer.settings.destinations.tables import DestinationTable, FileTable, LangfuseTable, OtlpTable
from tailer.settings.kinds import UnfitValueError
from tailer.settings.langfuse import check_public_key, check_secret_key
from tailer.settings.langfuse_access import LANGFUSE_OWN_NAMES, check_headers, parse_headers

Check: TypeAlias = Callable[[str], object]
ParseHeaders: TypeAlias = Callable[[str], Mapping[str, str]]
_DEFAULT: Final = "default"
_Value = TypeVar("_Value")
_LEAST_SHOWN: Final = (ContentChoice.FULL, ContentChoice.MASKED, ContentChoice.NONE)
_CHOICE_NAMES: Final[Mapping[str, str]] = {
    "content": "TAILER_CONTENT",
    "content_rules": "TAILER_CONTENT_RULES",
    "user_id": "TAILER_USER_ID",
    "sample_rate": "LANGFUSE_SAMPLE_RATE",
    "environment": "LANGFUSE_TRACING_ENVIRONMENT",
    "release": "LANGFUSE_RELEASE",
}
"""The keys of a table that are settings of the environment too."""


class _Unusable(Exception):
    """The destination cannot be made; what is wrong was noted."""


@dataclass(slots=True)
class Resolution:
    """One destination while it is made: where its values come from, and what is wrong."""

    name: str
    table: DestinationTable
    around: Surroundings
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The heading in the file."""
        return table_of(self.name)

    def resolve(self) -> DestinationSettings | None:
        """The destination, None if it cannot be made."""
        try:
            choices = self._choices()
            match self.table:
                case LangfuseTable():
                    made: DestinationSettings = self._langfuse(self.table, choices)
                case OtlpTable():
                    made = self._otlp(self.table, choices)
                case FileTable():
                    path = self.take("path", self.table.path, self.around.file_path, "TAILER_FILE_PATH")
                    made = FileDestination(self.name, choices, path)
        except _Unusable:
            return None
        except UnfitVariableError as error:
            self.refuse(error.name, error.problem, error.remedy)
            return None
        return None if self.problems else made

    def refuse(self, key: str, problem: str, remedy: str) -> None:
        """Note what is wrong with a key."""
        self.problems.append(Problem(f"{self.where} {key}", problem, remedy))

    def take(self, key: str, stated: _Value | None, otherwise: _Value, variable: str) -> _Value:
        """The stated value, else what the environment says."""
        self.sources[key] = BY_VALUE if stated is not None else f"as {variable}"
        return otherwise if stated is None else stated

    def secret(self, key: str) -> Found | None:
        """The secret that the table states in one of the three ways."""
        found = find_secret(self.table, key, where=self.where, variables=self.around.variables)
        if isinstance(found, Problem):
            self.problems.append(found)
            raise _Unusable
        if found is not None:
            self.sources[key] = found.source
        return found

    def _choices(self) -> Choices:
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
            self.sources["user_id_secret"] = "as TAILER_USER_ID_SECRET"
        if choices.user_id is not UserIdChoice.HASH:
            return choices
        if choices.user_id_secret is None:
            self.refuse("user_id_secret", "is missing, while user_id is hash", f"give {SECRET_ACCEPTS}")
        if Fact.USER in self.around.tag_facts:
            remedy = "leave user out of TAILER_TAG_FACTS"
            self.refuse("user_id", "is hash, while TAILER_TAG_FACTS shows the id as a tag", remedy)
        return choices

    def check(self, found: Found, check: Check, accepts: str) -> None:
        """Refuse a secret that its kind refuses."""
        try:
            check(found.value.get_secret_value())
        except UnfitValueError as error:
            self.refuse(found.key, error.problem, error.remedy or f"give {accepts}")

    def _langfuse(self, table: LangfuseTable, choices: Choices) -> LangfuseDestination:
        around = self.around
        host = self.take("host", table.host, around.host, "LANGFUSE_HOST")
        public_key, secret_key = self._keys(is_own_host=host == around.host)
        way = self._way(
            table, around.way if host == around.host else Way(), parse_headers, "TAILER_LANGFUSE_"
        )
        return LangfuseDestination(self.name, choices, host, public_key, secret_key, way)

    def _keys(self, *, is_own_host: bool) -> tuple[str, SecretStr]:
        public, secret = self.secret("public_key"), self.secret("secret_key")
        around = self.around
        if public is None and secret is None and is_own_host and around.public_key and around.secret_key:
            self.sources["public_key"] = "as LANGFUSE_PUBLIC_KEY"
            self.sources["secret_key"] = "as LANGFUSE_SECRET_KEY"
            return around.public_key, around.secret_key
        for key, found, other in (("public_key", public, secret), ("secret_key", secret, public)):
            if found is not None:
                continue
            reason = "is missing"
            if other is not None:
                reason = f"is missing, while {other.key} is stated"
            elif around.public_key and not is_own_host:
                reason = "is missing, and the keys of the environment are for LANGFUSE_HOST only"
            self.refuse(key, reason, f"give {key}, {key}_env or {key}_file")
        if public is None or secret is None:
            raise _Unusable
        self.check(public, check_public_key, "the public key, which begins with pk-")
        self.check(secret, check_secret_key, "the secret key, which begins with sk-")
        return public.value.get_secret_value(), secret.value

    def _way(self, table: LangfuseTable | OtlpTable, otherwise: Way, parse: ParseHeaders, prefix: str) -> Way:
        headers = self._headers(table, parse)
        if headers is None:
            headers = otherwise.headers
            if headers:
                self.sources["headers"] = f"as {prefix}HEADERS"
        files: dict[str, Path | None] = {"ca_file": table.ca_file}
        # A certificate and its key come from one place.
        names = ("cert_file", "key_file")
        own = any(getattr(table, name) is not None for name in names)
        files |= {name: getattr(table if own else otherwise, name) for name in names}
        if files["ca_file"] is None:
            files["ca_file"] = otherwise.ca_file
        for name, path in files.items():
            if path is not None:
                stated = getattr(table, name) is not None
                self.sources[name] = BY_VALUE if stated else f"as {prefix}{name.upper()}"
        if files["key_file"] is not None and files["cert_file"] is None:
            self.refuse("key_file", "is stated without cert_file", "state both, or the certificate only")
        return Way(headers, **files)

    def _headers(self, table: LangfuseTable | OtlpTable, parse: ParseHeaders) -> Mapping[str, str] | None:
        if table.headers is not None and (table.headers_env or table.headers_file):
            self.refuse(
                "headers", "is stated in several ways", "keep one of headers, headers_env, headers_file"
            )
            return None
        try:
            if table.headers is not None:
                self.sources["headers"] = BY_VALUE
                headers = {name: value.get_secret_value() for name, value in table.headers.items()}
                # An Authorization besides the keys would be the second one.
                check_headers(headers, *([LANGFUSE_OWN_NAMES] if isinstance(table, LangfuseTable) else []))
                return headers
            found = self.secret("headers")
            return None if found is None else parse(found.value.get_secret_value())
        except UnfitValueError as error:
            self.refuse("headers", error.problem, error.remedy or "give headers by name")
            return None

    def _otlp(self, table: OtlpTable, choices: Choices) -> OtlpDestination:
        otel = OtelEnvironment(self.around.variables)
        is_own = table.endpoint is not None or table.traces_endpoint is not None
        traces_url = table.traces_endpoint or (f"{table.endpoint}{TRACES_PATH}" if table.endpoint else None)
        self.sources["endpoint"] = BY_VALUE
        if traces_url is None:
            otel.check_protocol()
            found = otel.traces_url()
            if found is None:
                remedy = "give a URL such as http://collector:4318, or set OTEL_EXPORTER_OTLP_ENDPOINT"
                self.refuse("endpoint", "is missing", remedy)
                raise _Unusable
            traces_url, variable = found
            self.sources["endpoint"] = f"as {variable}"
        return OtlpDestination(
            name=self.name,
            choices=choices,
            traces_url=traces_url,
            metrics_url=self._metrics_url(table, otel, is_own=is_own) if table.metrics else None,
            compression=self._of_otel("compression", table.compression, otel.compression(), Compression.GZIP),
            timeout=self._of_otel(
                "timeout_seconds", table.timeout_seconds, otel.timeout(), self.around.request_timeout
            ),
            way=self._otlp_way(table, otel, is_own=is_own),
        )

    def _metrics_url(self, table: OtlpTable, otel: OtelEnvironment, *, is_own: bool) -> str:
        url = table.metrics_endpoint or (f"{table.endpoint}{METRICS_PATH}" if table.endpoint else None)
        self.sources["metrics"] = BY_VALUE
        if url is None and not is_own:
            found = otel.metrics_url()
            url = None if found is None else found[0]
        if url is None:
            self.refuse(
                "metrics_endpoint", "is missing, while metrics is true", "give endpoint or metrics_endpoint"
            )
            raise _Unusable
        return url

    def _of_otel(
        self, key: str, stated: _Value | None, found: tuple[_Value, str] | None, otherwise: _Value
    ) -> _Value:
        if stated is not None or found is None:
            self.sources[key] = BY_VALUE if stated is not None else _DEFAULT
            return otherwise if stated is None else stated
        self.sources[key] = f"as {found[1]}"
        return found[0]

    def _otlp_way(self, table: OtlpTable, otel: OtelEnvironment, *, is_own: bool) -> Way:
        otherwise = Way()
        if not is_own:
            headers = otel.headers()
            files = {
                key: found[0]
                for key, name in (
                    ("ca_file", "CERTIFICATE"),
                    ("cert_file", "CLIENT_CERTIFICATE"),
                    ("key_file", "CLIENT_KEY"),
                )
                if (found := otel.file(name)) is not None
            }
            otherwise = Way({} if headers is None else headers[0], **files)
        return self._way(table, otherwise, decode_headers, "OTEL_EXPORTER_OTLP_")


def cap_rules(rules: tuple[ContentRule, ...], content: ContentChoice) -> tuple[ContentRule, ...]:
    """The rules of the environment for a destination that states `content` alone: none shows more than that."""
    most = _LEAST_SHOWN.index(content)
    return tuple(
        replace(rule, choice=_LEAST_SHOWN[max(most, _LEAST_SHOWN.index(rule.choice))]) for rule in rules
    )
