"""From a table to an OTLP server.

The `OTEL_EXPORTER_OTLP_*` variables lead to one server: their headers and certificates are shown to no endpoint that a
table states. Time limit and compression hold for any.
"""

from datetime import timedelta
from typing import Final, TypeVar

from tailer.settings.destinations.destination import (
    Choices,
    Compression,
    MetricsWay,
    OtlpDestination,
    Way,
)
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
_DEFAULT_INTERVAL: Final = timedelta(minutes=1)
_FILES: Final = {"ca_file": "CERTIFICATE", "cert_file": "CLIENT_CERTIFICATE", "key_file": "CLIENT_KEY"}
_Value = TypeVar("_Value")


def make_server(making: Resolution, table: OtlpTable, choices: Choices) -> OtlpDestination:
    """The server; raises `UnusableDestinationError`, or `UnfitVariableError` for a variable that cannot be used."""
    otel = OtelEnvironment(making.around.variables)
    is_own = table.endpoint is not None or table.traces_endpoint is not None
    way = making.way(table, OtherWay() if is_own else _read_way(otel), decode_headers)
    return OtlpDestination(
        name=making.name,
        choices=choices,
        traces_url=_find_traces_url(making, table, otel),
        metrics=_make_metrics(making, table, way, is_own=is_own) if table.metrics else None,
        compression=_choose(making, "compression", table.compression, otel.compression(), Compression.GZIP),
        timeout=_choose(
            making, "timeout_seconds", table.timeout_seconds, otel.timeout(), making.around.request_timeout
        ),
        way=way,
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
    found = otel.url()
    if found is None:
        remedy = "give a URL such as http://collector:4318, or set OTEL_EXPORTER_OTLP_ENDPOINT"
        making.refuse("endpoint", "is missing", remedy)
        raise UnusableDestinationError
    making.sources["endpoint"] = found[1]
    return found[0]


def _make_metrics(making: Resolution, table: OtlpTable, way: Way, *, is_own: bool) -> MetricsWay:
    """What a table states holds for metrics too. The variables may lead them to another server, with headers and
    certificates of its own: those for traces are not shown to it."""
    otel = OtelEnvironment(making.around.variables, "METRICS")
    otel.check_temporality()
    is_own_url = is_own or table.metrics_endpoint is not None
    otherwise = Way() if is_own_url else _read_way(otel).way
    states_headers = any((table.headers, table.headers_env, table.headers_file))
    states_pair = any((table.cert_file, table.key_file))
    pair: OtlpTable | Way = table if states_pair else otherwise
    if pair.key_file is not None and pair.cert_file is None and not states_pair:
        making.refuse(
            "metrics", "have a client key without a certificate", "set both, or the certificate only"
        )
    compression, timeout, interval = otel.compression(), otel.timeout(), otel.interval()
    return MetricsWay(
        url=_find_metrics_url(making, table, otel, is_own=is_own),
        compression=table.compression or (Compression.GZIP if compression is None else compression[0]),
        timeout=table.timeout_seconds or (making.around.request_timeout if timeout is None else timeout[0]),
        way=Way(
            way.headers if states_headers else otherwise.headers,
            ca_file=table.ca_file or otherwise.ca_file,
            cert_file=pair.cert_file,
            key_file=pair.key_file,
        ),
        interval=_DEFAULT_INTERVAL if interval is None else interval[0],
    )


def _find_metrics_url(making: Resolution, table: OtlpTable, otel: OtelEnvironment, *, is_own: bool) -> str:
    making.sources["metrics"] = BY_VALUE
    if table.metrics_endpoint is not None:
        return table.metrics_endpoint
    if table.endpoint is not None:
        return table.endpoint + METRICS_PATH
    found = None if is_own else otel.url()
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
