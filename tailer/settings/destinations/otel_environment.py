"""What the environment says about an OTLP server, under OpenTelemetry's own names (`OTEL_EXPORTER_OTLP_*`).

Source: the OpenTelemetry specification, "OpenTelemetry Protocol Exporter" (1.5x): a name for traces wins over the
general one, the general endpoint gets `/v1/traces` at its end, the timeout is in milliseconds, and the headers are
percent-encoded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, cast
from urllib.parse import unquote

from tailer.settings.addresses import parse_otlp_base_url, parse_otlp_url
from tailer.settings.destinations.destination import Compression
from tailer.settings.kinds import Kind, UnfitValueError, choice, duration, quote
from tailer.settings.langfuse_access import check_headers, split_headers
from tailer.settings.places import check_file

_GENERAL: Final = "OTEL_EXPORTER_OTLP_"
_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
_TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_SERVICE: Final = "OTEL_SERVICE_NAME"
_RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"
_MILLISECOND: Final = timedelta(milliseconds=1)
PROTOCOL: Final = "http/protobuf"
TRACES_PATH: Final = "/v1/traces"
METRICS_PATH: Final = "/v1/metrics"


class UnfitVariableError(ValueError):
    """A variable that cannot be used: its name, the problem and the remedy."""

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        super().__init__(name)
        self.name = name
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class OtelEnvironment:
    """The variables of the process, as they count for one signal; each method raises `UnfitVariableError`, which quotes
    no secret."""

    variables: Mapping[str, str | None]
    signal: Literal["TRACES", "METRICS"] = "TRACES"

    def url(self) -> tuple[str, str] | None:
        """The complete URL for the signal, and the variable that gave it."""
        path = TRACES_PATH if self.signal == "TRACES" else METRICS_PATH
        return self._url(f"{_GENERAL}{self.signal}_ENDPOINT", path)

    def interval(self) -> tuple[timedelta, str] | None:
        """How often metrics are reported, and the variable that said so."""
        value = self._read(_INTERVAL)
        if not value:
            return None
        found = (_INTERVAL, value)
        return cast("timedelta", _convert(found, duration(1, 3_600_000, _MILLISECOND))), _INTERVAL

    def check_temporality(self) -> None:
        """Refuse sums since the start, which the tailer does not keep."""
        value = self._read(_TEMPORALITY)
        if value and value.lower() != "delta":
            remedy = "give delta, or leave it out; a collector makes sums of it"
            raise UnfitVariableError(_TEMPORALITY, f"is {quote(value)}", remedy)

    def headers(self) -> tuple[Mapping[str, str], str] | None:
        """The headers by name, and the variable that gave them."""
        found = self._find("HEADERS")
        if found is None:
            return None
        name, value = found
        try:
            return decode_headers(value), name
        except UnfitValueError as error:
            raise UnfitVariableError(name, error.problem, error.remedy or "correct it") from None

    def timeout(self) -> tuple[timedelta, str] | None:
        """How long a request may take, and the variable that said so."""
        found = self._find("TIMEOUT")
        if found is None:
            return None
        return cast("timedelta", _convert(found, duration(1, 300_000, _MILLISECOND))), found[0]

    def compression(self) -> tuple[Compression, str] | None:
        """How bodies are compressed, and the variable that said so."""
        found = self._find("COMPRESSION")
        return None if found is None else (Compression(str(_convert(found, choice(Compression)))), found[0])

    def file(self, name: str) -> tuple[Path, str] | None:
        """The file under a name such as `CERTIFICATE`, and the variable that gave it."""
        found = self._find(name)
        if found is None:
            return None
        try:
            return Path(check_file(found[1])), found[0]
        except UnfitValueError as error:
            raise UnfitVariableError(found[0], error.problem, error.remedy or "correct it") from None

    def service_name(self) -> tuple[str, str] | None:
        """The name of the service, and the variable that gave it."""
        if value := self._read(_SERVICE):
            return value, _SERVICE
        named = self._attributes().get("service.name")
        return None if named is None else (named, _RESOURCE)

    def resource(self) -> tuple[Mapping[str, str], str] | None:
        """Further attributes of the resource, and the variable that gave them."""
        found = {name: value for name, value in self._attributes().items() if name != "service.name"}
        return (found, _RESOURCE) if found else None

    def _attributes(self) -> Mapping[str, str]:
        value = self._read(_RESOURCE)
        if not value:
            return {}
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        if not all(sign and name.strip() for name, sign, _ in pairs):
            raise UnfitVariableError(
                _RESOURCE, "is no list of attributes", "write it like key=value,other=value"
            )
        return {unquote(name.strip()): unquote(given.strip()) for name, _, given in pairs}

    def check_protocol(self) -> None:
        """Refuse gRPC and JSON, which the tailer does not speak."""
        found = self._find("PROTOCOL")
        if found is not None and found[1] != PROTOCOL:
            remedy = f"give {PROTOCOL}, and the endpoint for it (port 4318), or state `endpoint` in the table"
            raise UnfitVariableError(found[0], f"is {quote(found[1])}", remedy)

    def _url(self, own: str, path: str) -> tuple[str, str] | None:
        for name, end in ((own, ""), (f"{_GENERAL}ENDPOINT", path)):
            if value := self._read(name):
                try:
                    return (parse_otlp_base_url(value) + end if end else parse_otlp_url(value)), name
                except UnfitValueError as error:
                    remedy = error.remedy or "give a URL such as http://collector:4318"
                    raise UnfitVariableError(name, error.problem, remedy) from None
        return None

    def _find(self, end: str) -> tuple[str, str] | None:
        names = (f"{_GENERAL}{self.signal}_{end}", f"{_GENERAL}{end}")
        return next(((name, value) for name in names if (value := self._read(name))), None)

    def _read(self, name: str) -> str:
        return (self.variables.get(name) or "").strip()


def decode_headers(given: str) -> Mapping[str, str]:
    """Headers in the form of `OTEL_EXPORTER_OTLP_HEADERS`; raises `UnfitValueError`, which quotes no value."""
    headers = {name: unquote(value) for name, value in split_headers(given).items()}
    check_headers(headers)
    return headers


def _convert(found: tuple[str, str], kind: Kind) -> object:
    name, value = found
    try:
        return kind.convert(value)
    except UnfitValueError as error:
        raise UnfitVariableError(name, error.problem, error.remedy or f"give {kind.accepts}") from None
