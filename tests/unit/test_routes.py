"""Routes: the first that matches decides, and an unknown fact takes no turn by mistake."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.policy.policies import UNREAD, Fact, Facts, values_of
from tailer.core.policy.routes import Condition, Route, Routes, find_unreachable

VALUES = ["a", "ab", "abc", "b", "ba", "[", "*", "a?"]
PATTERNS = ["*", "a", "a*", "ab*", "?", "a?", "*b", "[ab]", "[[]", "b*", "**", "[*]", "a[?]"]
FACT = st.sampled_from([Fact.TENANT, Fact.GROUP, Fact.TAG])
CONDITION = st.builds(
    Condition, FACT, st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True).map(tuple)
)
ROUTE = st.builds(
    Route,
    st.lists(CONDITION, max_size=3, unique_by=lambda condition: condition.fact).map(tuple),
    st.lists(st.sampled_from(["one", "two"]), max_size=2, unique=True).map(tuple),
)
VALUE = st.none() | st.sampled_from(VALUES) | st.lists(st.sampled_from(VALUES), max_size=3).map(tuple)
FACTS = st.dictionaries(FACT, VALUE)


def route(to: str = "one", **when: str) -> Route:
    return Route(
        tuple(Condition(Fact(fact), tuple(patterns.split())) for fact, patterns in when.items()),
        (to,),
    )


def test_all_conditions_of_a_route_must_hold_and_one_pattern_of_each_is_enough() -> None:
    both = route(tenant="a b*", endpoint="openAI")

    assert both.matches({Fact.TENANT: "a", Fact.ENDPOINT: "openAI"})
    assert both.matches({Fact.TENANT: "bcd", Fact.ENDPOINT: "openAI"})
    assert not both.matches({Fact.TENANT: "a", Fact.ENDPOINT: "anthropic"})
    assert not both.matches({Fact.TENANT: "c", Fact.ENDPOINT: "openAI"})


@pytest.mark.parametrize("fact", Fact)
def test_every_fact_can_be_asked_for_and_an_unknown_one_takes_no_turn(fact: Fact) -> None:
    every = Route((Condition(fact, ("*",)),), ("one",))

    assert every.matches({fact: "x"})
    assert not every.matches({fact: None})
    assert not every.matches({fact: ()})
    assert not every.matches({})


def test_a_turn_whose_groups_could_not_be_read_goes_only_where_it_goes_in_any_case() -> None:
    """Not to `otherwise` either, where a route leads around it."""
    unread: Facts = {Fact.GROUP: UNREAD, Fact.TENANT: "a"}
    hidden = Route((Condition(Fact.GROUP, ("Board",)),), ())
    both = Route((Condition(Fact.GROUP, ("IT",)),), ("rest", "it"))

    assert Routes((hidden,), ("rest",)).choose(unread) == ()
    assert Routes((hidden,), ("rest",)).choose({Fact.GROUP: ()}) == ("rest",)
    assert Routes((both,), ("rest",)).choose(unread) == ("rest",)
    assert Routes((route("team", tenant="a"), hidden), ("rest",)).choose(unread) == ("team",)
    assert Routes((route("it", group="IT", tenant="b"),), ("rest",)).choose(unread) == ("rest",)


def test_one_of_several_groups_or_tags_is_enough() -> None:
    assert route(group="Board").matches({Fact.GROUP: ("Finance", "Board")})
    assert not route(tag="secret").matches({Fact.TAG: ("public", "secrets")})


def test_the_first_route_that_matches_decides_and_no_match_is_otherwise() -> None:
    routes = Routes((route("team", tenant="a"), Route((Condition(Fact.USER, ("u",)),), ())), ("rest",))

    assert routes.choose({Fact.TENANT: "a", Fact.USER: "u"}) == ("team",)
    assert routes.choose({Fact.TENANT: "b", Fact.USER: "u"}) == ()
    assert routes.choose({Fact.TENANT: "b"}) == ("rest",)
    assert routes.choose({}) == ("rest",)
    assert routes.named == {"team", "rest"}


def test_users_are_only_read_where_a_route_asks_for_them() -> None:
    def needs(*routes: Route) -> tuple[bool, bool]:
        made = Routes(routes, ())
        return made.needs_users, made.needs_groups

    assert needs(route(tenant="a", tag="b")) == (False, False)
    assert needs(route(tenant="a"), route(role="ADMIN")) == (True, False)
    assert needs(route(group="x")) == (True, True)


@given(st.lists(ROUTE, max_size=5), FACTS)
def test_a_turn_goes_where_the_first_match_says(routes: list[Route], facts: Facts) -> None:
    chosen = Routes(tuple(routes), ("rest",)).choose(facts)

    def fits(each: Route) -> bool:
        return all(
            any(
                fnmatchcase(value, one)
                for value in values_of(facts, each_condition.fact)
                for one in each_condition.patterns
            )
            for each_condition in each.conditions
        )

    assert chosen == next((each.to for each in routes if fits(each)), ("rest",))


@given(st.lists(ROUTE, max_size=5), FACTS, FACT)
def test_an_unread_fact_takes_no_turn_where_one_of_its_values_would_not(
    routes: list[Route], facts: Facts, fact: Fact
) -> None:
    chosen = Routes(tuple(routes), ("rest",))

    assert set(chosen.choose({**facts, fact: UNREAD})) <= set(chosen.choose(facts))


@given(st.lists(ROUTE, max_size=6), FACTS)
def test_no_turn_reaches_a_route_that_is_called_unreachable(routes: list[Route], facts: Facts) -> None:
    dead = {position for position, _ in find_unreachable(routes)}

    first = next((position for position, each in enumerate(routes) if each.matches(facts)), None)
    assert first not in dead
    assert all(earlier < position for position, earlier in find_unreachable(routes))


@given(st.lists(ROUTE, max_size=6), FACTS)
def test_a_route_that_is_called_unreachable_changes_nothing(routes: list[Route], facts: Facts) -> None:
    dead = {position for position, _ in find_unreachable(routes)}
    living = [each for position, each in enumerate(routes) if position not in dead]

    assert Routes(tuple(routes), ("rest",)).choose(facts) == Routes(tuple(living), ("rest",)).choose(facts)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (route(), route(tenant="a")),
        (route(tenant="a"), route(tenant="a")),
        (route(tenant="a b"), route(tenant="b")),
        (route(tenant="*"), route(tenant="a*")),
        (route(tenant="a*"), route(tenant="ab")),
        (route(tenant="a*"), route(tenant="ab? abc*")),
        (route(tenant="a"), route(tenant="a", endpoint="openAI")),
    ],
)
def test_a_route_behind_one_that_takes_all_its_turns_is_unreachable(earlier: Route, later: Route) -> None:
    assert list(find_unreachable([earlier, later])) == [(1, 0)]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (route(tenant="a"), route()),
        (route(tenant="a"), route(tenant="a b")),
        (route(tenant="a*"), route(tenant="*")),
        (route(tenant="a", endpoint="openAI"), route(tenant="a")),
        (route(tenant="a"), route(user="a")),
        (route(tenant="ab*"), route(tenant="a?c*")),
        (route(tenant="[ab]*"), route(tenant="[ab*")),
    ],
)
def test_a_route_that_some_turn_can_reach_is_not_called_unreachable(earlier: Route, later: Route) -> None:
    assert not list(find_unreachable([earlier, later]))
