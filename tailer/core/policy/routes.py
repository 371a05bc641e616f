"""Which destinations a turn goes to, by its facts.

The first route that matches decides. A turn that no route matches goes to `otherwise`. A condition on a fact without a
value does not hold. Where a fact could not be read, a turn goes only where it would go whatever the value is, so no
destination gets a turn by mistake.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tailer.core.policy.policies import Fact, Facts, is_unread, values_of

DEFAULT_NAME = "default"
"""The destination of the environment alone, whose records have no name in the state database."""
_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Condition:
    """A fact, and the patterns of which its value must have one; shell patterns, case-sensitive, never empty."""

    fact: Fact
    patterns: tuple[str, ...]

    def holds(self, facts: Facts) -> bool:
        """Whether the fact has a value, and one that has one of the patterns."""
        values = values_of(facts, self.fact)
        return any(fnmatchcase(value, pattern) for value in values for pattern in self.patterns)

    def may_hold(self, facts: Facts) -> bool:
        """Whether it holds, or may hold because the fact could not be read."""
        return is_unread(facts, self.fact) or self.holds(facts)

    def covers(self, other: "Condition") -> bool:
        """Whether this one is known to hold wherever the other does."""
        return self.fact is other.fact and all(
            any(_covers(mine, theirs) for mine in self.patterns) for theirs in other.patterns
        )


@dataclass(frozen=True, slots=True)
class Route:
    """Destinations by name, none or several, for the turns that fulfil all conditions."""

    conditions: tuple[Condition, ...]
    to: tuple[str, ...]

    def matches(self, facts: Facts) -> bool:
        """Whether all conditions hold; a route without conditions matches every turn."""
        return all(condition.holds(facts) for condition in self.conditions)

    def may_match(self, facts: Facts) -> bool:
        """Whether it matches, or may match because a fact could not be read."""
        return all(condition.may_hold(facts) for condition in self.conditions)

    def covers(self, other: "Route") -> bool:
        """Whether this route is known to match every turn that the other matches."""
        return all(any(mine.covers(theirs) for theirs in other.conditions) for mine in self.conditions)


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes in the order in which they are asked, and where turns go that none of them matches."""

    routes: tuple[Route, ...]
    otherwise: tuple[str, ...]

    def choose(self, facts: Facts) -> tuple[str, ...]:
        """The names of the destinations that a turn goes to, each once; none if it goes nowhere."""
        possible = list(self._possible(facts))
        return tuple(name for name in possible[0] if all(name in others for others in possible[1:]))

    def _possible(self, facts: Facts) -> Iterator[tuple[str, ...]]:
        """What each route says that may be the first one to match."""
        for route in self.routes:
            if route.may_match(facts):
                yield route.to
                if route.matches(facts):
                    return
        yield self.otherwise

    @property
    def named(self) -> frozenset[str]:
        """Every destination that a turn can be sent to."""
        return frozenset(self.otherwise).union(*(route.to for route in self.routes))

    @property
    def facts(self) -> frozenset[Fact]:
        """The facts that the routes ask for."""
        return frozenset(condition.fact for route in self.routes for condition in route.conditions)

    @property
    def needs_users(self) -> bool:
        """Whether a route asks for what only a user's row says."""
        return not self.facts.isdisjoint({Fact.ROLE, Fact.GROUP})

    @property
    def needs_groups(self) -> bool:
        """Whether a route asks for the groups of a user."""
        return Fact.GROUP in self.facts


def find_unreachable(routes: Sequence[Route]) -> Iterator[tuple[int, int]]:
    """Positions of the routes that no turn can reach, each with that of the earlier route that takes all of its turns.

    A route is only named if that is certain: several earlier ones that take all of its turns together are not noticed.
    """
    for position, route in enumerate(routes):
        earlier = next((index for index in range(position) if routes[index].covers(route)), None)
        if earlier is not None:
            yield position, earlier


def _covers(general: str, special: str) -> bool:
    """Whether every text with the pattern `special` surely has the pattern `general` too."""
    if general in ("*", special):
        return True
    if not _WILD & set(special):
        return fnmatchcase(special, general)
    prefix = general[:-1]
    return general.endswith("*") and not _WILD & set(prefix) and special.startswith(prefix)
