"""From the tables of routes to `Routes`: names that exist, facts that are known, and no route in vain."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tailer.core.policy.policies import Fact
from tailer.core.policy.routes import Condition, Route, Routes, find_unreachable
from tailer.settings.destinations.problems import Problem, guess, route_of
from tailer.settings.destinations.tables import RouteTable
from tailer.settings.kinds import quote

_FACTS: Final[Mapping[str, Fact]] = {fact.value: fact for fact in Fact}
_OTHERWISE: Final = "otherwise"
_PATTERN_REMEDY: Final = 'give texts or shell patterns, such as ["openAI", "gpt-4*"]'


def make_routes(
    tables: Sequence[RouteTable], otherwise: tuple[str, ...] | None, names: Sequence[str]
) -> Routes | list[Problem]:
    """The routes, or what is wrong with them. `names` are all destinations; without any route they get everything."""
    problems = list(_check_names(_OTHERWISE, otherwise or (), names))
    routes = []
    for position, table in enumerate(tables):
        where = route_of(position)
        problems += _check_names(f"{where} to", table.to, names)
        problems += _check_conditions(where, table)
        if not problems:
            routes.append(
                Route(
                    tuple(
                        Condition(_FACTS[fact], tuple(dict.fromkeys(patterns)))
                        for fact, patterns in table.when.items()
                    ),
                    tuple(dict.fromkeys(table.to)),
                )
            )
    # What is only wrong because of another problem is not told.
    problems = problems or list(_check_reach(routes, otherwise))
    if problems:
        return problems
    if otherwise is None:
        otherwise = () if routes else tuple(names)
    return Routes(tuple(routes), tuple(dict.fromkeys(otherwise)))


def _check_names(where: str, to: Iterable[str], names: Sequence[str]) -> Iterator[Problem]:
    for name in to:
        if name not in names:
            known = f"the destinations are {', '.join(names)}"
            yield Problem(where, f"names {quote(name)}, which is no destination{guess(name, names)}", known)


def _check_conditions(where: str, table: RouteTable) -> Iterator[Problem]:
    for fact, patterns in table.when.items():
        if fact not in _FACTS:
            remedy = f"the facts are {', '.join(_FACTS)}"
            yield Problem(f"{where} when {quote(fact)}", f"is no fact of a turn{guess(fact, _FACTS)}", remedy)
        elif not patterns or not all(pattern.strip() and pattern.isprintable() for pattern in patterns):
            problem = "names no value" if not patterns else "has an empty or unprintable value"
            yield Problem(f"{where} when {fact}", problem, _PATTERN_REMEDY)


def _check_reach(routes: Sequence[Route], otherwise: tuple[str, ...] | None) -> Iterator[Problem]:
    for position, earlier in find_unreachable(routes):
        every = "every turn" if not routes[earlier].conditions else "every turn that this one matches"
        yield Problem(
            route_of(position),
            f"is never reached, because number {earlier + 1} takes {every}",
            f"put it before number {earlier + 1}, or remove it",
        )
    is_complete = any(not route.conditions for route in routes)
    if routes and otherwise is None and not is_complete:
        yield Problem(
            _OTHERWISE,
            "is missing, so it is not said where turns go that no route matches",
            'write otherwise = ["name", …] above the first table, or otherwise = [] to send them nowhere',
        )
    elif otherwise is not None and is_complete:
        remedy = "remove it, or give that route conditions"
        yield Problem(
            _OTHERWISE, "is never reached, because a route without conditions takes every turn", remedy
        )
