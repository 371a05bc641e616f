"""The one class of all settings, and the way in: everything that is wrong is named at once.

Refuses to connect anywhere: that a value is well formed, and a directory there, is all that is known here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import Field, InstanceOf, PrivateAttr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tailer.core.policy.policies import ContentChoice, TracesShown
from tailer.core.policy.routes import Routes
from tailer.core.policy.users import UserIdChoice
from tailer.core.stream.hints import Stream
from tailer.errors import SettingsError
from tailer.settings.addresses import parse_mongo_uri
from tailer.settings.connection_options import doubt_options
from tailer.settings.content import ContentSettings
from tailer.settings.delivery import DeliverySettings, SinkChoice
from tailer.settings.destinations.destination import Choices, DestinationSettings, Way
from tailer.settings.destinations.document import variables_named_in
from tailer.settings.destinations.plan import Plan, plan_from_environment, plan_from_file
from tailer.settings.destinations.surroundings import Surroundings
from tailer.settings.environment import Findings, NamedValuesSource, Origin, Place, collect_settings
from tailer.settings.kinds import UnfitValueError
from tailer.settings.langfuse import LangfuseSettings, unusual_keys
from tailer.settings.langfuse_access import LangfuseAccessSettings, parse_headers
from tailer.settings.mongo import DEFAULT_DATABASE, MongoSettings
from tailer.settings.operation import OperationSettings
from tailer.settings.selection import SelectionSettings
from tailer.settings.sharding import ShardingSettings
from tailer.settings.turns import TurnSettings

DOTENV: Final = ".env"
_UNKNOWN_REMEDY: Final = "correct the name or remove the variable; `tailer check-config` lists all names"


class UnknownNamesError(ValueError):
    """Names with the tailer's prefix that no setting has, each with a guess at the one that was meant."""

    def __init__(self, names: tuple[tuple[str, str], ...]) -> None:
        super().__init__(", ".join(name for name, _ in names))
        self.names = names


