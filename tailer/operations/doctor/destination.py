"""The checks of the destination."""

import asyncio
import os
from typing import Final

from tailer.daemon.destinations import make_access
from tailer.errors import DestinationError
from tailer.langfuse.connection import Credentials, Unreachable
from tailer.langfuse.examination import CLOUDS, Ailing, ask_health, ask_project
from tailer.operations.doctor.findings import Finding, failed, passed, skipped, warned
from tailer.settings import Settings, SinkChoice

_LEAST_VERSION: Final = (3, 22)
"""The first release with the endpoint for OpenTelemetry spans."""


async def check_destination(settings: Settings) -> list[Finding]:
    """Langfuse is reachable, of a release that accepts spans, with keys that it accepts; or the file is writable."""
    if settings.sink is SinkChoice.FILE:
        return [await asyncio.to_thread(_check_file, settings)]
    host = settings.langfuse_url
    try:
        health = await ask_health(host, settings.request_timeout, make_access(settings))
    except DestinationError as error:
        # A file of certificates or a proxy that cannot be used: nothing was asked yet.
        health = Ailing(error.subject, error.hint)
    if isinstance(health, Ailing):
        remedy = (
            f"{health.remedy}; check LANGFUSE_HOST, and that this machine may reach it (proxy, firewall, DNS)"
        )
        return [
            failed("Langfuse reachable", f"{host}: {health.reason}", remedy),
            skipped("Langfuse keys", "Langfuse does not answer"),
        ]
    findings = [
        passed("Langfuse reachable", f"{host} in {health.seconds * 1000:.0f} ms"),
        _judge_version(health.version),
    ]
    return [*findings, await _check_keys(settings, host)]


def _judge_version(version: str | None) -> Finding:
    numbers = tuple(int(part) for part in (version or "").lstrip("v").split(".")[:2] if part.isdigit())
    if version is None or not numbers:
        return warned("Langfuse version", "unknown", "check in its user interface that it is 3.22 or later")
    if numbers < _LEAST_VERSION:
        return failed(
            "Langfuse version", version, "upgrade Langfuse to 3.22 or later: before it takes no spans"
        )
    return passed("Langfuse version", version)


async def _check_keys(settings: Settings, host: str) -> Finding:
    secret = settings.langfuse_secret_key
    credentials = Credentials(
        host, settings.langfuse_public_key or "", secret.get_secret_value() if secret is not None else ""
    )
    try:
        project = await ask_project(credentials, settings.request_timeout, make_access(settings))
    except DestinationError as error:
        others = [cloud for cloud in CLOUDS if cloud != host]
        region = (
            f"; keys of another region are refused too: try LANGFUSE_HOST={others[0]}"
            if host in CLOUDS
            else ""
        )
        return failed("Langfuse keys", f"refused by {host}", f"{error.hint}{region}")
    if isinstance(project, Unreachable):
        remedy = project.detail or "try again; see Langfuse's own log"
        return failed("Langfuse keys", f"no answer: {project.reason}", remedy)
    return passed("Langfuse keys", f"those of the project {project}" if project else "accepted")


def _check_file(settings: Settings) -> Finding:
    path = settings.file_path.absolute()
    remedy = "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, or leave it so"
    if not path.parent.is_dir():
        return failed("trace file", f"{path.parent} is no directory", "make it, or set TAILER_FILE_PATH")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return failed(
            "trace file",
            f"{path} cannot be written to",
            "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY to send to Langfuse, or TAILER_FILE_PATH to a place that "
            "this user may write to",
        )
    return warned("trace file", f"traces go to {path}, not to Langfuse", remedy)
