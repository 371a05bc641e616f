"""Settings of content: what is shown, what is masked, who the user is, and that a bad mask never loads."""

import dataclasses
import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from tailer.core.masking.masker import Masker, compile_rules
from tailer.core.policy.policies import ContentChoice, ContentRule, Fact, Rule
from tailer.core.policy.users import UserIdChoice
from tailer.errors import SettingsError
from tailer.settings import Settings, describe_settings, load_settings

SECRET = "hunter2-hunter2-"


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
    """The hint for these values, which no secret may be part of."""
    with pytest.raises(SettingsError) as raised:
        load(environment, **values)
    assert "hunter2" not in str(raised.value)
    return raised.value.hint


def test_by_default_text_is_full_and_nobody_is_named(environment: pytest.MonkeyPatch) -> None:
    """No rules, no masks, no tags of facts, no files; the user is an id."""
    settings = load(environment)

    assert (settings.content, settings.content_rules) == (ContentChoice.FULL, ())
    assert (settings.mask_patterns, settings.mask_fields, settings.tag_facts) == ((), (), ())
    assert (settings.user_id, settings.user_id_secret) == (UserIdChoice.ID, None)
    assert (settings.media_root, settings.media_bytes) == (None, 10_000_000)
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("TAILER_CONTENT", "none", "content", ContentChoice.NONE),
        (
            "TAILER_CONTENT_RULES",
            "role=ADMIN:none, model=eu.claude:0:masked",
            "content_rules",
            (
                ContentRule(Rule(Fact.ROLE, "ADMIN"), ContentChoice.NONE),
                ContentRule(Rule(Fact.MODEL, "eu.claude:0"), ContentChoice.MASKED),
            ),
        ),
        ("TAILER_TAG_FACTS", "role, Endpoint,role", "tag_facts", (Fact.ROLE, Fact.ENDPOINT)),
        ("TAILER_MASK_FIELDS", "iban, Kunden Nr", "mask_fields", ("iban", "Kunden Nr")),
        ("TAILER_USER_ID", "email", "user_id", UserIdChoice.EMAIL),
        ("TAILER_USER_ID_SECRET", SECRET, "user_id_secret", SecretStr(SECRET)),
        ("TAILER_MEDIA_BYTES", "1_000", "media_bytes", 1_000),
        ("TAILER_UNANSWERED_SECONDS", "1", "unanswered_after", timedelta(seconds=1)),
        ("TAILER_UNFINISHED_SECONDS", "1", "unfinished_after", timedelta(seconds=1)),
        ("TAILER_APPROVAL_SECONDS", "1", "approval_time", timedelta(seconds=1)),
    ],
)
def test_what_is_given_is_read(
    environment: pytest.MonkeyPatch, name: str, value: str, attribute: str, expected: object
) -> None:
    """The last colon of a content rule ends its pattern; waiting times go down to a second."""
    assert expected == getattr(load(environment, **{name: value}), attribute)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (r"EMP-\d{6}", (r"EMP-\d{6}",)),
        (r"[A-Z]{3},\d+", (r"[A-Z]{3},\d+",)),
        (r'["EMP-\\d{6}", "a,b"]', (r"EMP-\d{6}", "a,b")),
        (r'[ "\"x\"" ]', ('"x"',)),
        ("[]", ()),
    ],
)
def test_patterns_are_one_expression_or_a_json_array(
    environment: pytest.MonkeyPatch, given: str, expected: tuple[str, ...]
) -> None:
    """An expression may have commas, and may begin with a set of characters."""
    assert expected == load(environment, TAILER_MASK_PATTERNS=given).mask_patterns


