"""`tailer checkpoint`: shows the stored positions, and moves or forgets them after saying what that means."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from tailer.commands.command import Command
from tailer.commands.consent import ask
from tailer.commands.terminal import align, paint
from tailer.commands.times import read_moment
from tailer.core.moments import describe_seconds

if TYPE_CHECKING:
    from tailer.core.lease import LeaseRecord
    from tailer.operations.checkpoints import Change, Stretch, Survey

EXIT_DECLINED: Final = 1
_BOLD: Final = "1"
_YELLOW: Final = "33"


def _add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    show = actions.add_parser("show", help="where each stream stands", allow_abbrev=False)
    show.add_argument("--json", action="store_true", help="for programs")
    setting = actions.add_parser("set", help="let every stream begin at a time", allow_abbrev=False)
    setting.add_argument(
        "--time",
        type=read_moment,
        required=True,
        metavar="ISO",
        help="such as 2026-01-31T08:00:00Z; a time needs Z or an offset",
    )
    reset = actions.add_parser(
        "reset", help="forget the positions: the next start is a first one", allow_abbrev=False
    )
    for action in (setting, reset):
        action.add_argument("--yes", action="store_true", help="do not ask")


def _execute(options: argparse.Namespace) -> int:
    if options.action == "show":
        return asyncio.run(_show(as_json=options.json))
    begin: datetime | None = options.time if options.action == "set" else None
    return asyncio.run(_change(begin, agreed=options.yes))


async def _show(*, as_json: bool) -> int:
    from tailer.operations.checkpoints import open_desk  # noqa: PLC0415 - a small command starts quickly
    from tailer.settings import load_settings  # noqa: PLC0415

    async with open_desk(load_settings()) as desk:
        survey = await desk.survey()
    if as_json:
        print(json.dumps(_as_document(survey), indent=2))
    else:
        print("\n".join(_describe_survey(survey)))
    return 0


def _as_document(survey: "Survey") -> dict[str, object]:
    pending = survey.pending
    return {
        "streams": [
            {
                "shard": found.shard.index,
                "stream": found.checkpoint.stream.value,
                "position_time": describe_seconds(found.checkpoint.position.cluster_seconds),
                "age_seconds": found.age_seconds,
                "resumable": found.resumable,
                "has_token": found.checkpoint.position.token is not None,
                "epoch": found.checkpoint.epoch,
                "destination": found.checkpoint.destination,
            }
            for found in survey.streams
        ],
        "pending": {
            "batches": pending.batches,
            "parked": pending.parked,
            "dead_letters": pending.dead_letters,
            "gaps": pending.gaps,
            "owed": dict(pending.owed),
        },
        # The one of the first shard, which is the only one where the work is not divided.
        "lease": _describe_lease(next(iter(survey.leases.values()))),
        "leases": [
            {"shard": shard.index, "lease": _describe_lease(lease)} for shard, lease in survey.leases.items()
        ],
    }


def _describe_lease(lease: "LeaseRecord | None") -> dict[str, object] | None:
    if lease is None:
        return None
    return {"epoch": lease.epoch, "host": lease.host, "released": lease.released}


def _describe_survey(survey: "Survey") -> Sequence[str]:
    is_divided = len(survey.leases) > 1
    rows: list[tuple[str, ...]] = [("stream", "position", "age", "resumable", "epoch", "destination")]
    rows += [
        (
            found.checkpoint.stream.value,
            describe_seconds(found.checkpoint.position.cluster_seconds),
            str(timedelta(seconds=found.age_seconds)),
            "yes" if found.resumable else "no",
            str(found.checkpoint.epoch),
            found.checkpoint.destination,
        )
        for found in survey.streams
    ]
    if is_divided:
        shards = ["shard", *(str(found.shard) for found in survey.streams)]
        rows = [(shard, *row) for shard, row in zip(shards, rows, strict=True)]
    lines = align(rows) if survey.streams else ["no checkpoint is stored: the next start is a first one"]
    pending = survey.pending
    waiting = (
        f"{pending.batches} batches on their way, {pending.parked} parked turns, "
        f"{pending.dead_letters} dead letters, {pending.gaps} gaps"
    )
    waiting += "".join(f", {count} owed to {name}" for name, count in pending.owed.items())
    lines += ["", f"pending: {waiting}"]
    for shard, lease in survey.leases.items():
        name = f"lease of {shard}:" if is_divided else "lease:  "
        if lease is not None:
            state = "given up" if lease.released else f"held by {lease.host}"
            lines.append(f"{name} epoch {lease.epoch}, {state}")
        elif is_divided:
            lines.append(f"{name} never held: no instance of this shard has run")
    return lines


async def _change(begin: datetime | None, *, agreed: bool) -> int:
    from tailer.operations.checkpoints import open_desk  # noqa: PLC0415
    from tailer.settings import load_settings  # noqa: PLC0415

    async with open_desk(load_settings()) as desk:
        for line in _describe_changes(await desk.plan(begin)):
            print(line)
        if not agreed and not await ask():
            print("nothing was changed")
            return EXIT_DECLINED
        epoch = await (desk.reset() if begin is None else desk.move(begin))
    print(f"done, in epoch {epoch}: a running daemon goes on from there by itself")
    return 0


def _describe_changes(changes: Sequence["Change"]) -> Sequence[str]:
    lines = []
    for change in changes:
        stored = "nothing" if change.stored_seconds is None else describe_seconds(change.stored_seconds)
        lines.append(
            f"{paint(_BOLD, change.stream.value)}: from {stored} to {describe_seconds(change.begin_seconds)}"
        )
        again, skipped = change.effect.read_again, change.effect.skipped
        if again is not None:
            lines.append(
                f"  read again: {_describe_stretch(again, change)}; what was sent before is known and is not sent twice"
            )
        elif skipped is not None:
            lost = f"  could be lost: {_describe_stretch(skipped, change)}, where it was not sent yet"
            lines.append(paint(_YELLOW, lost))
        else:
            lines.append("  nothing is read again, nothing is skipped")
    return lines


def _describe_stretch(stretch: "Stretch", change: "Change") -> str:
    rows = change.rows
    number = "" if rows is None else f", {'more than' if rows.more else 'some'} {rows.rows} rows made then"
    return f"{describe_seconds(stretch.begin_seconds)} to {describe_seconds(stretch.end_seconds)}{number}"


COMMAND = Command("checkpoint", "show, set or reset the position of the streams", _execute, _add_options)
