"""`tailer reconcile`: names the turns of LibreChat's database that are missing in Langfuse or there twice."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tailer.commands.command import Command
from tailer.commands.terminal import align
from tailer.commands.times import read_moment
from tailer.core.moments import describe_moment
from tailer.printable import escape_unprintable

if TYPE_CHECKING:
    from tailer.operations.reconcile import Comparison, Discrepancy
    from tailer.settings import Settings

EXIT_DIFFERENT: Final = 1
_SHOWN: Final = 50
_PATIENCE: Final = timedelta(minutes=5)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", type=read_moment, required=True, metavar="ISO", help="turns from this time on"
    )
    parser.add_argument("--until", type=read_moment, metavar="ISO", help="turns up to this time")
    parser.add_argument(
        "--destination", metavar="NAME", help="the project of Langfuse, where the settings name several"
    )
    parser.add_argument("--repair", action="store_true", help="send what is missing")
    parser.add_argument("--json", action="store_true", help="for programs")


def _execute(options: argparse.Namespace) -> int:
    return asyncio.run(_reconcile(options))


async def _reconcile(options: argparse.Namespace) -> int:
    from tailer.operations.backfill import Request  # noqa: PLC0415 - a small command starts quickly
    from tailer.operations.reconcile import open_reconciliation  # noqa: PLC0415
    from tailer.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    repaired = None
    async with open_reconciliation(settings, options.destination) as (reconciliation, now):
        comparison = await reconciliation.compare(Request(options.since, options.until), now)
        if options.repair and comparison.missing:
            await reconciliation.repair(comparison.missing)
            repaired = await _wait_for_repair(settings, comparison.missing, reconciliation.destination)
    if options.json:
        print(json.dumps(_as_document(comparison, repaired), indent=2))
    else:
        print("\n".join(_describe(comparison, repaired)))
    unmended = len(comparison.missing) - (repaired or 0)
    return EXIT_DIFFERENT if unmended or comparison.doubled else 0


async def _wait_for_repair(settings: "Settings", missing: "Sequence[Discrepancy]", destination: str) -> int:
    """How many turns were sent while this command waited; none without a running tailer."""
    from tailer.operations.dead_letters import open_letters  # noqa: PLC0415

    async with open_letters(settings) as desk:
        asked = {found.trace_id for found in missing}
        letters = [each for each in await desk.list_letters(destination) if each.record_id in asked]
        if not await desk.has_sender():
            return len(asked) - len(letters)
        followed = await desk.follow(letters, _PATIENCE)
    return len(asked) - followed.waiting - len(followed.kept)


def _describe(comparison: "Comparison", repaired: int | None) -> list[str]:
    summary = (
        f"{comparison.expected} turns should be in Langfuse: {len(comparison.missing)} are missing, "
        f"{len(comparison.doubled)} are there more than once, {comparison.recent} were sent too lately to tell"
    )
    lines = [summary]
    if comparison.out_of_sight:
        lines.append(
            f"{comparison.out_of_sight} are not shown and began more than 29 days ago: Langfuse Cloud shows no older ones on "
            "some plans, so nothing is said of these"
        )
    left_out = ", ".join(
        f"{count} {reason}" for reason, count in sorted(comparison.left_out.items()) if count
    )
    if left_out:
        lines.append(f"left out: {left_out}")
    differences = [*comparison.missing, *comparison.doubled]
    if differences:
        rows = [("trace", "message", "copies", "acknowledged")]
        rows += [
            (
                found.trace_id,
                escape_unprintable(found.message_id),
                str(found.copies),
                "never" if found.sent_at is None else describe_moment(found.sent_at),
            )
            for found in differences[:_SHOWN]
        ]
        lines += ["", *align(rows)]
    if len(differences) > _SHOWN:
        lines.append(f"and {len(differences) - _SHOWN} more: --json shows all")
    if repaired is not None:
        lines += ["", f"sent {repaired} of {len(comparison.missing)}"]
        if repaired < len(comparison.missing):
            lines.append(
                "the others wait as dead letters, which the next tailer that runs sends: `tailer dead-letters list`"
            )
    return lines


def _as_document(comparison: "Comparison", repaired: int | None) -> dict[str, object]:
    def show(found: "Discrepancy") -> dict[str, object]:
        return {
            "trace_id": found.trace_id,
            "message_id": found.message_id,
            "copies": found.copies,
            "acknowledged_at": None if found.sent_at is None else found.sent_at.isoformat(),
        }

    return {
        "expected": comparison.expected,
        "recent": comparison.recent,
        "out_of_sight": comparison.out_of_sight,
        "missing": [show(found) for found in comparison.missing],
        "doubled": [show(found) for found in comparison.doubled],
        "left_out": dict(comparison.left_out),
        "repaired": repaired,
    }


COMMAND = Command(
    "reconcile",
    "compare LibreChat's turns with what Langfuse has, and send what is missing",
    _execute,
    _add_options,
)
