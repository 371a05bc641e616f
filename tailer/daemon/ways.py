"""From the settings of a destination to what opens the way there: keys, headers, certificates."""

from tailer.langfuse.access import Access
from tailer.langfuse.connection import Credentials
from tailer.otlp.options import Compression, OtlpOptions, SignalOptions
from tailer.outbound.certificates import CertificateFiles
from tailer.settings import Settings
from tailer.settings.destinations import (
    DEFAULT_NAME,
    FileDestination,
    LangfuseDestination,
    MetricsWay,
    OtlpDestination,
    Way,
)

_FILES = ("ca_file", "cert_file", "key_file")


def langfuse_credentials(destination: LangfuseDestination) -> Credentials:
    """The host and the keys of a project."""
    return Credentials(destination.host, destination.public_key, destination.secret_key.get_secret_value())


def langfuse_access(destination: LangfuseDestination) -> Access:
    """The headers and certificates of the way to a project."""
    return Access(destination.way.headers, certificate_files(destination.name, destination.way))


def otlp_options(destination: OtlpDestination) -> OtlpOptions:
    """The way to an OTLP receiver, of traces and, where asked for, of metrics."""

    def signal(url: str, described: OtlpDestination | MetricsWay) -> SignalOptions:
        return SignalOptions(
            url,
            described.way.headers,
            described.timeout,
            Compression(described.compression.value),
            certificate_files(destination.name, described.way),
        )

    traces, metrics = signal(destination.traces_url, destination), destination.metrics
    service, resource = destination.service_name, destination.resource
    if metrics is None:
        return OtlpOptions(traces, service_name=service, resource=resource)
    return OtlpOptions(traces, signal(metrics.url, metrics), metrics.interval, service, resource)


def certificate_files(name: str, way: Way) -> CertificateFiles:
    """The files of a way, with the names that an operator knows them by."""
    files = (way.ca_file, way.cert_file, way.key_file)
    if name == DEFAULT_NAME:
        return CertificateFiles(*files)
    ca_file, cert_file, key_file = (f"{key} of [destinations.{name}]" for key in _FILES)
    return CertificateFiles(*files, settings=(ca_file, cert_file, key_file))


def file_remedy(destination: FileDestination, settings: Settings) -> str:
    """What to do where the file for traces cannot be written. Most people without keys did not mean to write one."""
    place = "to a file in a directory that this user may write"
    if settings.plan.path is not None:
        return f"set path of [destinations.{destination.name}] {place}"
    if {"sink", "file_path"} & settings.findings.origins.keys():
        return f"set TAILER_FILE_PATH {place}"
    return f"set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY to send to Langfuse, or set TAILER_FILE_PATH {place}"
