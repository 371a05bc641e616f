"""`tailer dead-letters`: shows the turns that could not be sent, sends them again, or forgets them."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tailer.commands.command import Command
from tailer.commands.consent import ask
from tailer.commands.terminal import align, paint
from tailer.core.moments import describe_moment
from tailer.flow.letter_reasons import ID_OF_ANOTHER_ROW, LetterKind, LetterReason
from tailer.printable import escape_unprintable

if TYPE_CHECKING:
    from tailer.mongo.state.survey import StoredLetter
    from tailer.operations.dead_letters import LetterDesk

EXIT_DECLINED: Final = 1
EXIT_NOT_SENT: Final = 1
_PATIENCE: Final = timedelta(seconds=60)
_SHORT_ID: Final = 12
_YELLOW: Final = "33"
_ADVICE: Final = {
    LetterKind.BUILD_FAILED: (
        "the tailer could not read this row: please report the reason, and after an update replay it; "
        "drop it if the turn does not matter"
    ),
    LetterKind.MISSING_IN_LANGFUSE: (
        "Langfuse acknowledged it and does not show it: replay it, and it is built and sent anew; where that repeats, see "
        "Langfuse's worker, its queue and its storage"
    ),
    LetterKind.REJECTED: (
        "Langfuse refused it: see its log for this trace, mend what it names (a limit of size, a proxy, its version), "
        "then replay it"
    ),
    LetterKind.OTHER: "another release of the tailer wrote this reason: replay it, or drop it if the turn does not matter",
}
"""The advice for a letter, by the kind of its reason."""
_ADVICE_ON_IDS: Final = (
    "another user has a message of the same id, and its turn has the trace of that id. LibreChat makes unique ids, so see "
    "who wrote this row, then drop the letter"
)


def _add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    listing = actions.add_parser("list", help="all of them, a line each", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="for programs")
    _add_destination(listing)
    showing = actions.add_parser("show", help="one of them, with what to do about it", allow_abbrev=False)
    showing.add_argument("id", help="its id, the beginning of it, or the message's id")
    showing.add_argument("--json", action="store_true", help="for programs")
    _add_destination(showing)
    for name, summary in (
        ("replay", "send again: what is fixed by now arrives"),
        ("drop", "forget: it is never sent"),
    ):
        action = actions.add_parser(name, help=summary, allow_abbrev=False)
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("id", nargs="*", default=[], help="ids, beginnings of ids, or messages' ids")
        which.add_argument("--all", action="store_true", help="every dead letter")
        _add_destination(action)
        if name == "drop":
            action.add_argument("--yes", action="store_true", help="do not ask")


def _add_destination(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--destination", metavar="NAME", help="only what was for this destination")


def _execute(options: argparse.Namespace) -> int:
    return asyncio.run(_act(options))


async def _act(options: argparse.Namespace) -> int:
    from tailer.operations.dead_letters import open_letters  # noqa: PLC0415 - a small command starts quickly
    from tailer.settings import load_settings  # noqa: PLC0415

    async with open_letters(load_settings()) as desk:
        match options.action:
            case "list":
                return _list(await desk.list_letters(options.destination), as_json=options.json)
            case "show":
                (letter,) = await desk.choose([options.id], options.destination)
                return _show(letter, as_json=options.json)
            case "replay":
                return await _replay(desk, await _choose(desk, options))
            case _:
                return await _drop(desk, await _choose(desk, options), agreed=options.yes)


async def _choose(desk: "LetterDesk", options: argparse.Namespace) -> "Sequence[StoredLetter]":
    if options.all:
        return await desk.list_letters(options.destination)
    return await desk.choose(options.id, options.destination)


def _list(letters: "Sequence[StoredLetter]", *, as_json: bool) -> int:
    from tailer.settings.destinations import DEFAULT_NAME  # noqa: PLC0415 - a small command starts quickly

    if as_json:
        print(json.dumps([_as_document(letter) for letter in letters], indent=2))
    elif not letters:
        print("no dead letters: every turn could be sent")
    else:
        # With one destination there is nothing to tell apart.
        shown = len({DEFAULT_NAME, *(letter.destination for letter in letters)}) > 1
        rows: list[tuple[str, ...]] = [
            ("id", *(["destination"] * shown), "last failure", "tries", "reason", "message", "replay")
        ]
        rows += [
            (
                letter.record_id[:_SHORT_ID],
                *([letter.destination] * shown),
                describe_moment(letter.last_failed_at),
                str(letter.tries),
                str(letter.reason),
                escape_unprintable(letter.message_id),
                letter.replay or "",
            )
            for letter in letters
        ]
        print("\n".join(align(rows)))
    return 0


def _show(letter: "StoredLetter", *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(_as_document(letter), indent=2))
        return 0
    held = (
        "nothing was built"
        if letter.stored_bytes is None
        else f"{letter.stored_bytes} bytes, as the content policy let them be built"
    )
    lines = {
        "id": letter.record_id,
        "destination": letter.destination,
        "message": escape_unprintable(letter.message_id),
        "row": letter.document_key,
        "reason": str(letter.reason),
        "first failure": describe_moment(letter.first_failed_at),
        "last failure": describe_moment(letter.last_failed_at),
        "tries": str(letter.tries),
        "trace": held,
        "replay": letter.replay or "not asked for",
        "what to do": _advise(letter),
    }
    width = max(map(len, lines))
    print("\n".join(f"{paint('1', name.ljust(width))}  {value}" for name, value in lines.items()))
    return 0


def _advise(letter: "StoredLetter") -> str:
    if letter.reason == LetterReason(LetterKind.BUILD_FAILED, ID_OF_ANOTHER_ROW):
        return _ADVICE_ON_IDS
    return _ADVICE[letter.reason.kind]


async def _replay(desk: "LetterDesk", letters: "Sequence[StoredLetter]") -> int:
    if not letters:
        print("no dead letters: nothing to send")
        return 0
    await desk.ask(letters)
    if not await desk.has_sender():
        print(f"{_count(letters)} marked: no tailer is running now, the next one sends them")
        return 0
    replayed = await desk.follow(letters, _PATIENCE)
    print(f"sent {replayed.sent} of {len(letters)}")
    for letter in replayed.kept:
        told = letter.replay or f"failed again: {letter.reason}"
        print(paint(_YELLOW, f"  {letter.record_id[:_SHORT_ID]}  {told}"))
    if replayed.waiting:
        print(f"{replayed.waiting} still wait: the running tailer goes on with them")
    return EXIT_NOT_SENT if replayed.kept else 0


async def _drop(desk: "LetterDesk", letters: "Sequence[StoredLetter]", *, agreed: bool) -> int:
    if not letters:
        print("no dead letters: nothing to forget")
        return 0
    print(f"{_count(letters)} would be forgotten, and their turns never sent unless their rows change again")
    if not agreed and not await ask():
        print("nothing was changed")
        return EXIT_DECLINED
    print(f"forgot {await desk.drop(letters)}")
    return 0


def _count(letters: "Sequence[StoredLetter]") -> str:
    return "1 dead letter" if len(letters) == 1 else f"{len(letters)} dead letters"


def _as_document(letter: "StoredLetter") -> dict[str, object]:
    times = {
        "first_failed_at": letter.first_failed_at.isoformat(),
        "last_failed_at": letter.last_failed_at.isoformat(),
    }
    return {**asdict(letter), "reason": str(letter.reason), **times}


COMMAND = Command(
    "dead-letters", "list, show, replay or drop the turns that could not be sent", _execute, _add_options
)
