"""`tailer doctor`: everything that the tailer needs, checked, each failure with its remedy."""

import argparse
import asyncio
import dataclasses
import json
from collections.abc import Sequence
from datetime import timedelta
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from tailer.commands.command import Command
from tailer.commands.terminal import paint
from tailer.errors import SettingsError
from tailer.printable import escape_unprintable

if TYPE_CHECKING:
    from tailer.operations.doctor.findings import Finding

EXIT_UNWELL: Final = 1
_COLOURS: Final = {"PASS": "32", "WARN": "33", "FAIL": "31", "SKIP": "2"}
_WIDTH: Final = 100
_MOST_HOURS: Final = 24 * 365


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--downtime-hours",
        type=_hours,
        default=timedelta(hours=24),
        metavar="HOURS",
        help="how long the tailer may be away without a gap, which the oplog must reach back (default: 24)",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 for a WARN too")
    parser.add_argument("--json", action="store_true", help="for programs")


def _hours(text: str) -> timedelta:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f"give a number of hours up to {_MOST_HOURS}, such as 48")
    return timedelta(hours=hours)


def _execute(options: argparse.Namespace) -> int:
    from tailer.operations.doctor.examination import examine  # noqa: PLC0415 - a small command starts quickly
    from tailer.operations.doctor.findings import Verdict, failed, skipped, worst  # noqa: PLC0415
    from tailer.settings import load_settings  # noqa: PLC0415

    try:
        findings = asyncio.run(examine(load_settings(), downtime=options.downtime_hours))
    except SettingsError as error:
        findings = [
            failed("settings", f"cannot be used: {error.subject}", error.hint),
            skipped("everything else", "see the failure above"),
        ]
    verdict = worst(findings)
    if options.json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"verdict": verdict, "findings": rows}, indent=2))
    else:
        print("\n".join(_describe(findings)))
    unwell = verdict is Verdict.FAIL or (options.strict and verdict is Verdict.WARN)
    return EXIT_UNWELL if unwell else 0


def _describe(findings: "Sequence[Finding]") -> list[str]:
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        mark = paint(_COLOURS[finding.verdict], finding.verdict)
        lines.append(f"{mark}  {finding.check.ljust(width)}  {escape_unprintable(finding.seen)}")
        if finding.remedy is not None:
            lines += [
                line
                for paragraph in finding.remedy.splitlines()
                for line in wrap(
                    escape_unprintable(paragraph),
                    _WIDTH,
                    initial_indent="      -> ",
                    subsequent_indent="         ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            ]
    counts = [
        f"{number} {verdict}"
        for verdict in _COLOURS
        if (number := sum(finding.verdict == verdict for finding in findings))
    ]
    return [*lines, "", ", ".join(counts)]


COMMAND = Command(
    "doctor",
    "check everything that the tailer needs, with a remedy for what is missing",
    _execute,
    _add_options,
)
