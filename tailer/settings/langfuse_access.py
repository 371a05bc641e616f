"""The settings of whatever is between the tailer and Langfuse: an access proxy's headers, certificates."""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import UnfitValueError, quote, secret, text
from tailer.settings.places import check_file

_HEADERS_REMEDY: Final = "write them like X-Gateway-Key=secret,X-Other=value"
# A comma ends a header only where another one begins: values such as base64 and lists may hold commas and equal signs.
_BETWEEN: Final = re.compile(r",\s*(?=[!#$%&'*+.^_`|~0-9A-Za-z-]+=)")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_NAMES: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "x-langfuse-ingestion-version",
    }
)


LANGFUSE_OWN_NAMES: Final = _OWN_NAMES | {"authorization"}
"""What a request to Langfuse carries anyway, in lower case: the keys are its authorization."""


def parse_headers(given: str) -> Mapping[str, str]:
    """Names and values of headers; raises `UnfitValueError`, which quotes no value."""
    headers = split_headers(given)
    check_headers(headers, LANGFUSE_OWN_NAMES)
    return headers


def split_headers(given: str) -> dict[str, str]:
    """Names and values as they stand; raises `UnfitValueError` for what is no list of headers."""
    headers: dict[str, str] = {}
    for pair in _BETWEEN.split(given):
        name, sign, value = pair.partition("=")
        if not sign:
            raise UnfitValueError("is no list of headers", _HEADERS_REMEDY)
        headers[name.strip()] = value.strip()
    return headers


def check_headers(headers: Mapping[str, str], own_names: AbstractSet[str] = _OWN_NAMES) -> None:
    """Raise `UnfitValueError`, which quotes no value, for headers that no request may carry. `own_names`, in lower
    case, are those that the tailer sets itself."""
    for number, (name, value) in enumerate(headers.items(), 1):
        if _NAME.fullmatch(name) is None:
            raise UnfitValueError("is no list of headers", _HEADERS_REMEDY)
        if not value or not value.isascii() or not value.isprintable():
            # Behind a comma in a value, what looks like a name may be the rest of the value.
            raise UnfitValueError(f"has no usable value for header number {number}", _HEADERS_REMEDY)
        if name.lower() in own_names:
            raise UnfitValueError(
                f"has the header {quote(name)}, which the tailer sets itself",
                "leave it out; the keys go into LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY",
            )


class LangfuseAccessSettings(SettingsGroup):
    """What every request to Langfuse carries or proves besides the keys. Proxies come from HTTPS_PROXY and NO_PROXY."""

    langfuse_headers: Annotated[
        SecretStr | None,
        Setting(
            Group.LANGFUSE,
            secret("headers such as X-Gateway-Key=secret,X-Other=value", parse_headers),
            ("TAILER_LANGFUSE_HEADERS",),
        ),
    ] = Field(
        default=None,
        description="Headers that every request to Langfuse carries besides its own, for an access proxy before it "
        "(Cloudflare Access, IAP, gateway keys). None, because Langfuse itself asks for none.",
    )
    langfuse_ca_file: Annotated[
        Path | None,
        Setting(
            Group.LANGFUSE,
            text("the path of a file with certificates in PEM", check_file),
            ("TAILER_LANGFUSE_CA_FILE",),
        ),
    ] = Field(
        default=None,
        description="Authorities that are trusted for Langfuse besides the usual ones (those of SSL_CERT_FILE or "
        "SSL_CERT_DIR, else Mozilla's). None, because public certificates need none. A renewed file is taken up without "
        "a restart, as those of the next two settings are.",
    )
    langfuse_cert_file: Annotated[
        Path | None,
        Setting(
            Group.LANGFUSE,
            text("the path of a file with a certificate in PEM", check_file),
            ("TAILER_LANGFUSE_CERT_FILE",),
        ),
    ] = Field(
        default=None,
        description="Certificate that is shown to Langfuse, or to the proxy before it, where one asks for it. None, "
        "because Langfuse itself asks for none.",
    )
    langfuse_key_file: Annotated[
        Path | None,
        Setting(
            Group.LANGFUSE,
            text("the path of a file with a private key in PEM", check_file),
            ("TAILER_LANGFUSE_KEY_FILE",),
        ),
    ] = Field(
        default=None,
        description="Private key of that certificate, without a password. None, because the file of the certificate "
        "often holds it too.",
    )

    @field_validator("langfuse_key_file")
    @classmethod
    def _check_pair(cls, key_file: Path | None, info: ValidationInfo) -> Path | None:
        if key_file is not None and info.data.get("langfuse_cert_file") is None:
            raise UnfitValueError(
                "is set without TAILER_LANGFUSE_CERT_FILE", "set both, or the certificate only"
            )
        return key_file
