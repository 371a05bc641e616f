"""From a table to a project of Langfuse.

The keys, headers and certificates of the environment are those of its own `LANGFUSE_HOST`: they are shown to no other.
"""

from typing import Final

from pydantic import SecretStr

from tailer.settings.destinations.destination import Choices, LangfuseDestination
from tailer.settings.destinations.resolution import OtherWay, Resolution, UnusableDestinationError
from tailer.settings.destinations.tables import LangfuseTable
from tailer.settings.langfuse import check_public_key, check_secret_key
from tailer.settings.langfuse_access import LANGFUSE_OWN_NAMES, parse_headers

_WAY_NAMES: Final = {
    key: f"TAILER_LANGFUSE_{key.upper()}" for key in ("headers", "ca_file", "cert_file", "key_file")
}


def make_project(making: Resolution, table: LangfuseTable, choices: Choices) -> LangfuseDestination:
    """The project; raises `UnusableDestinationError`."""
    around = making.around
    host = making.take("host", table.host, around.host, "LANGFUSE_HOST")
    is_own_host = host == around.host
    public_key, secret_key = _find_keys(making, is_own_host=is_own_host)
    otherwise = OtherWay(around.way, _WAY_NAMES) if is_own_host else OtherWay()
    way = making.way(table, otherwise, parse_headers, LANGFUSE_OWN_NAMES)
    return LangfuseDestination(making.name, choices, host, public_key, secret_key, way)


def _find_keys(making: Resolution, *, is_own_host: bool) -> tuple[str, SecretStr]:
    public, secret = making.secret("public_key"), making.secret("secret_key")
    around = making.around
    if public is None and secret is None and is_own_host and around.public_key and around.secret_key:
        making.sources["public_key"] = "LANGFUSE_PUBLIC_KEY"
        making.sources["secret_key"] = "LANGFUSE_SECRET_KEY"
        return around.public_key, around.secret_key
    for key, found, other in (("public_key", public, secret), ("secret_key", secret, public)):
        if found is not None:
            continue
        reason = "is missing"
        if other is not None:
            reason = f"is missing, while {other.key} is stated"
        elif around.public_key and not is_own_host:
            reason = "is missing, and the keys of the environment are for LANGFUSE_HOST only"
        making.refuse(key, reason, f"give {key}, {key}_env or {key}_file")
    if public is None or secret is None:
        raise UnusableDestinationError
    making.check(public, check_public_key, "the public key, as a rule pk-lf-…")
    making.check(secret, check_secret_key, "the secret key, as a rule sk-lf-…")
    return public.value.get_secret_value(), secret.value
