"""The settings of content: how much of a turn's text and files its trace shows, and whose turn it appears to be."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from tailer.core.masking.masker import compile_rules
from tailer.core.policy.policies import ContentChoice, ContentRule, Fact, parse_content_rule
from tailer.core.policy.users import UserIdChoice
from tailer.core.trace.bounds import Bounds
from tailer.printable import escape_unprintable, redact
from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import (
    UnfitValueError,
    choice,
    expressions,
    pieces,
    secret,
    text,
    whole_number,
    words,
)
from tailer.settings.places import check_directory
from tailer.settings.selection import FACT_NAMES

_BOUNDS: Final = Bounds()
_SHORTEST_SECRET: Final = 16
SECRET_ACCEPTS: Final = f"a random text of at least {_SHORTEST_SECRET} characters"
SECRET_REMEDY: Final = (
    "make one with `openssl rand -hex 32` or `python3 -c 'import secrets; print(secrets.token_hex(32))'` and keep "
    "it, because with another one every user becomes a new one"
)


def _parse_fact(name: str) -> Fact:
    try:
        return Fact(name.lower())
    except ValueError:
        message = f"{name!r} is none of {FACT_NAMES}"
        raise ValueError(message) from None


def check_user_secret(given: str) -> None:
    """Raise `UnfitValueError`, which quotes nothing of it, for a secret that is too easy to find."""
    if len(given) < _SHORTEST_SECRET:
        raise UnfitValueError(f"has fewer than {_SHORTEST_SECRET} characters", SECRET_REMEDY)
    if not given.isprintable():
        raise UnfitValueError("has control characters", SECRET_REMEDY)


def _prove_rules(patterns: tuple[str, ...], field_names: tuple[str, ...]) -> None:
    try:
        compile_rules(patterns, field_names)
    except ValueError as error:
        raise UnfitValueError(problem=f"is unusable: {escape_unprintable(redact(str(error)))}") from None


class ContentSettings(SettingsGroup):
    """The parts of a turn that go into its trace: text, masks, files, tags and the name of its user."""

    content: Annotated[ContentChoice, Setting(Group.CONTENT, choice(ContentChoice), ("TAILER_CONTENT",))] = (
        Field(
            default=ContentChoice.FULL,
            description="How much text is sent: all of it, all with personal data and keys masked, or none. "
            "Full, because a trace without its text shows little; narrowing it is up to the "
            "operator.",
        )
    )
    content_rules: Annotated[
        tuple[ContentRule, ...],
        Setting(
            Group.CONTENT,
            pieces(
                f"fact=pattern:choice with commas between them, a fact of {FACT_NAMES} and a choice of "
                f"{', '.join(ContentChoice)}, such as role=ADMIN:none,endpoint=openAI:masked",
                parse_content_rule,
            ),
            ("TAILER_CONTENT_RULES",),
        ),
    ] = Field(
        default=(),
        description="How much text is sent of turns that match a rule: the first match decides, "
        "TAILER_CONTENT decides for the rest. Patterns as in TAILER_ALLOW; `role` needs find "
        "on `users`, `group` also on `groups`. Where they cannot be read, the choice that "
        "shows least among those that a role or group could bring counts. None, because one rule for all is the easiest to be sure of.",
    )
    mask_patterns: Annotated[
        tuple[str, ...], Setting(Group.CONTENT, expressions(), ("TAILER_MASK_PATTERNS",))
    ] = Field(
        default=(),
        description="Regular expressions for what is masked in addition to the built-in kinds; if one has "
        "a group called `value`, only that group is masked. None, because only the operator "
        "knows the organisation's own numbers.",
    )
    mask_fields: Annotated[tuple[str, ...], Setting(Group.CONTENT, words(200), ("TAILER_MASK_FIELDS",))] = (
        Field(
            default=(),
            description="Exact names of fields whose values are masked whole, in the arguments and outputs of "
            "tools. None, because only the operator knows the tools.",
        )
    )
    user_id: Annotated[UserIdChoice, Setting(Group.CONTENT, choice(UserIdChoice), ("TAILER_USER_ID",))] = (
        Field(
            default=UserIdChoice.ID,
            description="What Langfuse shows as the user: LibreChat's id, a keyed hash of it, the e-mail "
            "address or the user name; the last two need find on `users`. Id, because it "
            "distinguishes users without naming them.",
        )
    )
    user_id_secret: Annotated[
        SecretStr | None,
        Setting(
            Group.CONTENT,
            secret(SECRET_ACCEPTS, check_user_secret),
            ("TAILER_USER_ID_SECRET",),
        ),
    ] = Field(
        default=None,
        description="Key of the hash that TAILER_USER_ID=hash shows. None, because with a key that came "
        "with the tailer anyone could compute the hashes.",
    )
    tags: Annotated[tuple[str, ...], Setting(Group.CONTENT, words(200), ("TAILER_TAGS",))] = Field(
        default=("librechat",),
        description="Tags of every trace; a single comma means none. librechat, to distinguish them from "
        "other traces in the project.",
    )
    tag_facts: Annotated[
        tuple[Fact, ...],
        Setting(
            Group.CONTENT,
            pieces(f"any of {FACT_NAMES} with commas between them", _parse_fact),
            ("TAILER_TAG_FACTS",),
        ),
    ] = Field(
        default=(),
        description="Facts of a turn that become tags, such as `endpoint:openAI`; `role` needs find on "
        "`users`, `group` also on `groups`. None, because Langfuse keeps every tag it has ever seen in its filters.",
    )
    history_bytes: Annotated[
        int,
        Setting(Group.CONTENT, whole_number(0, _BOUNDS.trace_bytes, unit="bytes"), ("TAILER_HISTORY_BYTES",)),
    ] = Field(
        default=_BOUNDS.history_bytes,
        description="How much of the conversation before the turn goes into its input. 64000: every turn "
        "repeats it, so a long conversation would grow with the square of its length.",
    )
    field_bytes: Annotated[
        int,
        Setting(
            Group.CONTENT, whole_number(1_000, _BOUNDS.trace_bytes, unit="bytes"), ("TAILER_FIELD_BYTES",)
        ),
    ] = Field(
        default=_BOUNDS.field_bytes,
        description="The most bytes that one text may have; the rest is cut and marked. 1000000: Langfuse "
        "silently drops an observation above 9.5 MB.",
    )
    media_root: Annotated[
        Path | None,
        Setting(
            Group.CONTENT,
            text("the absolute path of a directory that exists", check_directory),
            ("TAILER_MEDIA_ROOT",),
        ),
    ] = Field(
        default=None,
        description="Where LibreChat's files are mounted for the tailer, so that images and files are "
        "sent as media. None: only names, types and sizes are sent, because files can say "
        "more than their owners want.",
    )
    media_bytes: Annotated[
        int,
        Setting(Group.CONTENT, whole_number(1_000, 100_000_000, unit="bytes"), ("TAILER_MEDIA_BYTES",)),
    ] = Field(
        default=10_000_000,
        description="The largest file that is sent as media. 10000000: enough for photographs and most "
        "documents, and small enough to hold a few in memory.",
    )

    @field_validator("mask_patterns")
    @classmethod
    def _prove_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        _prove_rules(patterns, ())
        return patterns

    @field_validator("mask_fields")
    @classmethod
    def _prove_fields(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        _prove_rules((), names)
        return names

    @field_validator("user_id_secret")
    @classmethod
    def _require_secret(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if given is None and info.data.get("user_id") is UserIdChoice.HASH:
            raise UnfitValueError("is not set, while TAILER_USER_ID is hash", SECRET_REMEDY)
        return given

    @field_validator("tag_facts")
    @classmethod
    def _keep_users_hashed(cls, facts: tuple[Fact, ...], info: ValidationInfo) -> tuple[Fact, ...]:
        if Fact.USER in facts and info.data.get("user_id") is UserIdChoice.HASH:
            raise UnfitValueError(
                "has user, whose id TAILER_USER_ID=hash is there to hide", "leave user out of the list"
            )
        return facts
