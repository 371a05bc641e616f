"""Finds a secret in the way that a table states: by value, in an environment variable, or in a file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from tailer.settings.destinations.problems import Problem
from tailer.settings.kinds import quote, secret_text

BY_VALUE: Final = "file of destinations"
_WAYS: Final = ("", "_env", "_file")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST_BYTES: Final = 64_000


@dataclass(frozen=True, slots=True)
class Found:
    """A secret, the key of the table that led to it, and where it was, in words for the operator."""

    value: SecretStr
    key: str
    source: str


def find_secret(
    table: object, key: str, *, where: str, variables: Mapping[str, str | None]
) -> Found | Problem | None:
    """The secret of a table, None if it states none. Reads the environment through `variables`, and files."""
    stated = {f"{key}{way}": value for way in _WAYS if (value := getattr(table, f"{key}{way}")) is not None}
    if not stated:
        return None
    if len(stated) > 1:
        names = " and ".join(stated)
        return Problem(
            f"{where} {next(iter(stated))}", f"is one of several ways ({names})", "keep one of them"
        )
    ((name, value),) = stated.items()
    given = secret_text(value)
    if not given.strip():
        return Problem(f"{where} {name}", "is empty", "give it a value, or leave it out")
    if name == f"{key}_env":
        return _read_variable(given, name, where, variables)
    if name == f"{key}_file":
        return _read_file(given, name, where)
    return Found(SecretStr(given), name, BY_VALUE)


def _read_variable(
    variable: str, name: str, where: str, variables: Mapping[str, str | None]
) -> Found | Problem:
    if _VARIABLE.fullmatch(variable) is None:
        # What looks like no name may be the secret itself.
        return Problem(
            f"{where} {name}", "is no name of an environment variable", "give the name, not the value"
        )
    value = (variables.get(variable) or "").strip()
    if not value:
        if not variable.isupper():
            # It may be the secret itself: names of variables are nearly always written in capitals.
            return Problem(
                f"{where} {name}", "names a variable that is not set", "set it, or name another one"
            )
        remedy = f"set {variable}, or give the name of another variable"
        return Problem(f"{where} {name}", f"names {quote(variable)}, which is not set", remedy)
    return Found(SecretStr(value), name, f"environment ({variable})")


def _read_file(path: str, name: str, where: str) -> Found | Problem:
    try:
        with Path(path).open("rb") as opened:
            content = opened.read(_LARGEST_BYTES + 1)
        value = content.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no UTF-8 text"
        remedy = "mount the file there, and let the tailer's user read it"
        return Problem(f"{where} {name}", f"is {quote(path)}, which cannot be read ({reason})", remedy)
    if not value or len(content) > _LARGEST_BYTES:
        amount = "is empty" if not value else f"has more than {_LARGEST_BYTES} bytes"
        return Problem(
            f"{where} {name}", f"is {quote(path)}, which {amount}", "write nothing but the value into it"
        )
    return Found(SecretStr(value), name, path)
