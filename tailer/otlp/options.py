"""How an OTLP destination is reached, and what its spans say of their origin."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from tailer.outbound.certificates import CertificateFiles

DEFAULT_SERVICE: Final = "librechat"


class Compression(StrEnum):
    """How requests are packed."""

    NONE = "none"
    GZIP = "gzip"


@dataclass(frozen=True, slots=True)
class SignalOptions:
    """The way of one signal: the whole URL, and what each request carries. Headers, and what a URL holds besides host
    and path, are secrets and appear in no representation."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: timedelta = timedelta(seconds=10)
    compression: Compression = Compression.NONE
    files: CertificateFiles = field(default_factory=CertificateFiles)

    @property
    def shown_url(self) -> str:
        """The URL as an operator may see it: without a password and without a query."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port is not None else ""
        return f"{parts.scheme}://{host}{port}{parts.path}"


@dataclass(frozen=True, slots=True)
class OtlpOptions:
    """One OTLP destination. `metrics` is None where no metrics are asked for; `resource` are further attributes of the
    resource, which win over those that the tailer sets."""

    traces: SignalOptions
    metrics: SignalOptions | None = None
    metrics_interval: timedelta = timedelta(seconds=60)
    service_name: str = DEFAULT_SERVICE
    resource: Mapping[str, str] = field(default_factory=dict)
