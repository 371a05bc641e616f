"""`tailer check-config`: every setting with value, unit, source and default."""

import argparse
import dataclasses
import json

from tailer.commands.command import Command
from tailer.commands.terminal import paint


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs, with the reason for each default")


def _execute(options: argparse.Namespace) -> int:
    from tailer.settings import describe_settings, load_settings  # noqa: PLC0415 - a small command starts quickly
    from tailer.settings.table import format_table  # noqa: PLC0415

    settings = load_settings()
    rows = describe_settings(settings)
    if options.json:
        document = {"settings": [dataclasses.asdict(row) for row in rows], "warnings": settings.warnings}
        print(json.dumps(document, indent=2))
        return 0
    print(format_table(rows, embolden=lambda heading: paint("1", heading)))
    if settings.warnings:
        print()
    for warning in settings.warnings:
        print(f"{paint('33', 'warning')}: {warning}")
    return 0


COMMAND = Command("check-config", "show every setting: value, unit, source, default", _execute, _add_options)
