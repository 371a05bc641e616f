"""Settings as rows for people and programs: the value that counts, where it came from, and the reason for the default.

Refuses to show secrets: it shows the last four characters of the public key, connection strings without the password,
and nothing of other secrets.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tailer.core.policy.policies import ContentRule, Rule
from tailer.settings.addresses import parse_mongo_uri
from tailer.settings.environment import Group, NamedValuesSource, Origin, Setting, collect_settings
from tailer.settings.kinds import Kind, UnfitValueError
from tailer.settings.loading import Settings

_NONE: Final = "none"
_MISSING: Final = "missing"
_REFUSED: Final = "cannot be used"
_WIDEST_COLUMN: Final = 42
_GAP: Final = 2
_COLUMNS: Final = ("setting", "value", "unit", "source", "default")


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting, ready to be shown: secrets are masked, durations are numbers of the unit."""

    group: Group
    name: str
    value: str
    source: str
    unit: str
    default: str
    accepts: str
    explanation: str
    other_names: tuple[str, ...]


def describe_settings(settings: Settings) -> Sequence[SettingRow]:
    """A row for each setting, in the order of the groups."""
    return _sorted(
        _describe(settings, attribute, setting, Settings.model_fields[attribute])
        for attribute, setting in collect_settings(Settings.model_fields).items()
    )


def describe_given() -> Sequence[SettingRow]:
    """The same rows while the settings cannot be used yet: what is missing or refused says so instead of a value.

    Raises OSError or UnicodeDecodeError for an unreadable `.env`. What would follow from other settings is not
    resolved.
    """
    given = NamedValuesSource(Settings)
    origins, texts = given.origins(), given()
    rows = []
    for attribute, setting in collect_settings(Settings.model_fields).items():
        info, origin = Settings.model_fields[attribute], origins.get(attribute)
        if origin is not None:
            value, source = (
                _show_text(texts[attribute], attribute, setting.kind),
                _name_origin(origin, setting),
            )
        elif info.is_required():
            value, source = _MISSING, _NONE
        else:
            default = setting.fallback if info.default_factory is not None else None
            value, source = default or _show(info.default, setting.kind), "default"
        rows.append(_make_row(setting, info, value=value, source=source))
    return _sorted(rows)


def describe_defaults() -> Sequence[SettingRow]:
    """The same rows with the defaults in place of values, whatever is set."""
    fields = Settings.model_fields
    return _sorted(
        _make_row(setting, fields[attribute], value="", source="default")
        for attribute, setting in collect_settings(fields).items()
    )


def _show_text(text: object, attribute: str, kind: Kind) -> str:
    try:
        return _show_value(kind.convert(text), attribute, kind)
    except UnfitValueError:
        # The problem that is shown beside the table quotes what may be shown of it.
        return _REFUSED


def _describe(settings: Settings, attribute: str, setting: Setting, info: FieldInfo) -> SettingRow:
    return _make_row(
        setting,
        info,
        value=_show_value(getattr(settings, attribute), attribute, setting.kind),
        source=_describe_source(settings, attribute, setting),
    )


def _make_row(setting: Setting, info: FieldInfo, *, value: str, source: str) -> SettingRow:
    if setting.fallback is not None:
        default = setting.fallback
    elif info.is_required():
        default = "required"
    else:
        default = _show(info.default, setting.kind)
    return SettingRow(
        group=setting.group,
        name=setting.names[0],
        value=value,
        source=source,
        unit=setting.kind.unit,
        default=default,
        accepts=setting.kind.accepts,
        explanation=info.description or "",
        other_names=tuple(name for rank in setting.ranks for name in rank if name != setting.names[0]),
    )


def _sorted(rows: Iterable[SettingRow]) -> Sequence[SettingRow]:
    return sorted(rows, key=lambda row: list(Group).index(row.group))


def _name_origin(origin: Origin, setting: Setting) -> str:
    alias = "" if origin.name == setting.names[0] else f" ({origin.name})"
    return f"{origin.place.value}{alias}"


def _describe_source(settings: Settings, attribute: str, setting: Setting) -> str:
    origins = settings.findings.origins
    if attribute == "mongo_database" and parse_mongo_uri(settings.mongo_uri.get_secret_value()).database:
        return "path of the URI"
    if attribute == "log_level" and settings.langfuse_debug:
        return "LANGFUSE_DEBUG"
    origin = origins.get(attribute)
    if origin is not None:
        return _name_origin(origin, setting)
    return "command" if attribute in settings.model_fields_set else "default"


def _show_value(value: Any, attribute: str, kind: Kind) -> str:
    if attribute == "langfuse_public_key" and value is not None:
        return f"set (…{value[-4:]})"
    if attribute in {"mongo_uri", "state_uri"}:
        return parse_mongo_uri(value.get_secret_value()).without_credentials()
    if attribute == "mask_patterns" and value:
        # An expression may contain commas.
        return json.dumps(value, ensure_ascii=False)
    return _show(value, kind)


def _show(value: object, kind: Kind) -> str:
    match value:
        case None | ():
            shown = _NONE
        case SecretStr():
            shown = "set"
        case bool():
            shown = str(value).lower()
        case timedelta():
            shown = f"{value / (kind.scale or timedelta(seconds=1)):.15g}"
        case float():
            shown = f"{value:.15g}"
        case tuple():
            shown = ",".join(_show(item, kind) for item in value)
        case Rule():
            shown = f"{value.fact.value}={value.pattern}"
        case ContentRule():
            shown = f"{_show(value.rule, kind)}:{value.choice.value}"
        case _:
            shown = str(value)
    return shown


def format_table(rows: Sequence[SettingRow], *, embolden: Callable[[str], str]) -> str:
    """The rows under their headings, with columns aligned over all groups; `embolden` marks the headings.

    What follows a value that is too long for its column is on the next line, under its own heading.
    """
    cells = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [
        max(len(line[column]) for line in cells if len(line[column]) <= _WIDEST_COLUMN)
        for column in range(len(_COLUMNS))
    ]
    lines = [_align(_COLUMNS, widths)]
    for group, members in groupby(rows, key=lambda row: row.group):
        lines += ["", embolden(group.value), *(_align(_cells(row), widths) for row in members)]
    return "\n".join(lines)


def _cells(row: SettingRow) -> tuple[str, ...]:
    return row.name, row.value, row.unit, row.source, row.default


def _align(cells: Sequence[str], widths: Sequence[int]) -> str:
    lines = [""]
    column = _GAP
    for cell, width in zip(cells, widths, strict=True):
        if len(lines[-1]) > column - _GAP:
            lines.append("")
        lines[-1] = lines[-1].ljust(column) + cell
        column += width + _GAP
    return "\n".join(line.rstrip() for line in lines)
