"""`tailer demo`: recorded traffic through a real replica set and the real daemon."""

import argparse
from pathlib import Path

from tailer.commands.command import Command
from tailer.errors import RequestRefused


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("--file", type=Path, metavar="PATH", help="where the trace file goes")
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="FACTOR",
        help="how much faster than recorded (default: 1)",
    )


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError("a speed is a number above 0")
    return speed


def _execute(options: argparse.Namespace) -> int:
    try:
        from tailer.demo.show import run_demo  # noqa: PLC0415 - the daemon never loads the demo
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("tailer.demo"):
            raise
        raise RequestRefused(
            operation="playing the demo",
            subject="this installation",
            hint="the image leaves the demo out: run `make demo` in a checkout of the repository",
        ) from None
    return run_demo(keep=options.keep, file=options.file, speed=options.speed)


COMMAND = Command(
    "demo", "play recorded traffic into a replica set of its own and trace it", _execute, _add_options
)
