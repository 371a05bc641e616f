"""Destinations and routes as rows for people and programs: what counts, and where it came from.

Refuses to show secrets: of a public key the last four characters, of headers the names, of other secrets nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tailer.core.policy.routes import Route
from tailer.settings.destinations.destination import (
    DestinationSettings,
    FileDestination,
    LangfuseDestination,
    OtlpDestination,
    Way,
    address_of,
)
from tailer.settings.destinations.plan import Plan

_NONE = "none"
_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class DestinationRow:
    """One value of a destination, as it may be shown, and its source: the file, a variable, or `default`."""

    destination: str
    key: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class RouteRow:
    """A route in its order: its number, what it matches, and the destinations, `none` for nowhere."""

    number: str
    matches: str
    to: str


def describe_destinations(plan: Plan) -> Sequence[DestinationRow]:
    """The rows of every destination, in the order of the file."""
    return [
        DestinationRow(
            destination.name, key, value, plan.sources.get(destination.name, {}).get(key, _DEFAULT)
        )
        for destination in plan.destinations
        for key, value in _values(destination)
    ]


def describe_routes(plan: Plan) -> Sequence[RouteRow]:
    """The routes in the order in which they are asked, and where the rest goes."""
    rows = [
        RouteRow(str(number), describe_conditions(route), ", ".join(route.to) or _NONE)
        for number, route in enumerate(plan.routes.routes, start=1)
    ]
    if any(not route.conditions for route in plan.routes.routes):
        return rows
    return [*rows, RouteRow("otherwise", "every other turn", ", ".join(plan.routes.otherwise) or _NONE)]


def describe_conditions(route: Route) -> str:
    """What a route matches, in one line."""
    conditions = [f"{each.fact.value} {' or '.join(each.patterns)}" for each in route.conditions]
    return " and ".join(conditions) or "every turn"


def _values(destination: DestinationSettings) -> Iterator[tuple[str, str]]:
    yield "kind", destination.kind.value
    match destination:
        case LangfuseDestination():
            yield "host", destination.host
            yield "public_key", f"set (…{destination.public_key[-4:]})"
            yield "secret_key", "set"
            yield from _way(destination.way)
        case OtlpDestination():
            yield "endpoint", address_of(destination)
            yield "metrics", _without_query(destination.metrics.url if destination.metrics else None)
            yield "compression", destination.compression.value
            yield "timeout_seconds", f"{destination.timeout.total_seconds():.15g}"
            yield "service_name", destination.service_name
            yield "resource", _pairs(destination.resource)
            yield from _way(destination.way)
        case FileDestination():
            yield "path", str(destination.path)
    chosen = destination.choices
    yield "content", chosen.content.value
    rules = [f"{each.rule.fact}={each.rule.pattern}:{each.choice}" for each in chosen.content_rules]
    yield "content_rules", ", ".join(rules) or _NONE
    yield "user_id", chosen.user_id.value
    if chosen.user_id_secret is not None:
        yield "user_id_secret", "set"
    yield "sample_rate", f"{chosen.sample_rate:.15g}"
    yield "environment", chosen.environment
    yield "release", chosen.release or _NONE


def _way(way: Way) -> Iterator[tuple[str, str]]:
    yield "headers", _pairs(dict.fromkeys(way.headers, "****"))
    for key, path in (("ca_file", way.ca_file), ("cert_file", way.cert_file), ("key_file", way.key_file)):
        if path is not None:
            yield key, str(path)


def _pairs(given: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in given.items()) or _NONE


def _without_query(url: str | None) -> str:
    return _NONE if url is None else url.partition("?")[0]