def test_loaded_patterns_and_fields_mask(environment: pytest.MonkeyPatch) -> None:
    """What was proven at load is what the masker uses."""
    settings = load(environment, TAILER_MASK_PATTERNS=r"EMP-\d{6}", TAILER_MASK_FIELDS="salary")

    masker = Masker(compile_rules(settings.mask_patterns, settings.mask_fields), b"0123456789abcdef")

    assert masker.mask_text("EMP-123456").startswith("[pattern-1:")
    assert "much" not in str(masker.mask_value({"salary": "much"}))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("a(", "is unusable: masking expression 1 ('a('), position 1: missing ), unterminated subpattern"),
        (r'["ok", "(a+)+"]', "is unusable: masking expression 2 ('(a+)+'), position 4: an unbounded repeat"),
        ("x*", "position 0: matches the empty text"),
        (r'["EMP-\d{6}"]', "begins like a JSON array and is none"),
        ("['a', 'b']", "begins like a JSON array and is none"),
        (r'["\bEMP"]', "has control characters in expression 1"),
        (r'["a", "\ud800"]', "has control characters in expression 2"),
        ('["a", 1]', "has something else than a text as expression 2"),
        ("sk-lf-hunter2(", "masking expression 1 ('sk-lf-***('), position 13"),
    ],
)
def test_a_pattern_that_cannot_mask_is_refused(
    environment: pytest.MonkeyPatch, given: str, problem: str
) -> None:
    """Also an array that JSON does not read: as one expression it would mask single characters."""
    hint = refuse(environment, TAILER_MASK_PATTERNS=given)

    assert hint.startswith("TAILER_MASK_PATTERNS (environment) ")
    assert problem in hint
    assert ": give one " in hint


@pytest.mark.parametrize(
    ("name", "value", "problem", "remedy"),
    [
        (
            "TAILER_CONTENT_RULES",
            "role=guest",
            "has 'role=guest', where 'role=guest' does not end in a colon and one of full, masked, none",
            "give fact=pattern:choice",
        ),
        (
            "TAILER_CONTENT_RULES",
            "model=a:none,rule=b:none",
            "has 'rule=b:none', where 'rule' is none of",
            "give",
        ),
        (
            "TAILER_TAG_FACTS",
            "model,name",
            "has 'name', where 'name' is none of endpoint, model",
            "give any of",
        ),
        ("TAILER_MASK_FIELDS", "x" * 201, "is longer than 200 characters", "give texts of at most 200"),
        ("TAILER_USER_ID", "name", "is 'name', which is none of id, hash, email, username", "give one of"),
        ("TAILER_USER_ID_SECRET", SECRET[1:], "has fewer than 16 characters", "openssl rand -hex 32"),
        ("TAILER_USER_ID_SECRET", SECRET + "\x07", "has control characters", "openssl rand -hex 32"),
        ("TAILER_USER_ID_SECRET", SECRET + "\udcff", "has control characters", "openssl rand -hex 32"),
        ("TAILER_MEDIA_ROOT", "images", "is 'images', which is no absolute path", "give the absolute path"),
        (
            "TAILER_MEDIA_ROOT",
            "/nowhere/images",
            "is '/nowhere/images', where there is no directory",
            "mount",
        ),
        (
            "TAILER_MEDIA_ROOT",
            "/" + "x" * 300,
            "cannot be looked at (File name too long)",
            "leave the setting out",
        ),
        (
            "TAILER_MEDIA_BYTES",
            "999",
            "is 999, which is not between 1000 and 100000000",
            "give a whole number",
        ),
        (
            "TAILER_UNANSWERED_SECONDS",
            "0.9",
            "is 0.9, which is not between 1 and",
            "give a number of seconds",
        ),
    ],
)
def test_a_bad_value_is_named_with_its_problem_and_remedy(
    environment: pytest.MonkeyPatch, name: str, value: str, problem: str, remedy: str
) -> None:
    """The bad piece is quoted, a secret is not."""
    hint = refuse(environment, **{name: value})

    assert hint.startswith(f"{name} (environment) ")
    assert problem in hint
    assert remedy in hint.partition(problem)[2]


