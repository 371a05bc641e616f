"""Where settings come from: names in the environment and in `.env`, in the order in which they win.

Owns the names of every setting, which of two given values wins, and which names are unknown. Refuses to convert values,
and to show any.
"""

import difflib
import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource

from tailer.settings.kinds import Kind

DESTINATIONS_FILE: Final = "destinations_file"
"""The attribute of the setting whose file may name further variables."""
_OWN: Final = "TAILER_"
_LANGFUSE: Final = "LANGFUSE_"
# Kubernetes sets these in every container of a namespace that has a Service called `tailer` or `langfuse`.
_SERVICE_LINK: Final = re.compile(
    r".*_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)
_SERVICE_ADDRESSES: Final = ("tcp://", "udp://", "sctp://")


class Group(StrEnum):
    """The headings under which settings are shown."""

    LANGFUSE = "Langfuse"
    MONGO = "MongoDB"
    TURNS = "Turns"
    CONTENT = "What is sent"
    DELIVERY = "Delivery"
    OPERATION = "Operation"


class Place(StrEnum):
    """Where a value was found; for names of the same rank the first place wins over the second."""

    ENVIRONMENT = "environment"
    DOTENV = ".env"


@dataclass(frozen=True, slots=True)
class Origin:
    """The name that gave a setting its value, and where it was found."""

    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in addition to the values: origins by attribute, warnings, and names that are errors.

    `variables` are all of the environment and of `.env`, for a file that names some of them.
    """

    origins: Mapping[str, Origin] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()
    variables: Mapping[str, str | None] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """Annotation of a field: its heading, the kind of its values, and its names, the main one first.

    `fallback` says in words what happens to a field without a fixed default.
    """

    group: Group
    kind: Kind
    names: tuple[str, ...]
    fallback: str | None = None

    @property
    def ranks(self) -> tuple[tuple[str, ...], ...]:
        """The names by precedence: the tailer's own names before those that LibreChat reads too."""
        twins = tuple(_OWN + name for name in self.names if name.startswith(_LANGFUSE))
        own = tuple(name for name in self.names if name.startswith(_OWN))
        shared = tuple(name for name in self.names if not name.startswith(_OWN))
        return tuple(rank for rank in (own + twins, shared) if rank)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Convert before pydantic's own validation. None passes if the field may have no value."""
        convert = self.kind.convert
        return core_schema.no_info_before_validator_function(
            lambda value: None if value is None else convert(value), handler(source)
        )


def get_setting(field_info: FieldInfo) -> Setting | None:
    """The annotation of a field, None for a field that is no setting."""
    return next((item for item in field_info.metadata if isinstance(item, Setting)), None)


def collect_settings(fields: Mapping[str, FieldInfo]) -> dict[str, Setting]:
    """The settings of a class by attribute, in the order of their definition."""
    return {name: setting for name, info in fields.items() if (setting := get_setting(info)) is not None}


class NamedValuesSource(PydanticBaseSettingsSource):
    """Reads every setting by its names.

    A name of the tailer's own wins over a shared one wherever it is, because LibreChat reads the same `.env`. Among
    names of one rank the environment wins over `.env`. An empty value counts as not given, because compose writes
    `${NAME:-}` for a variable that is not set.
    """

    def __init__(
        self,
        settings_class: type[BaseSettings],
        names_elsewhere: Callable[[Path], frozenset[str] | None] = lambda _: frozenset(),
    ) -> None:
        """`names_elsewhere` gives the variables that the file of destinations names, None if it cannot be read."""
        super().__init__(settings_class)
        self._names_elsewhere = names_elsewhere
        self._settings = collect_settings(settings_class.model_fields)
        self._given: dict[Place, Mapping[str, str | None]] = {
            Place.ENVIRONMENT: os.environ,
            Place.DOTENV: _read_dotenv(settings_class),
        }

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text that was given for one field, or None. It is never a complex value."""
        setting = get_setting(field)
        found = self._find(setting)[0] if setting is not None else None
        return (self._read(found) if found is not None else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The texts by attribute, and the findings; nothing for values that code passed itself."""
        texts = {name: self._read(origin) for name, origin in self.origins().items()}
        return {**texts, "findings": self.findings()}

    def origins(self) -> dict[str, Origin]:
        """The name that counts, by attribute, for values that were given and not passed by code."""
        found = {
            name: self._find(setting)[0]
            for name, setting in self._settings.items()
            if name not in self.current_state
        }
        return {name: origin for name, origin in found.items() if origin is not None}

    def findings(self) -> Findings:
        """Everything but the values."""
        known = {name for setting in self._settings.values() for rank in setting.ranks for name in rank}
        path = self._destinations_file()
        elsewhere = self._names_elsewhere(path) if path is not None else frozenset()
        known |= elsewhere or frozenset()
        errors: list[tuple[str, str]] = []
        warnings = [
            f"{winner.name} and {other} differ: {winner.name} is used"
            for winner, others in map(self._find, self._settings.values())
            for other in others
            if winner is not None
        ]
        for name, value in sorted(self._given[Place.ENVIRONMENT].items()):
            if name in known or not name.startswith((_OWN, _LANGFUSE)) or _is_service_link(name, value or ""):
                continue
            if name.startswith(_OWN):
                # The file that cannot be read may name it; that file is the error then.
                if elsewhere is not None:
                    errors.append((name, _guess(name, known)))
            else:
                warnings.append(f"{name} is no setting of the tailer and is ignored{_guess(name, known)}")
        warnings += (
            f"{name} in .env is no setting of the tailer and is ignored{_guess(name, known)}"
            for name in sorted(self._given[Place.DOTENV])
            if name.startswith(_OWN) and name not in known
        )
        variables = {
            **self._given[Place.DOTENV],
            **{name: value for name, value in os.environ.items() if value},
        }
        return Findings(self.origins(), tuple(warnings), tuple(errors), variables)

    def _destinations_file(self) -> Path | None:
        given = self.current_state.get(DESTINATIONS_FILE)
        found = self._find(self._settings.get(DESTINATIONS_FILE))[0]
        text = str(given) if given is not None else self._read(found) if found is not None else ""
        return Path(text) if text else None

    def _find(self, setting: Setting | None) -> tuple[Origin | None, Sequence[str]]:
        """The origin that counts, and the names of the same rank and place with another value."""
        for rank in setting.ranks if setting is not None else ():
            for place in Place:
                given = [Origin(name, place) for name in rank if self._read(Origin(name, place))]
                if given:
                    value = self._read(given[0])
                    return given[0], [other.name for other in given[1:] if self._read(other) != value]
        return None, ()

    def _read(self, origin: Origin) -> str:
        return (self._given[origin.place].get(origin.name) or "").strip()


def _read_dotenv(settings_class: type[BaseSettings]) -> Mapping[str, str | None]:
    """The values of `.env`; raises OSError where it is there and is no file, which pydantic takes for an absent one."""
    path = Path(str(settings_class.model_config["env_file"]))
    # Docker makes a directory of a file that is to be mounted and is missing.
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory", str(path))
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(errno.ENOENT, "it is a link to nothing", str(path))
    return DotEnvSettingsSource(settings_class).env_vars


def _is_service_link(name: str, value: str) -> bool:
    is_address = name.endswith("_PORT") and value.startswith(_SERVICE_ADDRESSES)
    return is_address or _SERVICE_LINK.fullmatch(name) is not None


def _guess(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f"; the closest one is {close[0]}" if close else ""
