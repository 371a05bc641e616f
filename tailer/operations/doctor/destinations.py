"""The checks of the destinations, each by itself, and of the routes to them."""

import asyncio
import os
from collections.abc import Mapping
from typing import Final

from tailer.daemon.ways import file_remedy, langfuse_access, langfuse_credentials, otlp_options
from tailer.errors import DestinationError
from tailer.langfuse.access import unheard
from tailer.langfuse.examination import CLOUDS, Ailing, ask_health, ask_project
from tailer.operations.doctor.findings import Finding, failed, passed, skipped, warned
from tailer.otlp.connection import OtlpConnection
from tailer.outbound.proof import Unreachable
from tailer.paths import is_directory
from tailer.settings import Settings
from tailer.settings.destinations import (
    DestinationSettings,
    FileDestination,
    LangfuseDestination,
    OtlpDestination,
    address_of,
)
from tailer.settings.destinations.rows import describe_routes

LANGFUSE_REACHABLE: Final = "Langfuse reachable"
OTLP_TAKES: Final = "OTLP receiver"
_KEYS: Final = "Langfuse keys"
_VERSION: Final = "Langfuse version"
_FILE: Final = "trace file"
_LEAST_VERSION: Final = (3, 22)
"""The first release with the endpoint for OpenTelemetry spans."""


def name_check(check: str, destination: DestinationSettings, settings: Settings) -> str:
    """The name of a check for one destination: the destination is named where a file names several."""
    return check if settings.plan.path is None else f"{check} ({destination.name})"


def name_key(key: str, destination: DestinationSettings, settings: Settings) -> str:
    """What an operator sets to change a value of a destination: a variable, or a key of the file."""
    if settings.plan.path is None:
        return _VARIABLES[key]
    return f"{key} of [destinations.{destination.name}]"


_VARIABLES: Final[Mapping[str, str]] = {
    "host": "LANGFUSE_HOST",
    "path": "TAILER_FILE_PATH",
    "endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
}


async def check_destination(settings: Settings, destination: DestinationSettings) -> list[Finding]:
    """Langfuse is reachable, of a release that accepts spans, with keys that it accepts; an OTLP receiver takes spans;
    a file is writable."""
    match destination:
        case LangfuseDestination():
            return await _check_langfuse(settings, destination)
        case OtlpDestination():
            return [await _check_otlp(settings, destination)]
        case FileDestination():
            return [await asyncio.to_thread(_check_file, settings, destination)]


def check_routes(settings: Settings) -> list[Finding]:
    """The routes in their order, with what they match; nothing where the environment names one destination."""
    if settings.plan.path is None:
        return []
    return [
        passed(f"route {row.number}", f"{row.matches} → {row.to}") for row in describe_routes(settings.plan)
    ]


async def _check_langfuse(settings: Settings, destination: LangfuseDestination) -> list[Finding]:
    host = destination.host
    reachable = name_check(LANGFUSE_REACHABLE, destination, settings)
    try:
        health = await ask_health(host, settings.request_timeout, langfuse_access(destination))
    except DestinationError as error:
        # A file of certificates or a proxy that cannot be used: nothing was asked yet.
        health = Ailing(error.subject, error.hint)
    if isinstance(health, Ailing):
        remedy = (
            f"{health.remedy}; check {name_key('host', destination, settings)}, and that this machine may reach it "
            "(proxy, firewall, DNS)"
        )
        return [
            failed(reachable, f"{host}: {health.reason}", remedy),
            skipped(name_check(_KEYS, destination, settings), "Langfuse does not answer"),
        ]
    findings = [
        passed(reachable, f"{host} in {health.seconds * 1000:.0f} ms"),
        _judge_version(health.version, name_check(_VERSION, destination, settings)),
    ]
    return [*findings, await _check_keys(settings, destination)]


def _judge_version(version: str | None, check: str) -> Finding:
    numbers = tuple(int(part) for part in (version or "").lstrip("v").split(".")[:2] if part.isdigit())
    if version is None or not numbers:
        return warned(check, "unknown", "check in its user interface that it is 3.22 or later")
    if numbers < _LEAST_VERSION:
        return failed(check, version, "upgrade Langfuse to 3.22 or later: before it takes no spans")
    return passed(check, version)


async def _check_keys(settings: Settings, destination: LangfuseDestination) -> Finding:
    check, host = name_check(_KEYS, destination, settings), destination.host
    try:
        project = await ask_project(
            langfuse_credentials(destination), settings.request_timeout, langfuse_access(destination)
        )
    except DestinationError as error:
        others = [cloud for cloud in CLOUDS if cloud != host]
        region = ""
        if host in CLOUDS:
            key = name_key("host", destination, settings)
            region = f"; keys of another region are refused too: try {others[0]} as {key}"
        return failed(check, f"refused by {host}", f"{error.hint}{region}")
    if isinstance(project, Unreachable):
        remedy = project.detail or "try again; see Langfuse's own log"
        return failed(check, f"no answer: {project.reason}", remedy)
    return passed(check, f"those of the project {project}" if project else "accepted")


async def _check_otlp(settings: Settings, destination: OtlpDestination) -> Finding:
    check = name_check(OTLP_TAKES, destination, settings)
    options = otlp_options(destination)
    try:
        async with OtlpConnection(options.traces, unheard, connections=1) as connection:
            answer = await connection.prove()
    except DestinationError as error:
        return failed(check, f"refused by {error.subject}", error.hint)
    if isinstance(answer, Unreachable):
        remedy = f"{answer.detail or 'try again; see its own log'}; check {name_key('endpoint', destination, settings)}"
        return failed(check, f"{address_of(destination)}: {answer.reason}", remedy)
    return passed(check, f"{address_of(destination)} takes spans")


def _check_file(settings: Settings, destination: FileDestination) -> Finding:
    check, key = name_check(_FILE, destination, settings), name_key("path", destination, settings)
    path = destination.path.absolute()
    try:
        is_there = is_directory(path.parent)
    except OSError as error:
        remedy = f"let the tailer's user enter it, or set {key}"
        return failed(check, f"{path.parent} cannot be looked at ({error.strerror})", remedy)
    if not is_there:
        return failed(check, f"{path.parent} is no directory", f"make it, or set {key}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return failed(check, f"{path} cannot be written to", file_remedy(destination, settings))
    if settings.plan.path is not None:
        return passed(check, str(path))
    remedy = "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, or leave it so"
    return warned(check, f"traces go to {path}, not to Langfuse", remedy)
