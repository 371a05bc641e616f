"""A destination as the daemon gets it: everything is resolved, nothing is left to the environment.

The shapes that the flow and the senders are built from:

- `settings.destinations` is a tuple of `LangfuseDestination | OtlpDestination | FileDestination`, in the order of the
  file, with at least one; each has `name`, `kind` and `choices`.
- `settings.routes` is a `tailer.core.policy.routes.Routes`; `routes.choose(facts)` gives names of destinations.
- Without a file there is one destination, named `default`, and it gets everything that is sent.

Secrets are `SecretStr` or not part of the representation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import SecretStr

from tailer.core.policy import routes
from tailer.core.policy.policies import ContentChoice, ContentRule
from tailer.core.policy.users import UserIdChoice

DEFAULT_NAME: Final = routes.DEFAULT_NAME


class DestinationKind(StrEnum):
    """What takes the traces."""

    LANGFUSE = "langfuse"
    OTLP = "otlp"
    FILE = "file"


class Compression(StrEnum):
    """How the body of an OTLP request is compressed."""

    GZIP = "gzip"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Choices:
    """What a destination is shown, and what its traces carry. `sample_rate` is a share of the conversations."""

    content: ContentChoice
    content_rules: tuple[ContentRule, ...]
    user_id: UserIdChoice
    user_id_secret: SecretStr | None
    sample_rate: float
    environment: str
    release: str | None


@dataclass(frozen=True, slots=True)
class Way:
    """What every request to a server carries or proves besides the keys: headers by name, files in PEM."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class LangfuseDestination:
    """A project of a Langfuse; `host` is its base URL without a slash at the end."""

    kind: ClassVar[DestinationKind] = DestinationKind.LANGFUSE
    name: str
    choices: Choices
    host: str
    public_key: str = field(repr=False)
    secret_key: SecretStr
    way: Way


@dataclass(frozen=True, slots=True)
class MetricsWay:
    """Where the metrics of an OTLP destination go, and how often; the variables may name another server for them."""

    url: str = field(repr=False)
    compression: Compression
    timeout: timedelta
    way: Way
    interval: timedelta


@dataclass(frozen=True, slots=True)
class OtlpDestination:
    """A server that takes OTLP over HTTP as protobuf.

    `traces_url` is complete, a query may hold a key, so it appears in no representation. `metrics` is None if no GenAI
    metrics are to be sent. `resource` are further attributes of the resource.
    """

    kind: ClassVar[DestinationKind] = DestinationKind.OTLP
    name: str
    choices: Choices
    traces_url: str = field(repr=False)
    metrics: MetricsWay | None
    compression: Compression
    timeout: timedelta
    way: Way
    service_name: str
    resource: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FileDestination:
    """A file with one line a trace."""

    kind: ClassVar[DestinationKind] = DestinationKind.FILE
    name: str
    choices: Choices
    path: Path


DestinationSettings: TypeAlias = LangfuseDestination | OtlpDestination | FileDestination


def address_of(destination: DestinationSettings) -> str:
    """Where a destination is, as people and checkpoints name it: a URL without a query, or a path."""
    match destination:
        case LangfuseDestination(host=host):
            return host
        case OtlpDestination(traces_url=url):
            return urlsplit(url)._replace(query="").geturl()
        case FileDestination(path=path):
            return str(path)
