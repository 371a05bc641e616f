"""`tailer check-config`: every setting with value, unit, source and default, also before any is given.

Where a file names several destinations, their values and the routes follow, each with its source.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from tailer.commands.command import Command
from tailer.commands.terminal import align, paint
from tailer.errors import SettingsError

if TYPE_CHECKING:
    from tailer.settings import SettingRow
    from tailer.settings.connection_options import OptionInForce
    from tailer.settings.destinations import Plan
    from tailer.settings.destinations.rows import DestinationRow, RouteRow


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs, with the reason for each default")


def _execute(options: argparse.Namespace) -> int:
    from tailer.settings import describe_settings, load_settings  # noqa: PLC0415 - a small command starts quickly
    from tailer.settings.connection_options import describe_connections  # noqa: PLC0415 - as above

    try:
        settings = load_settings()
    except SettingsError as error:
        _show(_list_given(error), (), error.hint.splitlines(), {}, None, as_json=options.json)
        # The problems follow on standard error.
        sys.stdout.flush()
        raise
    connections = describe_connections(
        settings.mongo_uri.get_secret_value(), settings.state_uri.get_secret_value()
    )
    rows = describe_settings(settings)
    _show(rows, settings.warnings, (), connections, settings.plan, as_json=options.json)
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
    plan: "Plan | None",
    *,
    as_json: bool,
) -> None:
    from tailer.settings.destinations.rows import (  # noqa: PLC0415 - as above
        describe_destinations,
        describe_routes,
    )
    from tailer.settings.table import format_table  # noqa: PLC0415 - as above

    destinations = describe_destinations(plan) if plan is not None else ()
    routes = describe_routes(plan) if plan is not None else ()
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
            "destinations": list(map(dataclasses.asdict, destinations)),
            "routes": list(map(dataclasses.asdict, routes)),
        }
        print(json.dumps(told, indent=2))
        return
    print(format_table(rows, embolden=lambda heading: paint("1", heading)))
    for whose, found in connections.items():
        print(f"\n{paint('1', f'Connection to {whose}')}")
        print("\n".join(align([("option", "value", "source"), *map(dataclasses.astuple, found)])))
    if plan is not None and plan.path is not None:
        _show_plan(destinations, routes)
    if warnings or problems:
        print()
    for warning in warnings:
        print(f"{paint('33', 'warning')}: {warning}")


def _show_plan(destinations: "Sequence[DestinationRow]", routes: "Sequence[RouteRow]") -> None:
    """A table for each destination, and one of the routes; the settings of the environment say the same without a
    file."""
    for name, rows in groupby(destinations, key=lambda row: row.destination):
        print(f"\n{paint('1', f'Destination {name}')}")
        cells = [(row.key, row.value, row.source) for row in rows]
        print("\n".join(align([("key", "value", "source"), *cells])))
    print(f"\n{paint('1', 'Routes')}")
    print("\n".join(align([("number", "matches", "goes to"), *map(dataclasses.astuple, routes)])))


COMMAND = Command("check-config", "show every setting: value, unit, source, default", _execute, _add_options)
