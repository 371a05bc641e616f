"""Settings of the selection: what is exported by default, and how rules are written and refused."""

import os
from pathlib import Path

import pytest

from tailer.core.policy.policies import (
    CopyPolicy,
    DeletionPolicy,
    Fact,
    NativePolicy,
    Policies,
    Rule,
    TemporaryPolicy,
)
from tailer.errors import SettingsError
from tailer.settings import Settings, load_settings

FACTS = "endpoint, model, agent, user, tenant, role"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A process environment with nothing of ours but a connection string, and an empty working directory."""
    for name in list(os.environ):
        if name.startswith(("TAILER_", "LANGFUSE_", "MONGO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONGO_URI", "mongodb://mongodb:27017/LibreChat")
    return monkeypatch


def load(environment: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        environment.setenv(name, value)
    return load_settings()


def refuse(environment: pytest.MonkeyPatch, **values: str) -> str:
    with pytest.raises(SettingsError) as raised:
        load(environment, **values)
    return raised.value.hint


def test_the_defaults_are_those_of_the_core(environment: pytest.MonkeyPatch) -> None:
    """Nothing that people did not mean to keep, nothing twice; feedback and edits follow."""
    settings = load(environment)
    policies = Policies()

    assert (policies.temporary, policies.copies, policies.native) == (
        settings.temporary,
        settings.copies,
        settings.native,
    )
    assert (settings.deletions, settings.allow, settings.deny) == (DeletionPolicy.KEEP, (), ())
    assert (settings.feedback, settings.edits, settings.stream_transactions) == (True, True, False)


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("TAILER_TEMPORARY", "metadata", "temporary", TemporaryPolicy.METADATA),
        ("TAILER_TEMPORARY", "Full", "temporary", TemporaryPolicy.FULL),
        ("TAILER_COPIES", "export", "copies", CopyPolicy.EXPORT),
        ("TAILER_NATIVE", "duplicate", "native", NativePolicy.DUPLICATE),
        ("TAILER_DELETIONS", "delete", "deletions", DeletionPolicy.DELETE),
        ("TAILER_FEEDBACK", "false", "feedback", False),
        ("TAILER_EDITS", "no", "edits", False),
        ("TAILER_STREAM_TRANSACTIONS", "true", "stream_transactions", True),
        ("TAILER_ALLOW", ",", "allow", ()),
        (
            "TAILER_DENY",
            " endpoint = openAI , model=gpt-[45]*,, endpoint=openAI",
            "deny",
            (Rule(Fact.ENDPOINT, "openAI"), Rule(Fact.MODEL, "gpt-[45]*")),
        ),
        ("TAILER_ALLOW", "model=eu.anthropic:0", "allow", (Rule(Fact.MODEL, "eu.anthropic:0"),)),
    ],
)
def test_what_is_given_is_read(
    environment: pytest.MonkeyPatch, name: str, value: str, attribute: str, expected: object
) -> None:
    """Choices in any case, rules with spaces around their parts, each once and in their order."""
    assert expected == getattr(load(environment, **{name: value}), attribute)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("TAILER_TEMPORARY", "keep", "is 'keep', which is none of skip, metadata, full"),
        ("TAILER_COPIES", "copied", "is 'copied', which is none of skip, export"),
        ("TAILER_NATIVE", "enrich", "is 'enrich', which is none of skip, duplicate"),
        ("TAILER_DELETIONS", "skip", "is 'skip', which is none of keep, delete"),
        ("TAILER_FEEDBACK", "scores", "is 'scores', which is neither true nor false"),
        ("TAILER_DENY", "role=guest,modle=gpt", f"has 'modle=gpt', where 'modle' is none of {FACTS}"),
        ("TAILER_ALLOW", "model", f"has 'model', where 'model' is not fact=pattern with a fact of {FACTS}"),
        ("TAILER_ALLOW", "model=", "has 'model=', where 'model=' is not fact=pattern"),
        ("TAILER_ALLOW", "model=gpt-[4,5]", "has '5]', where '5]' is not fact=pattern"),
        ("TAILER_ALLOW", "model=" + "x" * 195, "which is longer than 200 characters"),
        ("TAILER_ALLOW", "model=a\tb", "with control characters"),
        ("TAILER_DENY", "sk-lf-0123456789", "has 'sk-lf-***', where 'sk-lf-***' is not fact=pattern"),
    ],
)
def test_a_bad_value_is_named_with_its_bad_piece_and_a_remedy(
    environment: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    """Of a list only the piece that is wrong, and what looks like a key is not repeated."""
    hint = refuse(environment, **{name: value})

    assert hint.startswith(f"{name} (environment) ")
    assert problem in hint
    remedy = hint.rpartition(": give ")[2]
    assert remedy.startswith(("one of ", "true or false", "fact=pattern with commas between them"))


def test_rules_that_code_passes_are_taken_as_they_are(environment: pytest.MonkeyPatch) -> None:
    """Parsed or as text."""
    del environment
    rule = Rule(Fact.TENANT, "a,b")

    assert (rule, Rule(Fact.ROLE, "ADMIN")) == load_settings(deny=(rule, "role=ADMIN")).deny
    with pytest.raises(SettingsError, match="TAILER_DENY is not a list: give fact=pattern"):
        load_settings(deny=rule)


@pytest.mark.parametrize(
    ("attribute", "collection"),
    [
        ("allow", "users"),
        ("deny", "users"),
        ("content_rules", "users"),
        ("user_id", "users"),
        ("tag_facts", "users"),
        ("stream_transactions", "transactions"),
    ],
)
def test_settings_that_need_more_rights_say_so(attribute: str, collection: str) -> None:
    """Without find on `users` no role, address or name is known."""
    description = Settings.model_fields[attribute].description

    assert description is not None
    assert "find" in description
    assert f"`{collection}`" in description
