"""A policy that was tightened holds for turns that were sent before, in whatever comes after them."""

from dataclasses import replace

import pytest

from tailer.core.librechat.messages import Message
from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import (
    ContentChoice,
    Fact,
    Policies,
    TemporaryPolicy,
    parse_content_rule,
)
from tailer.core.policy.users import User
from tailer.core.trace.export import Exported
from tailer.core.trace.followup import SentTurn
from tailer.core.trace.tightening import tighten
from tests.unit.documents import (
    USER,
    conversation,
    conversation_row,
    export,
    message,
    response_row,
    turn_record,
    user_row,
)

FULL, MASKED, NONE = ContentChoice
ANSWER = message(response_row(tenantId="acme"))
QUESTION = message(user_row(tenantId="acme"))


def make_masker() -> Masker:
    return Masker(compile_rules([], []), b"a deployment's own key")


def by(*rules: str, content: ContentChoice = FULL) -> Policies:
    return Policies(content=content, content_rules=tuple(parse_content_rule(rule) for rule in rules))


def sent_under(policies: Policies, role: str = "USER", tag: str = "divorce") -> SentTurn:
    """The record of a turn of a user with a role."""
    record = turn_record(
        response_row(tenantId="acme"),
        user_row(),
        user=User(USER, None, None, role),
        conversation=conversation(conversation_row(tags=[tag])),
    )
    made = export(record, policies=policies, mask=make_masker, tags=("team-a",), tag_facts=(Fact.TAG,))
    assert isinstance(made, Exported)
    return made.sent


def choice_of(before: Policies, after: Policies, changed: Message = ANSWER) -> ContentChoice:
    return tighten(sent_under(before), changed, after, make_masker).content


@pytest.mark.parametrize("before", ContentChoice)
@pytest.mark.parametrize("after", ContentChoice)
def test_the_stricter_of_then_and_now_counts(before: ContentChoice, after: ContentChoice) -> None:
    expected = max(before, after, key=[FULL, MASKED, NONE].index)

    assert choice_of(Policies(content=before), Policies(content=after)) is expected


@pytest.mark.parametrize("changed", [ANSWER, QUESTION], ids=["answer", "question"])
@pytest.mark.parametrize(
    ("rule", "of_answer", "of_question"),
    [
        (f"user={USER}:none", NONE, NONE),
        ("user=nobody:none", FULL, FULL),
        ("tenant=acme:masked", MASKED, MASKED),
        ("tenant=other:none", FULL, FULL),
        ("endpoint=openAI:none", NONE, NONE),
        ("endpoint=other:none", FULL, NONE),
        ("agent=*:none", FULL, NONE),
        ("model=gpt-5:none", NONE, NONE),
        ("role=ADMIN:none", NONE, NONE),
        ("group=Board:masked", MASKED, MASKED),
        ("tag=private:none", NONE, NONE),
    ],
)
def test_a_new_rule_counts_unless_the_changed_row_says_that_it_does_not_match(
    rule: str, of_answer: ContentChoice, of_question: ContentChoice, changed: Message
) -> None:
    """A row names its user, tenant and endpoint, and no role, group, tag or billed model."""
    expected = of_answer if changed is ANSWER else of_question

    assert choice_of(Policies(), by(rule), changed) is expected


def test_as_long_as_the_policies_stay_a_turn_is_shown_as_it_was() -> None:
    """The role was known when it was sent, so the rule need not count for everybody."""
    policies = by("role=ADMIN:none")

    assert tighten(sent_under(policies), ANSWER, policies, make_masker).content is FULL
    assert tighten(sent_under(policies, role="ADMIN"), ANSWER, policies, make_masker).content is NONE
    of_an_older_release = replace(sent_under(policies), content_digest=None)
    assert tighten(of_an_older_release, ANSWER, policies, make_masker).content is NONE


def test_a_temporary_chat_shows_no_more_text_where_its_text_is_no_longer_wanted() -> None:
    temporary = message(response_row(isTemporary=True))
    after = Policies(temporary=TemporaryPolicy.METADATA)

    assert choice_of(Policies(temporary=TemporaryPolicy.FULL), after, temporary) is NONE
    assert choice_of(Policies(temporary=TemporaryPolicy.FULL), after, ANSWER) is FULL


def test_the_tags_that_a_piece_repeats_are_shown_as_far_as_its_text() -> None:
    """Also those of a release that sent them whatever the content policy said."""
    sent = sent_under(Policies(), tag="anna@example.com")
    assert sent.tags == ("team-a", "tag:anna@example.com")

    (team, masked) = tighten(sent, ANSWER, Policies(content=MASKED), make_masker).tags
    assert team == "team-a"
    assert masked.startswith("tag:[email:")
    assert tighten(sent, ANSWER, Policies(content=NONE), make_masker).tags == ("team-a",)
    older = replace(sent, content=NONE, content_digest=None)
    assert tighten(older, ANSWER, Policies(), make_masker).tags == ("team-a",)
    again = replace(sent, tags=(team, masked))
    assert tighten(again, ANSWER, Policies(content=MASKED), make_masker).tags == (team, masked)
