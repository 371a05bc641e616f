"""The variables of an OTLP exporter: what each of them does, and one clear error for each that cannot be meant."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from tailer.errors import SettingsError
from tailer.otlp.environment import read_options
from tailer.otlp.options import Compression

BASE = "OTEL_EXPORTER_OTLP_"


def given(**variables: str) -> dict[str, str]:
    """The general endpoint and these variables, by the ends of their names."""
    return {
        f"{BASE}ENDPOINT": "http://collector:4318",
        **{f"{BASE}{name}": value for name, value in variables.items()},
    }


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({f"{BASE}ENDPOINT": "http://collector:4318"}, "http://collector:4318/v1/traces"),
        ({f"{BASE}ENDPOINT": "http://collector:4318/"}, "http://collector:4318/v1/traces"),
        ({f"{BASE}ENDPOINT": "https://api.example/otlp"}, "https://api.example/otlp/v1/traces"),
        ({f"{BASE}TRACES_ENDPOINT": "https://api.example/in?key=1"}, "https://api.example/in?key=1"),
        ({f"{BASE}TRACES_ENDPOINT": "http://collector:4318"}, "http://collector:4318/"),
        (
            {f"{BASE}ENDPOINT": "http://a:1", f"{BASE}TRACES_ENDPOINT": "http://b:2/x"},
            "http://b:2/x",
        ),
        ({f"{BASE}ENDPOINT": " http://[::1]:4318 ", f"{BASE}TRACES_ENDPOINT": " "}, "http://[::1]:4318/v1/traces"),
    ],
)  # fmt: skip
def test_the_path_is_added_to_the_general_endpoint_and_to_no_other(
    variables: Mapping[str, str], url: str
) -> None:
    assert read_options(variables).traces.url == url


def test_without_further_variables_the_specifications_defaults_hold() -> None:
    options = read_options(given())

    assert options.metrics is None
    assert options.service_name == "librechat"
    assert options.traces.timeout == timedelta(seconds=10)
    assert options.traces.compression is Compression.NONE
    assert (dict(options.traces.headers), dict(options.resource)) == ({}, {})
    assert options.traces.files.authorities is None


def test_every_variable_is_read_and_that_of_the_signal_wins() -> None:
    options = read_options(
        given(
            HEADERS="api-key=general",
            TRACES_HEADERS="api-key=se%2Ccret, x-scope = a%20b ",
            TIMEOUT="2500",
            COMPRESSION="gzip",
            METRICS_COMPRESSION="none",
            CERTIFICATE="/ca.pem",
            TRACES_CERTIFICATE="/traces-ca.pem",
            CLIENT_CERTIFICATE="/cert.pem",
            CLIENT_KEY="/key.pem",
            PROTOCOL="http/protobuf",
        )
        | {
            "OTEL_SERVICE_NAME": "chat",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=ignored,deployment.environment.name=prod,team=a%3Db",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        }
    )
    metrics = options.metrics

    assert metrics is not None
    assert metrics.url == "http://collector:4318/v1/metrics"
    assert dict(options.traces.headers) == {"api-key": "se,cret", "x-scope": "a b"}
    assert dict(metrics.headers) == {"api-key": "general"}
    assert options.traces.timeout == timedelta(seconds=2.5)
    assert (options.traces.compression, metrics.compression) == (Compression.GZIP, Compression.NONE)
    assert options.traces.files.authorities == Path("/traces-ca.pem")
    assert options.traces.files.settings == (
        f"{BASE}TRACES_CERTIFICATE",
        f"{BASE}CLIENT_CERTIFICATE",
        f"{BASE}CLIENT_KEY",
    )
    assert metrics.files.authorities == Path("/ca.pem")
    assert (metrics.files.certificate, metrics.files.key) == (Path("/cert.pem"), Path("/key.pem"))
    assert options.service_name == "chat"
    assert dict(options.resource) == {"deployment.environment.name": "prod", "team": "a=b"}
    assert options.metrics_interval == timedelta(seconds=5)


def test_the_name_of_the_service_may_stand_among_the_resources_attributes() -> None:
    assert read_options(given() | {"OTEL_RESOURCE_ATTRIBUTES": "service.name=chat"}).service_name == "chat"


def test_metrics_can_be_asked_for_without_a_variable() -> None:
    options = read_options(given(METRICS_ENDPOINT="http://other:9/m"), with_metrics=True)

    assert options.metrics is not None
    assert options.metrics.url == "http://other:9/m"


@pytest.mark.parametrize(
    ("variables", "variable", "problem"),
    [
        ({f"{BASE}ENDPOINT": ""}, f"{BASE}ENDPOINT", "is not set"),
        ({f"{BASE}ENDPOINT": "collector:4318"}, f"{BASE}ENDPOINT", "is no http or https address"),
        ({f"{BASE}ENDPOINT": "grpc://collector:4317"}, f"{BASE}ENDPOINT", "is no http or https address"),
        ({f"{BASE}ENDPOINT": "http://collector:99999"}, f"{BASE}ENDPOINT", "is no http or https address"),
        ({f"{BASE}ENDPOINT": "http://a/?b=c"}, f"{BASE}ENDPOINT", "has a query"),
        ({f"{BASE}TRACES_ENDPOINT": "/v1/traces"}, f"{BASE}TRACES_ENDPOINT", "is no http or https address"),
        ({f"{BASE}HEADERS": "hushhush-without-a-sign"}, f"{BASE}HEADERS", "is no list of pairs"),
        ({f"{BASE}HEADERS": "a b=hushhush"}, f"{BASE}HEADERS", "has a name that is none of a header"),
        ({f"{BASE}HEADERS": "key=%0Ahushhush"}, f"{BASE}HEADERS", "no usable value for the header 'key'"),
        ({f"{BASE}HEADERS": "key="}, f"{BASE}HEADERS", "no usable value for the header 'key'"),
        ({f"{BASE}HEADERS": "Content-Type=hushhush"}, f"{BASE}HEADERS", "which the tailer sets itself"),
        ({f"{BASE}TRACES_TIMEOUT": "10s"}, f"{BASE}TRACES_TIMEOUT", "is no time; write milliseconds"),
        ({f"{BASE}TIMEOUT": "0"}, f"{BASE}TIMEOUT", "is no time"),
        ({f"{BASE}TIMEOUT": "9" * 5000}, f"{BASE}TIMEOUT", "is no time"),
        ({f"{BASE}COMPRESSION": "zstd"}, f"{BASE}COMPRESSION", "is neither gzip nor none"),
        ({f"{BASE}CLIENT_KEY": "/key.pem"}, f"{BASE}CLIENT_KEY", f"without {BASE}CLIENT_CERTIFICATE"),
        ({f"{BASE}PROTOCOL": "grpc"}, f"{BASE}PROTOCOL", "is not http/protobuf"),
        ({f"{BASE}TRACES_PROTOCOL": "http/json"}, f"{BASE}TRACES_PROTOCOL", "is not http/protobuf"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team"}, "OTEL_RESOURCE_ATTRIBUTES", "is no list of pairs"),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", f"{BASE}METRICS_TEMPORALITY_PREFERENCE": "cumulative"},
            f"{BASE}METRICS_TEMPORALITY_PREFERENCE",
            "is not delta",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_error_that_names_the_variable_and_quotes_no_secret(
    variables: Mapping[str, str], variable: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_options({**given(), **variables})

    assert caught.value.subject == variable
    assert problem in caught.value.hint
    assert "hushhush" not in caught.value.hint


def test_no_representation_shows_headers_or_what_a_url_holds_besides_host_and_path() -> None:
    options = read_options(
        {f"{BASE}TRACES_ENDPOINT": "https://u:secret@host:8443/p?token=secret", f"{BASE}HEADERS": "k=secret"}
    )

    assert "secret" not in repr(options)
    assert options.traces.shown_url == "https://host:8443/p"
