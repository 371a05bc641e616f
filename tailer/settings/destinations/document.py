"""Reads a file of destinations: TOML, by pydantic-settings' own source, into the tables of `tables.py`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any, ClassVar, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tailer.printable import redact
from tailer.settings.destinations.problems import Problem, guess, refuse, route_of, table_of
from tailer.settings.destinations.tables import TABLES, DestinationTable, Given, RouteTable
from tailer.settings.from_code import FromCode
from tailer.settings.kinds import UnfitValueError, quote

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_NAME_REMEDY: Final = "give 1 to 31 of a-z, 0-9 and -, not beginning with -"
_TOP_LEVEL: Final = "the file"
_Model = TypeVar("_Model", bound=BaseModel)
_TYPES: Final = {
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": 'a list such as ["a", "b"]',
    "dict_type": 'a table such as { name = "value" }',
    "literal_error": "one of what is accepted",
}


class _TomlFile(FromCode):
    """The top level of the file; the tables below are read one by one, so that each error knows where it stands."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True
    )

    destinations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    routes: list[dict[str, Any]] = Field(default_factory=list)
    otherwise: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """The tables of a file, by name and in order; what is in them was checked one by one, not yet together."""

    path: Path
    destinations: Mapping[str, DestinationTable]
    routes: tuple[RouteTable, ...]
    otherwise: tuple[str, ...] | None


def read_document(path: Path) -> Document:
    """The tables of the file; raises SettingsError that names every problem with table and key."""
    try:
        top = _TomlFile(**_load(path))
    except ValidationError as error:
        raise refuse(str(path), _describe(error, _TOP_LEVEL, _TomlFile)) from None
    problems: list[Problem] = []
    destinations: dict[str, DestinationTable] = {}
    for name, given in top.destinations.items():
        if _NAME.fullmatch(name) is None:
            problems.append(Problem(table_of(quote(name)), "has a name that cannot be used", _NAME_REMEDY))
            continue
        kind = given.get("kind")
        if not isinstance(kind, str) or kind not in TABLES:
            what = "is missing" if kind is None else f"is {quote(kind)}"
            problems.append(
                Problem(f"{table_of(name)} kind", what, f"give one of {', '.join(map(repr, TABLES))}")
            )
            continue
        table = _validate(TABLES[kind], given, table_of(name), problems)
        if table is not None:
            destinations[name] = table
    routes = [
        _validate(RouteTable, given, route_of(position), problems)
        for position, given in enumerate(top.routes)
    ]
    if not top.destinations:
        problems.append(
            Problem(_TOP_LEVEL, "names no destination", "add a table such as [destinations.default]")
        )
    if problems:
        raise refuse(str(path), problems)
    return Document(
        path,
        destinations,
        tuple(route for route in routes if route is not None),
        None if top.otherwise is None else tuple(top.otherwise),
    )


def variables_named_in(path: Path) -> frozenset[str] | None:
    """The environment variables that a file names, None if it cannot be read, which `read_document` explains."""
    try:
        path.stat()
        loaded = TomlConfigSettingsSource(_TomlFile, path)()
    except (OSError, ValueError):
        return None
    tables = loaded.get("destinations")
    named: list[object] = []
    for table in tables.values() if isinstance(tables, dict) else ():
        if isinstance(table, dict):
            named += (value for key, value in table.items() if key.endswith("_env"))
    return frozenset(name for name in named if isinstance(name, str))


def _load(path: Path) -> dict[str, Any]:
    try:
        # The source takes a missing file for an empty one.
        path.stat()
        return TomlConfigSettingsSource(_TomlFile, path)()
    except TOMLDecodeError as error:
        problem = Problem(_TOP_LEVEL, f"is no TOML ({redact(str(error))})", "correct it there; see toml.io")
    except UnicodeDecodeError:
        problem = Problem(_TOP_LEVEL, "is no UTF-8 text", "save it as UTF-8")
    except OSError as error:
        remedy = "mount the file there, let the tailer's user read it, or leave TAILER_DESTINATIONS out"
        problem = Problem(_TOP_LEVEL, f"cannot be read ({error.strerror or type(error).__name__})", remedy)
    raise refuse(str(path), [problem])


def _validate(
    model: type[_Model], given: Mapping[str, Any], where: str, problems: list[Problem]
) -> _Model | None:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems += _describe(error, where, model)
        return None


def _describe(error: ValidationError, where: str, model: type[BaseModel]) -> Iterator[Problem]:
    for details in error.errors(include_url=False, include_input=False):
        key, *inside = details["loc"]
        place = f"{where} {key}{''.join(f'[{quote(part)}]' for part in inside if isinstance(part, str))}"
        if details["type"] == "extra_forbidden":
            known = sorted(model.model_fields)
            remedy = f"remove it; the keys are {', '.join(known)}"
            yield Problem(f"{where} {quote(key)}", f"is not known{guess(str(key), known)}", remedy)
        elif details["type"] == "missing":
            yield Problem(place, "is missing", 'give a list such as ["default"]; [] sends nothing')
        else:
            yield _describe_value(details, place, model, str(key))


def _describe_value(details: ErrorDetails, place: str, model: type[BaseModel], key: str) -> Problem:
    cause = details.get("ctx", {}).get("error")
    info = model.model_fields.get(key)
    kinds = [item.kind for item in info.metadata if isinstance(item, Given)] if info is not None else []
    accepts = kinds[0].accepts if kinds else _TYPES.get(details["type"], "another value")
    if isinstance(cause, UnfitValueError):
        return Problem(place, cause.problem, cause.remedy or f"give {accepts}")
    if details["type"] == "literal_error":
        accepts = str(details.get("ctx", {}).get("expected", accepts))
    is_known_type = kinds or details["type"] == "literal_error"
    return Problem(place, "cannot be used" if is_known_type else "is of another type", f"give {accepts}")
