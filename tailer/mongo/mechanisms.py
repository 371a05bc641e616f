"""Log-in mechanisms that need a package of their own."""

from importlib.util import find_spec
from typing import Final

from tailer.settings.connection_options import given_options

_PACKAGES: Final = {
    "MONGODB-AWS": (
        ("pymongo_auth_aws",),
        "pip install 'librechat-tailer[aws]'; docs/operations.md shows how it gets into the image",
    ),
    "GSSAPI": (
        ("kerberos", "winkerberos"),
        "pip install pykerberos, or winkerberos on Windows; docs/operations.md shows how it gets into the image",
    ),
}


def missing_package(uri: str) -> str | None:
    """What a URI's `authMechanism` needs and this installation lacks, with the remedy; None if nothing is missing."""
    mechanism = given_options(uri).get("authmechanism", "").upper()
    modules, remedy = _PACKAGES.get(mechanism, ((), ""))
    if not modules or any(find_spec(module) is not None for module in modules):
        return None
    return f"authMechanism={mechanism} needs the package {modules[0].replace('_', '-')}: {remedy}"
