"""The check of addresses that mean another machine inside a container than outside."""

import os
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tailer.operations.doctor.destinations import LANGFUSE_REACHABLE, OTLP_TAKES, name_check, name_key
from tailer.operations.doctor.findings import Finding, Verdict, failed, warned
from tailer.settings import Settings
from tailer.settings.addresses import parse_mongo_uri
from tailer.settings.destinations import LangfuseDestination, OtlpDestination

_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
_KUBERNETES: Final = "KUBERNETES_SERVICE_HOST"


def is_in_container() -> bool:
    """Whether Docker, Podman or Kubernetes runs this process."""
    return _KUBERNETES in os.environ or any(mark.exists() for mark in _MARKS)


def check_addresses(settings: Settings, findings: Sequence[Finding], *, in_container: bool) -> list[Finding]:
    """A finding for each setting that names this machine and so, in a container, the container itself.

    If something answers there anyway (the host's network, a sidecar), the address is right.
    """
    if not in_container:
        return []
    failures = {finding.check for finding in findings if finding.verdict is Verdict.FAIL}
    found = [
        failed(
            "addresses",
            f"{name} names {host}, which is this container itself, and nothing answers there",
            "give the name by which containers know it, such as the service's name in compose or Kubernetes; a server on "
            "the machine outside is host.docker.internal (on Linux with extra_hosts: host.docker.internal:host-gateway)",
        )
        for name, host, reached in _named_hosts(settings)
        if reached in failures and _is_this_machine(host)
    ]
    if _is_this_machine(settings.http_host):
        found.append(
            warned(
                "addresses",
                f"TAILER_HTTP_HOST is {settings.http_host}: probes and Prometheus do not reach this container",
                "leave it out, so that the image's :: counts, or set ::",
            )
        )
    return found


def _named_hosts(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """What an operator sets, the host that it names, and the check that shows whether it leads anywhere."""
    for name, uri, reached in (
        ("TAILER_MONGO_URI", settings.mongo_uri, "MongoDB reachable"),
        ("TAILER_STATE_URI", settings.state_uri, "state database"),
    ):
        # Without a URI of its own the state is where LibreChat's data is, which is reported once.
        if name == "TAILER_MONGO_URI" or uri != settings.mongo_uri:
            for host in parse_mongo_uri(uri.get_secret_value()).hosts:
                yield name, urlsplit(f"//{host}").hostname or host, reached
    for destination in settings.destinations:
        match destination:
            case LangfuseDestination(host=address):
                key, check = "host", LANGFUSE_REACHABLE
            case OtlpDestination(traces_url=address):
                key, check = "endpoint", OTLP_TAKES
            case _:
                continue
        host = urlsplit(address).hostname or ""
        yield name_key(key, destination, settings), host, name_check(check, destination, settings)


def _is_this_machine(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or (address.is_unspecified and address.version == 4)  # noqa: PLR2004 - 0.0.0.0
