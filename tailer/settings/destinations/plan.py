"""All destinations and the routes to them: from the environment alone, or from the file that `TAILER_DESTINATIONS`
names."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from tailer.core.policy.routes import Routes
from tailer.settings.addresses import name_server
from tailer.settings.destinations.destination import (
    DEFAULT_NAME,
    DestinationSettings,
    FileDestination,
    LangfuseDestination,
)
from tailer.settings.destinations.document import read_document
from tailer.settings.destinations.problems import Problem, refuse, table_of
from tailer.settings.destinations.resolution import Resolution
from tailer.settings.destinations.resolving import resolve
from tailer.settings.destinations.routing import make_routes
from tailer.settings.destinations.surroundings import Surroundings
from tailer.settings.langfuse import unusual_keys


@dataclass(frozen=True, slots=True)
class Plan:
    """The destinations in the order of the file, and the routes.

    `sources` says where the values of a destination come from, by name and key; it is empty without a file, where the
    settings of the environment say it themselves. `warnings` are sentences for the operator.
    """

    destinations: tuple[DestinationSettings, ...]
    routes: Routes
    path: Path | None = None
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def plan_from_environment(around: Surroundings) -> Plan:
    """The one destination that the environment means."""
    if around.is_file:
        only: DestinationSettings = FileDestination(DEFAULT_NAME, around.choices, around.file_path)
    else:
        only = LangfuseDestination(
            DEFAULT_NAME,
            around.choices,
            around.host,
            around.public_key or "",
            around.secret_key or SecretStr(""),
            around.way,
        )
    return Plan((only,), Routes((), (DEFAULT_NAME,)))


def plan_from_file(path: Path, around: Surroundings) -> Plan:
    """The destinations of a file; raises SettingsError that names every problem with table and key."""
    document = read_document(path)
    resolutions = [Resolution(name, table, around) for name, table in document.destinations.items()]
    made = [resolve(resolution) for resolution in resolutions]
    problems = [problem for resolution in resolutions for problem in resolution.problems]
    destinations = tuple(destination for destination in made if destination is not None)
    problems += _find_twins(destinations)
    routes = make_routes(document.routes, document.otherwise, tuple(document.destinations))
    if isinstance(routes, list):
        problems += routes
    if problems or isinstance(routes, list):
        raise refuse(str(path), problems)
    return Plan(
        destinations,
        routes,
        path,
        {resolution.name: resolution.sources for resolution in resolutions},
        tuple(_find_oddities(destinations, routes, around)),
    )


def _find_twins(destinations: Sequence[DestinationSettings]) -> Iterator[Problem]:
    """What would get the same turns twice: two destinations of one project, or of one file."""
    seen: dict[tuple[str, str], str] = {}
    for destination in destinations:
        match destination:
            case LangfuseDestination(host=host, public_key=key):
                place, what = (
                    (name_server(host), key),
                    "is the same project of Langfuse (host and public key)",
                )
            case FileDestination(path=path):
                place, what = (os.path.realpath(path), ""), "is the same file"
            case _:
                continue
        first = seen.setdefault(place, destination.name)
        if first != destination.name:
            yield Problem(
                table_of(destination.name),
                f"{what} as {table_of(first)}, where turns would be counted twice",
                "keep one of them, and name it in the routes",
            )


def _find_oddities(
    destinations: Sequence[DestinationSettings], routes: Routes, around: Surroundings
) -> Iterator[str]:
    for destination in destinations:
        if destination.name not in routes.named:
            yield f"{table_of(destination.name)} gets nothing: no route names it, and otherwise does not either"
        if isinstance(destination, LangfuseDestination):
            names = (f"{table_of(destination.name)} public_key", f"{table_of(destination.name)} secret_key")
            yield from unusual_keys(destination.public_key, destination.secret_key, names)
    uses_keys = any(
        isinstance(destination, LangfuseDestination)
        and (destination.host, destination.public_key) == (around.host, around.public_key)
        for destination in destinations
    )
    if around.public_key is not None and not uses_keys:
        yield "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY are not used: no destination of the file takes them"
