"""From a table to an OTLP server.

The `OTEL_EXPORTER_OTLP_*` variables lead to one server: their headers and certificates are shown to no endpoint that a
table states. Time limit and compression hold for any.
"""

from typing import Final, TypeVar

from tailer.settings.destinations.destination import Choices, Compression, OtlpDestination, Way
from tailer.settings.destinations.otel_environment import (
    METRICS_PATH,
    TRACES_PATH,
    OtelEnvironment,
    decode_headers,
)
from tailer.settings.destinations.resolution import OtherWay, Resolution, UnusableDestinationError
from tailer.settings.destinations.secret_sources import BY_VALUE
from tailer.settings.destinations.tables import OtlpTable

_DEFAULT: Final = "default"
_DEFAULT_SERVICE: Final = "librechat"
_FILES: Final = {"ca_file": "CERTIFICATE", "cert_file": "CLIENT_CERTIFICATE", "key_file": "CLIENT_KEY"}
_Value = TypeVar("_Value")


def make_server(making: Resolution, table: OtlpTable, choices: Choices) -> OtlpDestination:
    """The server; raises `UnusableDestinationError`, or `UnfitVariableError` for a variable that cannot be used."""
    otel = OtelEnvironment(making.around.variables)
    is_own = table.endpoint is not None or table.traces_endpoint is not None
    return OtlpDestination(
        name=making.name,
        choices=choices,
        traces_url=_find_traces_url(making, table, otel),
        metrics_url=_find_metrics_url(making, table, otel, is_own=is_own) if table.metrics else None,
        compression=_choose(making, "compression", table.compression, otel.compression(), Compression.GZIP),
        timeout=_choose(
            making, "timeout_seconds", table.timeout_seconds, otel.timeout(), making.around.request_timeout
        ),
        way=making.way(table, OtherWay() if is_own else _read_way(otel), decode_headers),
        service_name=_choose(
            making, "service_name", table.service_name, otel.service_name(), _DEFAULT_SERVICE
        ),
        resource=_choose(making, "resource", table.resource, otel.resource(), {}),
    )


def _find_traces_url(making: Resolution, table: OtlpTable, otel: OtelEnvironment) -> str:
    making.sources["endpoint"] = BY_VALUE
    if table.traces_endpoint is not None:
        return table.traces_endpoint
    if table.endpoint is not None:
        return table.endpoint + TRACES_PATH
    otel.check_protocol()
    found = otel.traces_url()
    if found is None:
        remedy = "give a URL such as http://collector:4318, or set OTEL_EXPORTER_OTLP_ENDPOINT"
        making.refuse("endpoint", "is missing", remedy)
        raise UnusableDestinationError
    making.sources["endpoint"] = found[1]
    return found[0]


def _find_metrics_url(making: Resolution, table: OtlpTable, otel: OtelEnvironment, *, is_own: bool) -> str:
    making.sources["metrics"] = BY_VALUE
    if table.metrics_endpoint is not None:
        return table.metrics_endpoint
    if table.endpoint is not None:
        return table.endpoint + METRICS_PATH
    found = None if is_own else otel.metrics_url()
    if found is None:
        remedy = "give endpoint or metrics_endpoint"
        making.refuse("metrics_endpoint", "is missing, while metrics is true", remedy)
        raise UnusableDestinationError
    making.sources["metrics"] = found[1]
    return found[0]


def _choose(
    making: Resolution, key: str, stated: _Value | None, found: tuple[_Value, str] | None, otherwise: _Value
) -> _Value:
    if stated is None and found is not None:
        making.sources[key] = found[1]
        return found[0]
    return making.take(key, stated, otherwise, _DEFAULT)


def _read_way(otel: OtelEnvironment) -> OtherWay:
    headers = otel.headers()
    files = {key: found for key, name in _FILES.items() if (found := otel.file(name)) is not None}
    names = {key: name for key, (_, name) in files.items()}
    if headers is not None:
        names["headers"] = headers[1]
    return OtherWay(
        Way({} if headers is None else headers[0], **{key: path for key, (path, _) in files.items()}), names
    )
