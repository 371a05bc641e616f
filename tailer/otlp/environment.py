"""Reads the variables that every OTLP exporter knows (OpenTelemetry specification 1.56, "OTLP Exporter Configuration").

A variable of one signal (`OTEL_EXPORTER_OTLP_TRACES_…`) wins over the general one. No error quotes a header's value.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tailer.errors import SettingsError
from tailer.otlp.options import DEFAULT_SERVICE, Compression, OtlpOptions, SignalOptions
from tailer.outbound.certificates import CertificateFiles

_GENERAL: Final = "OTEL_EXPORTER_OTLP_"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"}
)
_LONGEST_MILLISECONDS: Final = 3_600_000
_DEFAULT_TIMEOUT_MILLISECONDS: Final = 10_000
_DEFAULT_INTERVAL_MILLISECONDS: Final = 60_000


def read_options(environment: Mapping[str, str], *, with_metrics: bool = False) -> OtlpOptions:
    """The options that the variables name; raises SettingsError, which names the variable.

    Metrics are sent where `with_metrics` or `OTEL_METRICS_EXPORTER=otlp` asks for them. An empty variable counts as one
    that is not set.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    resource = dict(_read_pairs(given, "OTEL_RESOURCE_ATTRIBUTES"))
    named = resource.pop("service.name", DEFAULT_SERVICE)
    asked = with_metrics or given.get("OTEL_METRICS_EXPORTER") == "otlp"
    if asked:
        _check_temporality(given)
    return OtlpOptions(
        traces=_read_signal(given, "TRACES"),
        metrics=_read_signal(given, "METRICS") if asked else None,
        metrics_interval=_read_milliseconds(
            given, "OTEL_METRIC_EXPORT_INTERVAL", default=_DEFAULT_INTERVAL_MILLISECONDS
        ),
        service_name=given.get("OTEL_SERVICE_NAME", named),
        resource=resource,
    )


def _read_signal(given: Mapping[str, str], signal: str) -> SignalOptions:
    _check_protocol(given, signal)
    return SignalOptions(
        url=_read_url(given, signal),
        headers=_read_headers(given, signal),
        timeout=_read_milliseconds(
            given, _name(given, signal, "TIMEOUT"), default=_DEFAULT_TIMEOUT_MILLISECONDS
        ),
        compression=_read_compression(given, signal),
        files=_read_files(given, signal),
    )


def _name(given: Mapping[str, str], signal: str, ending: str) -> str:
    """The variable that counts: that of the signal where it is set."""
    own = f"{_GENERAL}{signal}_{ending}"
    return own if own in given else f"{_GENERAL}{ending}"


def _read_url(given: Mapping[str, str], signal: str) -> str:
    name = _name(given, signal, "ENDPOINT")
    value = given.get(name)
    if value is None:
        raise _refuse(
            f"{_GENERAL}ENDPOINT",
            "is not set; set it to the address of the OTLP back end, for example http://collector:4318",
        )
    try:
        parts = urlsplit(value)
        usable = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise _refuse(name, "is no http or https address; write it like http://collector:4318")
    if name != f"{_GENERAL}ENDPOINT":
        # The address of one signal is used as it is. One without a path means the root.
        return value if parts.path else f"{value}/"
    if parts.query or parts.fragment:
        raise _refuse(
            name,
            f"has a query or a fragment, after which no path can be added; use {_GENERAL}{signal}_ENDPOINT",
        )
    return f"{value.rstrip('/')}/v1/{signal.lower()}"


def _read_headers(given: Mapping[str, str], signal: str) -> Mapping[str, str]:
    variable = _name(given, signal, "HEADERS")
    headers: dict[str, str] = {}
    for name, value in _read_pairs(given, variable).items():
        if _TOKEN.fullmatch(name) is None:
            raise _refuse(
                variable, "has a name that is none of a header; write it like api-key=secret,x-other=value"
            )
        if not value or not value.isascii() or not value.isprintable():
            raise _refuse(
                variable, f"has no usable value for the header {name!r}; encode other characters as %XX"
            )
        if name.lower() in _OWN_HEADERS:
            raise _refuse(variable, f"has the header {name!r}, which the tailer sets itself; leave it out")
        headers[name] = value
    return headers


def _read_pairs(given: Mapping[str, str], variable: str) -> Mapping[str, str]:
    """`name=value,…`, both percent-encoded, as W3C Baggage writes them."""
    pairs: dict[str, str] = {}
    for pair in given.get(variable, "").split(","):
        if not pair.strip():
            continue
        name, sign, value = pair.partition("=")
        name = unquote(name.strip())
        if not sign or not name:
            raise _refuse(
                variable,
                "is no list of pairs; write it like name=value,other=value, a comma in a value as %2C",
            )
        pairs[name] = unquote(value.strip())
    return pairs


def _read_milliseconds(given: Mapping[str, str], variable: str, *, default: int) -> timedelta:
    value = given.get(variable)
    if value is None:
        return timedelta(milliseconds=default)
    if not value.isascii() or not value.isdigit() or not 0 < int(value[:12]) <= _LONGEST_MILLISECONDS:
        raise _refuse(variable, "is no time; write milliseconds, from 1 to 3600000")
    return timedelta(milliseconds=int(value))


def _read_compression(given: Mapping[str, str], signal: str) -> Compression:
    variable = _name(given, signal, "COMPRESSION")
    value = given.get(variable, Compression.NONE.value)
    try:
        return Compression(value)
    except ValueError:
        raise _refuse(variable, "is neither gzip nor none") from None


def _read_files(given: Mapping[str, str], signal: str) -> CertificateFiles:
    names = tuple(
        _name(given, signal, ending) for ending in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    )
    authorities, certificate, key = names
    if key in given and certificate not in given:
        raise _refuse(key, f"is set without {certificate}; set both, or the certificate only")
    paths = [Path(given[name]) if name in given else None for name in names]
    return CertificateFiles(paths[0], paths[1], paths[2], settings=(authorities, certificate, key))


def _check_protocol(given: Mapping[str, str], signal: str) -> None:
    variable = _name(given, signal, "PROTOCOL")
    if given.get(variable, "http/protobuf") != "http/protobuf":
        raise _refuse(
            variable,
            "is not http/protobuf, the only protocol that the tailer speaks; collectors take it on port 4318",
        )


def _check_temporality(given: Mapping[str, str]) -> None:
    variable = f"{_GENERAL}METRICS_TEMPORALITY_PREFERENCE"
    if given.get(variable, "delta").lower() != "delta":
        raise _refuse(
            variable,
            "is not delta, the only temporality that the tailer sends; a collector can make sums of it",
        )


def _refuse(variable: str, problem: str) -> SettingsError:
    return SettingsError(operation="reading the settings", subject=variable, hint=problem)