def test_a_hash_needs_a_secret_and_the_error_says_how_to_make_one(environment: pytest.MonkeyPatch) -> None:
    """Without one anybody could compute the hash of every id."""
    hint = refuse(environment, TAILER_USER_ID="hash")

    assert hint.startswith(
        "TAILER_USER_ID_SECRET is not set, while TAILER_USER_ID is hash: make one with `openssl"
    )
    settings = load(environment, TAILER_USER_ID_SECRET=SECRET)
    assert (settings.user_id, settings.user_id_secret) == (UserIdChoice.HASH, SecretStr(SECRET))


def test_a_hashed_user_is_no_tag(environment: pytest.MonkeyPatch) -> None:
    """A tag with the id would undo the hash beside it."""
    hint = refuse(
        environment, TAILER_USER_ID="hash", TAILER_USER_ID_SECRET=SECRET, TAILER_TAG_FACTS="model,user"
    )

    assert hint == (
        "TAILER_TAG_FACTS (environment) has user, whose id TAILER_USER_ID=hash is there to hide: leave user out of "
        "the list"
    )
    assert load(environment, TAILER_USER_ID="id", TAILER_TAG_FACTS="user").tag_facts == (Fact.USER,)


def test_the_directory_of_files_must_be_one(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file in its place is refused; what exists is a path."""
    file = tmp_path / "file"
    file.touch()

    assert "where there is no directory: mount" in refuse(environment, TAILER_MEDIA_ROOT=str(file))
    assert tmp_path == load(environment, TAILER_MEDIA_ROOT=str(tmp_path)).media_root
    assert tmp_path == load_settings(media_root=tmp_path).media_root


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        ({"TAILER_USER_ID_SECRET": SECRET}, ["TAILER_USER_ID_SECRET is not used: TAILER_USER_ID is id"]),
        (
            {"TAILER_MASK_PATTERNS": "x", "TAILER_MASK_FIELDS": "y", "TAILER_CONTENT_RULES": "model=x:none"},
            ["TAILER_MASK_PATTERNS is not used", "TAILER_MASK_FIELDS is not used"],
        ),
        ({"TAILER_MASK_PATTERNS": "x", "TAILER_CONTENT": "masked"}, []),
        ({"TAILER_MASK_FIELDS": "y", "TAILER_CONTENT_RULES": "model=x:masked"}, []),
    ],
)
def test_masks_and_a_secret_that_nothing_uses_are_a_warning(
    environment: pytest.MonkeyPatch, values: dict[str, str], warnings: list[str]
) -> None:
    """Whoever writes a mask and forgets to switch masking on sends everything."""
    found = load(environment, **values).warnings

    assert len(warnings) == len(found)
    assert all(text.startswith(start) for text, start in zip(found, warnings, strict=True))


def test_rows_show_rules_as_they_are_written_and_no_secret(environment: pytest.MonkeyPatch) -> None:
    """What a row shows can be copied into the environment; of the secret, that it is set."""
    written = {
        "TAILER_ALLOW": "endpoint=openAI,model=gpt-4*",
        "TAILER_CONTENT_RULES": "role=ADMIN:none,model=a:0:masked",
        "TAILER_TAG_FACTS": "model,role",
        "TAILER_MASK_PATTERNS": r'["EMP-\\d{6}", "a,ä"]',
        "TAILER_MASK_FIELDS": "iban,salary",
        "TAILER_MEDIA_ROOT": "/",
    }
    settings = load(environment, TAILER_USER_ID="hash", TAILER_USER_ID_SECRET=SECRET, **written)

    rows = {row.name: row for row in describe_settings(settings)}

    assert written == {name: rows[name].value for name in written}
    assert (rows["TAILER_USER_ID_SECRET"].value, rows["TAILER_USER_ID_SECRET"].default) == ("set", "none")
    shown = f"{settings!r}{settings.model_dump()}{[dataclasses.asdict(row) for row in rows.values()]}"
    assert "hunter2" not in shown
