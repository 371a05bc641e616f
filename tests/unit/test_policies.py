"""What the operator decides: rules by fact and pattern, who is exported, and how much of a turn is shown."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailer.core.policy.policies import (
    READ_ELSEWHERE,
    UNREAD,
    ContentChoice,
    ContentRule,
    Denial,
    Fact,
    Facts,
    Policies,
    Rule,
    TemporaryPolicy,
    parse_content_rule,
    parse_rule,
    parse_rules,
    strictest,
)

FACTS: Facts = {
    Fact.ENDPOINT: "openAI",
    Fact.MODEL: "gpt-4o-mini",
    Fact.AGENT: "agent_1",
    Fact.USER: "6b041b93f1e16ab6e33e9f26",
    Fact.TENANT: "acme",
    Fact.ROLE: "ADMIN",
    Fact.GROUP: "Finance",
    Fact.TAG: "quarterly",
}
UNKNOWN: Facts = dict.fromkeys(Fact)


def denied(facts: Facts = FACTS, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> Fact | None:
    denial = Policies(allow=parse_rules(allow), deny=parse_rules(deny)).denied_by(facts)
    assert denial is None or not denial.unread
    return None if denial is None else denial.fact


@pytest.mark.parametrize("fact", Fact)
def test_every_fact_can_be_named_and_is_compared_with_case(fact: Fact) -> None:
    value = FACTS[fact]
    assert isinstance(value, str)

    assert Rule(fact, value).matches(FACTS)
    assert Rule(fact, value[:3] + "*").matches(FACTS)
    assert not Rule(fact, value.swapcase()).matches(FACTS)
    assert not Rule(fact, "*").matches(UNKNOWN)
    assert not Rule(fact, "*").matches({})


def test_a_user_in_several_groups_is_in_each_of_them() -> None:
    facts: Facts = {**FACTS, Fact.GROUP: ("Finance", "Board")}

    assert denied(facts, deny=("group=Board",)) is Fact.GROUP
    assert denied(facts, allow=("group=Fin*",)) is None
    assert denied(facts, allow=("group=IT",)) is Fact.GROUP
    assert denied({**facts, Fact.GROUP: ()}, allow=("group=*",)) is Fact.GROUP


def test_without_lists_nothing_is_denied() -> None:
    assert denied() is None
    assert denied(UNKNOWN) is None


@pytest.mark.parametrize("fact", Fact)
def test_any_rule_of_the_deny_list_denies_by_its_fact(fact: Fact) -> None:
    assert denied(deny=("model=claude*", f"{fact.value}={FACTS[fact]}")) is fact
    assert denied(deny=(f"{fact.value}=other",)) is None


@pytest.mark.parametrize("fact", Fact)
def test_a_fact_that_the_allow_list_names_must_fit_one_of_its_patterns(fact: Fact) -> None:
    assert denied(allow=(f"{fact.value}=other", f"{fact.value}={FACTS[fact]}")) is None
    assert denied(allow=(f"{fact.value}=other",)) is fact
    assert denied(UNKNOWN, allow=(f"{fact.value}=*",)) is fact


def test_every_named_fact_of_the_allow_list_counts_and_the_deny_list_comes_first() -> None:
    assert denied(allow=("endpoint=openAI", "tenant=acme")) is None
    assert denied(allow=("endpoint=openAI", "tenant=other")) is Fact.TENANT
    assert denied(allow=("endpoint=openAI",), deny=("role=ADMIN",)) is Fact.ROLE


UNREAD_ROLE: Facts = {**FACTS, Fact.ROLE: UNREAD}


def test_a_role_that_could_not_be_read_denies_and_a_user_without_one_is_judged() -> None:
    denying, allowing = Policies(deny=parse_rules(["role=ADMIN"])), Policies(allow=parse_rules(["role=USER"]))
    without_role: Facts = {**FACTS, Fact.ROLE: None}

    assert denying.denied_by(UNREAD_ROLE) == Denial(Fact.ROLE, unread=True)
    assert allowing.denied_by(UNREAD_ROLE) == Denial(Fact.ROLE, unread=True)
    assert denying.denied_by(without_role) is None
    assert allowing.denied_by(without_role) == Denial(Fact.ROLE)


def test_what_is_certain_is_the_reason_before_what_could_not_be_read() -> None:
    policies = Policies(allow=parse_rules(["endpoint=other"]), deny=parse_rules(["role=ADMIN"]))

    assert policies.denied_by(UNREAD_ROLE) == Denial(Fact.ENDPOINT)
    assert Policies(deny=parse_rules(["model=x"])).denied_by(UNREAD_ROLE) is None


RULE = st.builds(Rule, st.sampled_from(Fact), st.sampled_from(["*", "openAI", "gpt-4o*", "acme", "nobody"]))
RULES = st.lists(RULE, max_size=5).map(tuple)


@given(RULES, RULES, RULES)
def test_more_denials_never_let_a_turn_through(
    allow: tuple[Rule, ...], deny: tuple[Rule, ...], more: tuple[Rule, ...]
) -> None:
    if Policies(allow=allow, deny=deny).denied_by(FACTS) is not None:
        assert Policies(allow=allow, deny=deny + more).denied_by(FACTS) is not None


@given(RULES, RULES, st.randoms(use_true_random=False))
def test_the_order_of_rules_never_decides_whether_a_turn_is_exported(
    allow: tuple[Rule, ...], deny: tuple[Rule, ...], order: random.Random
) -> None:
    shuffled = [tuple(sorted(rules, key=lambda _: order.random())) for rules in (allow, deny)]
    first = Policies(allow=allow, deny=deny).denied_by(FACTS)

    assert (Policies(allow=shuffled[0], deny=shuffled[1]).denied_by(FACTS) is None) == (first is None)


def test_the_first_content_rule_that_matches_decides() -> None:
    policies = Policies(
        content=ContentChoice.MASKED,
        content_rules=(
            parse_content_rule("endpoint=anthropic:full"),
            parse_content_rule("model=gpt-4o*:none"),
            parse_content_rule("role=ADMIN:full"),
        ),
    )

    assert policies.content_for(FACTS, temporary=False) is ContentChoice.NONE
    assert policies.content_for({Fact.ROLE: "ADMIN"}, temporary=False) is ContentChoice.FULL
    assert policies.content_for(UNKNOWN, temporary=False) is ContentChoice.MASKED


@pytest.mark.parametrize(
    ("content", "rules", "unread", "without_role"),
    [
        ("full", ["role=ADMIN:none"], "none", "full"),
        ("full", ["role=ADMIN:masked", "role=GUEST:none"], "none", "full"),
        ("masked", ["role=ADMIN:full"], "masked", "masked"),
        ("full", ["endpoint=openAI:masked", "role=ADMIN:none"], "masked", "masked"),
        ("none", ["role=ADMIN:masked", "endpoint=openAI:full"], "masked", "full"),
        ("full", ["group=Board:none"], "full", "full"),
    ],
)
def test_a_rule_on_a_role_that_could_not_be_read_counts_where_it_shows_less(
    content: str, rules: list[str], unread: str, without_role: str
) -> None:
    policies = Policies(
        content=ContentChoice(content), content_rules=tuple(parse_content_rule(rule) for rule in rules)
    )
    known: Facts = {**FACTS, Fact.ROLE: None}

    assert policies.content_for(UNREAD_ROLE, temporary=False) is ContentChoice(unread)
    assert policies.content_for(known, temporary=False) is ContentChoice(without_role)


@given(
    st.builds(
        Policies,
        content=st.sampled_from(ContentChoice),
        content_rules=st.lists(st.builds(ContentRule, RULE, st.sampled_from(ContentChoice)), max_size=4).map(
            tuple
        ),
        allow=RULES,
        deny=RULES,
    ),
    st.sets(st.sampled_from(READ_ELSEWHERE)),
    st.sampled_from([None, "openAI", "acme", "nobody", "somebody"]),
)
def test_no_value_of_an_unread_fact_would_have_shown_less(
    policies: Policies, unread: set[Fact], value: str | None
) -> None:
    """Whatever the rules, their order and the fact."""
    seen: Facts = {**FACTS, **dict.fromkeys(unread, value)}
    unseen: Facts = {**FACTS, **dict.fromkeys(unread, UNREAD)}
    shown, chosen = (policies.content_for(facts, temporary=False) for facts in (seen, unseen))

    assert strictest(shown, chosen) is chosen
    assert policies.denied_by(unseen) is not None or policies.denied_by(seen) is None


def test_the_digest_of_the_content_policies_changes_with_whatever_chooses_the_content() -> None:
    rules = [parse_content_rule(text) for text in ("role=a:none", "role=b:none", "role=a:masked")]
    variants = [
        Policies(),
        Policies(content=ContentChoice.NONE),
        Policies(temporary=TemporaryPolicy.METADATA),
        *(Policies(content_rules=(rule,)) for rule in rules),
        Policies(content_rules=(rules[0], rules[1])),
        Policies(content_rules=(rules[1], rules[0])),
    ]

    assert len({policies.content_digest for policies in variants}) == len(variants)
    assert Policies(deny=parse_rules(["role=a"])).content_digest == Policies().content_digest


@given(st.lists(st.builds(ContentRule, RULE, st.sampled_from(ContentChoice)), max_size=4))
def test_a_temporary_chat_as_metadata_shows_no_text_whatever_a_rule_says(rules: list[ContentRule]) -> None:
    policies = Policies(temporary=TemporaryPolicy.METADATA, content_rules=tuple(rules))

    assert policies.content_for(FACTS, temporary=True) is ContentChoice.NONE
    shown = Policies(temporary=TemporaryPolicy.FULL, content_rules=tuple(rules))
    assert shown.content_for(FACTS, temporary=True) is policies.content_for(FACTS, temporary=False)


def test_users_are_read_for_roles_only_where_a_rule_names_one() -> None:
    assert not Policies(deny=parse_rules(["user=a"])).needs_users
    assert Policies(deny=parse_rules(["role=a"])).needs_users
    assert Policies(allow=parse_rules(["role=a"])).needs_users
    assert Policies(content_rules=(parse_content_rule("role=a:none"),)).needs_users


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("model=gpt-4*", Rule(Fact.MODEL, "gpt-4*")),
        (" endpoint = My Company ", Rule(Fact.ENDPOINT, "My Company")),
        ("model=a=b", Rule(Fact.MODEL, "a=b")),
    ],
)
def test_a_rule_is_fact_and_pattern(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize("text", ["", "model", "model=", "model= ", "=x", "colour=red", "MODEL=x"])
def test_a_rule_that_cannot_be_read_says_which_facts_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="endpoint, model, agent, user, tenant, role"):
        parse_rule(text)


def test_a_content_rule_ends_in_its_choice_and_its_pattern_may_hold_colons() -> None:
    assert parse_content_rule("model=llama3:8b:none") == ContentRule(
        Rule(Fact.MODEL, "llama3:8b"), ContentChoice.NONE
    )


@pytest.mark.parametrize("text", ["model=x", "model=x:", "model=x:some", ":none", "x:none", "model=:none"])
def test_a_content_rule_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"full, masked, none|endpoint, model"):
        parse_content_rule(text)


@given(st.sampled_from(Fact), st.text(min_size=1).filter(str.strip), st.sampled_from(ContentChoice))
def test_what_is_written_is_what_is_read(fact: Fact, pattern: str, choice: ContentChoice) -> None:
    expected = Rule(fact, pattern.strip())

    assert parse_rule(f"{fact.value}={pattern}") == expected
    assert parse_content_rule(f"{fact.value}={pattern}:{choice.value}") == ContentRule(expected, choice)