# Fields come from the last base to the first: a later group may look at the values of an earlier one.
class Settings(
    OperationSettings,
    ShardingSettings,
    DeliverySettings,
    ContentSettings,
    SelectionSettings,
    TurnSettings,
    MongoSettings,
    LangfuseAccessSettings,
    LangfuseSettings,
    BaseSettings,
):
    """The settings of one run; durations are `timedelta`, secrets `SecretStr`.

    Built from the environment and from `.env` in the working directory; values that code passes win over both.
    What depends on other settings is resolved: database, state server, sink, log level.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        env_file=DOTENV,
        env_file_encoding="utf-8",
        validate_default=True,
        hide_input_in_errors=True,
        defer_build=False,
    )

    findings: InstanceOf[Findings] = Field(default=Findings(), repr=False, exclude=True)
    _plan: Plan = PrivateAttr()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes it by name
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes it by name
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Replace pydantic's own sources: they know neither twins nor where a value came from."""
        return init_settings, NamedValuesSource(settings_cls, variables_named_in)

    @field_validator("findings")
    @classmethod
    def _refuse_unknown_names(cls, findings: Findings) -> Findings:
        if findings.unknown:
            raise UnknownNamesError(findings.unknown)
        return findings

    def model_post_init(self, context: object, /) -> None:
        """Resolve the destinations; raises SettingsError for a file that cannot be used."""
        del context
        around = self._surroundings()
        if self.destinations_file is None:
            self._plan = plan_from_environment(around)
            return
        if "sink" in self.findings.origins:
            raise SettingsError(
                operation="reading the settings",
                subject="TAILER_SINK",
                hint="TAILER_SINK is set beside TAILER_DESTINATIONS, whose file says where traces go: remove one of them",
            )
        self._plan = plan_from_file(self.destinations_file, around)

    def _surroundings(self) -> Surroundings:
        headers = self.langfuse_headers
        return Surroundings(
            choices=Choices(
                content=self.content,
                content_rules=self.content_rules,
                user_id=self.user_id,
                user_id_secret=self.user_id_secret,
                sample_rate=self.langfuse_sample_rate,
                environment=self.langfuse_environment,
                release=self.langfuse_release,
            ),
            host=self.langfuse_url,
            public_key=self.langfuse_public_key,
            secret_key=self.langfuse_secret_key,
            way=Way(
                {} if headers is None else parse_headers(headers.get_secret_value()),
                self.langfuse_ca_file,
                self.langfuse_cert_file,
                self.langfuse_key_file,
            ),
            file_path=self.file_path,
            is_file=self.sink is SinkChoice.FILE,
            tag_facts=self.tag_facts,
            request_timeout=self.request_timeout,
            variables=self.findings.variables,
        )

    @property
    def plan(self) -> Plan:
        """The destinations and routes with where they come from."""
        return self._plan

    @property
    def destinations(self) -> tuple[DestinationSettings, ...]:
        """Where traces go, resolved; at least one, named `default` if there is no file."""
        return self._plan.destinations

    @property
    def routes(self) -> Routes:
        """Which turns go to which destinations."""
        return self._plan.routes

    @property
    def uri_files(self) -> tuple[Path, ...]:
        """The file from which a URI of MongoDB was read, if it was a file."""
        places = {
            origin.place
            for name, origin in self.findings.origins.items()
            if name in {"mongo_uri", "state_uri"}
        }
        return (Path(DOTENV).absolute(),) if Place.DOTENV in places else ()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The collections that are tailed."""
        streams = (Stream.MESSAGES, Stream.CONVERSATIONS)
        return (*streams, Stream.TRANSACTIONS) if self.stream_transactions else streams

    @property
    def assumes_database(self) -> bool:
        """Whether nobody names LibreChat's database: neither the URI nor a setting."""
        path = parse_mongo_uri(self.mongo_uri.get_secret_value()).database
        return path is None and "mongo_database" not in self.model_fields_set

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is suspicious but usable, a sentence each."""
        origins = self.findings.origins
        path = parse_mongo_uri(self.mongo_uri.get_secret_value()).database
        found = list(self.findings.warnings)
        if self.assumes_database:
            found.append(
                f"the MongoDB URI names no database: {DEFAULT_DATABASE} is assumed; set TAILER_MONGO_DATABASE "
                "if LibreChat uses another"
            )
        if path is not None and "mongo_database" in origins:
            found.append(f"TAILER_MONGO_DATABASE is not used: the path of the MongoDB URI names {path}")
        if "state_uri" in origins:
            state_path = parse_mongo_uri(self.state_uri.get_secret_value()).database
            if state_path not in {None, "admin", self.state_database}:
                found.append(
                    f"the path of TAILER_STATE_URI names {state_path}, which only serves to log in: the state is "
                    f"kept in {self.state_database} (TAILER_STATE_DATABASE)"
                )
        for name, uri in (("TAILER_MONGO_URI", self.mongo_uri), ("TAILER_STATE_URI", self.state_uri)):
            if name == "TAILER_MONGO_URI" or "state_uri" in origins:
                found += doubt_options(uri.get_secret_value(), name)
        if self.destinations_file is None:
            found += unusual_keys(self.langfuse_public_key, self.langfuse_secret_key)
        found += self._plan.warnings
        found += (f"{name} is not used: {reason}" for name, reason in self._unused())
        return tuple(found)

    def _unused(self) -> Iterator[tuple[str, str]]:
        if self.shard.is_whole and self.shard_ordinal.pod is not None:
            yield "TAILER_SHARD", "TAILER_TOTAL_SHARDS is 1, and one instance does everything"
        users = {destination.choices.user_id for destination in self.destinations}
        if self.user_id_secret is not None and UserIdChoice.HASH not in users:
            yield "TAILER_USER_ID_SECRET", f"TAILER_USER_ID is {self.user_id.value}, not hash"
        choices = {
            choice
            for destination in self.destinations
            for choice in (
                destination.choices.content,
                *(rule.choice for rule in destination.choices.content_rules),
            )
        }
        if ContentChoice.MASKED not in choices:
            reason = "neither TAILER_CONTENT nor TAILER_CONTENT_RULES asks for masked content"
            if self.mask_patterns:
                yield "TAILER_MASK_PATTERNS", reason
            if self.mask_fields:
                yield "TAILER_MASK_FIELDS", reason
        if not self.status_page:
            reason = "TAILER_STATUS_PAGE is false"
            if self.status_traces is not TracesShown.NONE:
                yield "TAILER_STATUS_TRACES", reason
            if self.status_hosts:
                yield "TAILER_STATUS_HOSTS", reason


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` are typed values by attribute, for what code decides itself.

    Raises `SettingsError` with every unusable setting: its name, where it stands, the problem and the remedy.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = _describe_problems(error.errors(include_url=False, include_input=False), overrides)
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        hint = f"make {DOTENV} in the working directory a readable UTF-8 file, or remove it ({reason})"
        raise SettingsError(operation="reading the settings", subject=DOTENV, hint=hint) from None
    raise SettingsError(
        operation="reading the settings",
        subject=", ".join(dict.fromkeys(name for name, _ in problems)),
        hint="\n".join(f"{name} {problem}" for name, problem in problems),
    )


def _describe_problems(errors: list[ErrorDetails], overrides: Mapping[str, object]) -> list[tuple[str, str]]:
    found = NamedValuesSource(Settings).origins()
    origins = {attribute: origin for attribute, origin in found.items() if attribute not in overrides}
    problems: list[tuple[str, str]] = []
    for error in errors:
        cause = error.get("ctx", {}).get("error")
        if isinstance(cause, UnknownNamesError):
            problems += (
                (name, f"(environment) is not known{guess}: {_UNKNOWN_REMEDY}") for name, guess in cause.names
            )
        # Follows from the error of the setting that this one's default depends on.
        elif error["type"] != "default_factory_not_called":
            problems.append(_describe_problem(str(error["loc"][0]), error, cause, origins))
    return problems


def _describe_problem(
    attribute: str, error: ErrorDetails, cause: object, origins: dict[str, Origin]
) -> tuple[str, str]:
    setting = collect_settings(Settings.model_fields).get(attribute)
    if setting is None:
        return attribute, error["msg"]
    origin = origins.get(attribute)
    name = setting.names[0] if origin is None else origin.name
    remedy = f"give {setting.kind.accepts}"
    if error["type"] == "missing":
        return name, f"is not set: {remedy}"
    problem = cause.problem if isinstance(cause, UnfitValueError) else error["msg"]
    if isinstance(cause, UnfitValueError) and cause.remedy is not None:
        remedy = cause.remedy
    place = "" if origin is None else f"({origin.place.value}) "
    return name, f"{place}{problem}: {remedy}"
