"""The settings of Langfuse, under the names that its own clients and LibreChat use.

Every name has a twin with `TAILER_` before it, which wins: LibreChat traces by itself as soon as it sees the
keys under their plain names, and it often shares its `.env` with the tailer.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from tailer.core.trace.otlp import SpanContext
from tailer.settings.addresses import parse_langfuse_url
from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import UnfitValueError, duration, secret, share, switch, text

_LONGEST_RELEASE: Final = 200
_LONGEST_ENVIRONMENT: Final = 40
_RESERVED: Final = re.compile(r"^(?:langfuse[-_]?)+")
_MILLISECOND: Final = timedelta(milliseconds=1)
_SWAP_REMEDY: Final = "the keys look swapped: the public key begins with pk-, the secret key with sk-"


def _check_key(key: str, other_prefix: str) -> str:
    if key.startswith(other_prefix):
        kind = "secret" if other_prefix == "sk-" else "public"
        raise UnfitValueError(problem=f"holds a {kind} key", remedy=_SWAP_REMEDY)
    # Both go into one header as `public:secret`, which Langfuse splits at every colon (4.16).
    if not key.isascii() or not key.isprintable() or set(key) & set(": "):
        raise UnfitValueError("has characters that no key of Langfuse has")
    return key


def check_public_key(key: str) -> str:
    """The key; raises `UnfitValueError`, which quotes nothing of it."""
    return _check_key(key, "sk-")


def check_secret_key(key: str) -> str:
    """The key; raises `UnfitValueError`, which quotes nothing of it."""
    return _check_key(key, "pk-")


def unusual_keys(
    public_key: str | None,
    secret_key: SecretStr | None,
    names: tuple[str, str] = ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"),
) -> Iterator[str]:
    """Warnings about keys in another form than Langfuse's own; a self-hosted one accepts any. `names` is what the
    operator calls them."""
    given = (
        (names[0], public_key, "pk-"),
        (names[1], secret_key.get_secret_value() if secret_key is not None else None, "sk-"),
    )
    for name, key, prefix in given:
        if key is not None and not key.startswith(prefix):
            yield (
                f"{name} does not begin with {prefix} as Langfuse's own keys do; that is right if it was "
                "chosen when Langfuse was set up (LANGFUSE_INIT_PROJECT_PUBLIC_KEY)"
            )


def check_environment(name: str) -> str:
    """The name as Langfuse shows it: in lower case, without a leading `langfuse`, cut at 40 characters (4.16)."""
    try:
        return SpanContext(environment=_RESERVED.sub("", name.lower())[:_LONGEST_ENVIRONMENT]).environment
    except ValueError:
        raise UnfitValueError(
            "would be shown as default: Langfuse takes a-z, 0-9, _ and - and nothing that begins with langfuse"
        ) from None


def check_release(name: str) -> str:
    """The name; raises `UnfitValueError` for one that is too long."""
    if len(name) > _LONGEST_RELEASE:
        raise UnfitValueError(problem=f"has {len(name)} characters")
    return name


class LangfuseSettings(SettingsGroup):
    """Which project of Langfuse, how much is sent there, and what every trace carries."""

    langfuse_enabled: Annotated[bool, Setting(Group.LANGFUSE, switch(), ("LANGFUSE_ENABLED",))] = Field(
        default=True,
        description="Whether anything is sent. True, because people who start the tailer want traces; "
        "with false it runs and sends nothing.",
    )
    langfuse_public_key: Annotated[
        str | None,
        Setting(
            Group.LANGFUSE,
            text("the public key, as a rule pk-lf-…", check_public_key),
            ("LANGFUSE_PUBLIC_KEY",),
        ),
    ] = Field(
        default=None,
        repr=False,
        description="Public key of the Langfuse project. None, because without keys traces go to a file.",
    )
    langfuse_secret_key: Annotated[
        SecretStr | None,
        Setting(
            Group.LANGFUSE,
            secret("the secret key, as a rule sk-lf-…", check_secret_key),
            ("LANGFUSE_SECRET_KEY",),
        ),
    ] = Field(
        default=None,
        description="Secret key of the Langfuse project. None, because without keys traces go to a file.",
    )
    langfuse_url: Annotated[
        str,
        Setting(
            Group.LANGFUSE,
            text("a URL such as https://cloud.langfuse.com", parse_langfuse_url),
            ("LANGFUSE_HOST", "LANGFUSE_BASE_URL", "LANGFUSE_BASEURL"),
        ),
    ] = Field(
        default="https://cloud.langfuse.com",
        description="Base URL of Langfuse. Its cloud in the EU, the default of Langfuse's own clients.",
    )
    langfuse_debug: Annotated[bool, Setting(Group.LANGFUSE, switch(), ("LANGFUSE_DEBUG",))] = Field(
        default=False,
        description="Sets the log level to debug. False, because debug lines come with every batch.",
    )
    langfuse_sample_rate: Annotated[float, Setting(Group.LANGFUSE, share(), ("LANGFUSE_SAMPLE_RATE",))] = (
        Field(
            default=1.0,
            description="Share of the conversations that is sent, always whole conversations. 1, because sums "
            "over a sample are not sums.",
        )
    )
    langfuse_flush_interval: Annotated[
        timedelta,
        Setting(Group.LANGFUSE, duration(0, 60_000, _MILLISECOND), ("LANGFUSE_FLUSH_INTERVAL",)),
    ] = Field(
        default=timedelta(milliseconds=250),
        description="How long finished turns are gathered into one request; after a pause a turn is sent at once. "
        "250: 99 % of turns arrive within half a second of the settle time. With 1000 that is 1.3 seconds, and a turn "
        "at 8 a second takes two thirds of the CPU. Langfuse's own SDK reads this name as seconds.",
    )
    langfuse_flush_at_shutdown: Annotated[
        bool, Setting(Group.LANGFUSE, switch(), ("LANGFUSE_FLUSH_AT_SHUTDOWN",))
    ] = Field(
        default=True,
        description="Whether SIGTERM sends what is open before it stops. True, because the next start is "
        "then quicker; with false nothing is lost either, it is read again.",
    )
    langfuse_environment: Annotated[
        str,
        Setting(
            Group.LANGFUSE,
            text("1 to 40 of a-z, 0-9, _ and -", check_environment),
            ("LANGFUSE_TRACING_ENVIRONMENT",),
        ),
    ] = Field(
        default="default",
        description="Environment that traces carry, written as Langfuse shows it: in lower case, at most 40 characters, "
        "without a leading `langfuse`. `default`, as Langfuse calls it when none is given.",
    )
    langfuse_release: Annotated[
        str | None,
        Setting(
            Group.LANGFUSE, text("a text of at most 200 characters", check_release), ("LANGFUSE_RELEASE",)
        ),
    ] = Field(
        default=None,
        description="Release that traces carry. None, because only the operator knows LibreChat's version.",
    )

    @field_validator("langfuse_secret_key")
    @classmethod
    def _check_key_pair(cls, secret_key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "langfuse_public_key" in info.data:
            public_key = info.data["langfuse_public_key"]
            if public_key is None and secret_key is not None:
                raise UnfitValueError("is set without LANGFUSE_PUBLIC_KEY", "set both keys, or neither")
            if public_key is not None and secret_key is None:
                raise UnfitValueError("is not set, while LANGFUSE_PUBLIC_KEY is", "set both keys, or neither")
        return secret_key
