"""`tailer check-config`: every setting with value, unit, source and default, also before any is given."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tailer.commands.command import Command
from tailer.commands.terminal import align, paint
from tailer.errors import SettingsError

if TYPE_CHECKING:
    from tailer.settings import SettingRow
    from tailer.settings.connection_options import OptionInForce


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs, with the reason for each default")


def _execute(options: argparse.Namespace) -> int:
    from tailer.settings import describe_settings, load_settings  # noqa: PLC0415 - a small command starts quickly
    from tailer.settings.connection_options import describe_connections  # noqa: PLC0415 - as above

    try:
        settings = load_settings()
    except SettingsError as error:
        _show(_list_given(error), (), error.hint.splitlines(), {}, as_json=options.json)
        # The problems follow on standard error.
        sys.stdout.flush()
        raise
    connections = describe_connections(
        settings.mongo_uri.get_secret_value(), settings.state_uri.get_secret_value()
    )
    _show(describe_settings(settings), settings.warnings, (), connections, as_json=options.json)
    return 0


def _list_given(error: SettingsError) -> "Sequence[SettingRow]":
    from tailer.settings.table import describe_given  # noqa: PLC0415 - as above

    try:
        return describe_given()
    except (OSError, UnicodeDecodeError):
        # The content of an unreadable .env is unknown.
        raise error from None


def _show(
    rows: "Sequence[SettingRow]",
    warnings: Sequence[str],
    problems: Sequence[str],
    connections: "Mapping[str, Sequence[OptionInForce]]",
    *,
    as_json: bool,
) -> None:
    from tailer.settings.table import format_table  # noqa: PLC0415 - as above

    if as_json:
        settings = [dataclasses.asdict(row) for row in rows]
        told = {
            "settings": settings,
            "warnings": warnings,
            "problems": problems,
            "connections": {
                whose: [dataclasses.asdict(option) for option in found]
                for whose, found in connections.items()
            },
        }
        print(json.dumps(told, indent=2))
        return
    print(format_table(rows, embolden=lambda heading: paint("1", heading)))
    for whose, found in connections.items():
        print(f"\n{paint('1', f'Connection to {whose}')}")
        print("\n".join(align([("option", "value", "source"), *map(dataclasses.astuple, found)])))
    if warnings or problems:
        print()
    for warning in warnings:
        print(f"{paint('33', 'warning')}: {warning}")


COMMAND = Command("check-config", "show every setting: value, unit, source, default", _execute, _add_options)
