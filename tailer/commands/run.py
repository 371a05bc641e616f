"""`tailer run`: the daemon."""

import argparse

from tailer.commands.command import Command


def _execute(_: argparse.Namespace) -> int:
    from tailer.daemon.daemon import run_daemon  # noqa: PLC0415 - a small command starts without the daemon
    from tailer.settings import load_settings  # noqa: PLC0415

    return run_daemon(load_settings())


COMMAND = Command("run", "tail LibreChat's database until SIGTERM or Ctrl-C", _execute)
