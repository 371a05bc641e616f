"""The tables of a file of destinations, as they may be written: strict types, and no key that is not known.

Every key but `kind` may be left out. Keys, headers and secrets have three ways each: by value, by the name of an
environment variable (`…_env`), or by a file (`…_file`). Refuses to look at the environment and at files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, SecretStr
from pydantic_core import CoreSchema, core_schema

from tailer.core.policy.policies import ContentChoice, ContentRule, parse_content_rule
from tailer.core.policy.users import UserIdChoice
from tailer.settings.addresses import parse_langfuse_url, parse_otlp_base_url, parse_otlp_url
from tailer.settings.content import SECRET_ACCEPTS, check_user_secret
from tailer.settings.destinations.destination import Compression
from tailer.settings.kinds import Kind, UnfitValueError, choice, duration, pieces, secret, share, text
from tailer.settings.langfuse import check_environment, check_public_key, check_release, check_secret_key
from tailer.settings.places import check_file


@dataclass(frozen=True, slots=True)
class Given:
    """Annotation of a key: the kind of its values, and the TOML types in which they may be written."""

    kind: Kind
    types: tuple[type, ...] = (str,)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the type of TOML, then convert as a setting of this kind does."""

        def convert(value: object) -> object:
            if isinstance(value, bool) is not (bool in self.types) or not isinstance(value, self.types):
                raise UnfitValueError("is of another type")
            return self.kind.convert(value)

        # Pydantic's own validation sees the typed value only, also in strict mode.
        return core_schema.no_info_before_validator_function(convert, handler(source))


_FILE: Final = text("the path of a file that is there", check_file)
_NAME: Final = text("the name of an environment variable")
_PATH: Final = text("the path of a file with nothing but the value")
_NUMBER: Final = (int, float)
_RULES: Final = pieces('a list of texts such as "role=ADMIN:none"', parse_content_rule)

Variable: TypeAlias = Annotated[str | None, Given(_NAME)]
ValueFile: TypeAlias = Annotated[str | None, Given(_PATH)]
PemFile: TypeAlias = Annotated[Path | None, Field(strict=False), Given(_FILE)]


class _Table(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, defer_build=True
    )


class _DestinationTable(_Table):
    """What every kind of destination may state."""

    content: Annotated[ContentChoice | None, Given(choice(ContentChoice))] = None
    content_rules: Annotated[tuple[ContentRule, ...] | None, Given(_RULES, (list,))] = None
    user_id: Annotated[UserIdChoice | None, Given(choice(UserIdChoice))] = None
    user_id_secret: Annotated[SecretStr | None, Given(secret(SECRET_ACCEPTS, check_user_secret))] = None
    user_id_secret_env: Variable = None
    user_id_secret_file: ValueFile = None
    sample_rate: Annotated[float | None, Given(share(), _NUMBER)] = None
    environment: Annotated[str | None, Given(text("1 to 40 of a-z, 0-9, _ and -", check_environment))] = None
    release: Annotated[str | None, Given(text("a text of at most 200 characters", check_release))] = None


class _ServerTable(_DestinationTable):
    """What every server may state about the way to it."""

    headers: dict[str, SecretStr] | None = None
    headers_env: Variable = None
    headers_file: ValueFile = None
    ca_file: PemFile = None
    cert_file: PemFile = None
    key_file: PemFile = None


class LangfuseTable(_ServerTable):
    """`kind = "langfuse"`."""

    kind: Literal["langfuse"]
    host: Annotated[
        str | None, Given(text("a URL such as https://cloud.langfuse.com", parse_langfuse_url))
    ] = None
    public_key: Annotated[str | None, Given(text("the public key, as a rule pk-lf-…", check_public_key))] = (
        Field(default=None, repr=False)
    )
    public_key_env: Variable = None
    public_key_file: ValueFile = None
    secret_key: Annotated[
        SecretStr | None, Given(secret("the secret key, as a rule sk-lf-…", check_secret_key))
    ] = None
    secret_key_env: Variable = None
    secret_key_file: ValueFile = None


class OtlpTable(_ServerTable):
    """`kind = "otlp"`."""

    kind: Literal["otlp"]
    endpoint: Annotated[
        str | None, Given(text("a URL such as http://collector:4318", parse_otlp_base_url))
    ] = None
    traces_endpoint: Annotated[
        str | None, Given(text("a URL such as http://collector:4318/v1/traces", parse_otlp_url))
    ] = None
    metrics_endpoint: Annotated[
        str | None, Given(text("a URL such as http://collector:4318/v1/metrics", parse_otlp_url))
    ] = None
    protocol: Literal["http/protobuf"] | None = None
    compression: Annotated[Compression | None, Given(choice(Compression))] = None
    timeout_seconds: Annotated[timedelta | None, Given(duration(1, 300), _NUMBER)] = None
    metrics: bool | None = None
    service_name: Annotated[str | None, Given(text("a name such as librechat"))] = None
    resource: dict[str, str] | None = None


class FileTable(_DestinationTable):
    """`kind = "file"`."""

    kind: Literal["file"]
    path: Annotated[Path | None, Field(strict=False), Given(text("the path of a file"))] = None


DestinationTable: TypeAlias = LangfuseTable | OtlpTable | FileTable


class RouteTable(_Table):
    """One `[[routes]]`: each fact of `when` names patterns; `to` names destinations, none of them for nowhere."""

    when: dict[str, list[str]] = Field(default_factory=dict)
    to: list[str]


TABLES: Final[Mapping[str, type[DestinationTable]]] = {
    "langfuse": LangfuseTable,
    "otlp": OtlpTable,
    "file": FileTable,
}
"""The tables by the value of their `kind`."""
