"""From the settings of a destination to what opens the way there: keys, headers, certificates."""

from tailer.langfuse.access import Access
from tailer.langfuse.connection import Credentials
from tailer.otlp.options import Compression, OtlpOptions, SignalOptions
from tailer.outbound.certificates import CertificateFiles
from tailer.settings.destinations import DEFAULT_NAME, LangfuseDestination, OtlpDestination, Way

_FILES = ("ca_file", "cert_file", "key_file")


def langfuse_credentials(destination: LangfuseDestination) -> Credentials:
    """The host and the keys of a project."""
    return Credentials(destination.host, destination.public_key, destination.secret_key.get_secret_value())


def langfuse_access(destination: LangfuseDestination) -> Access:
    """The headers and certificates of the way to a project."""
    return Access(destination.way.headers, certificate_files(destination.name, destination.way))


def otlp_options(destination: OtlpDestination) -> OtlpOptions:
    """The way to an OTLP receiver, of traces and, where asked for, of metrics."""

    def signal(url: str) -> SignalOptions:
        return SignalOptions(
            url,
            destination.way.headers,
            destination.timeout,
            Compression(destination.compression.value),
            certificate_files(destination.name, destination.way),
        )

    metrics = destination.metrics_url
    return OtlpOptions(
        traces=signal(destination.traces_url),
        metrics=None if metrics is None else signal(metrics),
        service_name=destination.service_name,
        resource=destination.resource,
    )


def certificate_files(name: str, way: Way) -> CertificateFiles:
    """The files of a way, with the names that an operator knows them by."""
    files = (way.ca_file, way.cert_file, way.key_file)
    if name == DEFAULT_NAME:
        return CertificateFiles(*files)
    ca_file, cert_file, key_file = (f"{key} of [destinations.{name}]" for key in _FILES)
    return CertificateFiles(*files, settings=(ca_file, cert_file, key_file))
