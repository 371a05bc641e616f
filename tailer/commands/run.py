"""`tailer run`: the daemon."""

import argparse
import sys

from tailer.commands.command import Command
from tailer.errors import SettingsError
from tailer.logs import LogFormat, LogLevel, LogWriter


def _execute(_: argparse.Namespace) -> int:
    from tailer.daemon.daemon import run_daemon  # noqa: PLC0415 - a small command starts without the daemon
    from tailer.settings import load_settings  # noqa: PLC0415

    try:
        settings = load_settings()
    except SettingsError as error:
        # Whatever collects the log sees why there is none; the form of its lines is not known yet.
        log = LogWriter(sys.stdout, LogFormat.AUTO, LogLevel.INFO)
        log.write(
            LogLevel.ERROR,
            "daemon_failed",
            operation=error.operation,
            subject=error.subject,
            hint=error.hint,
            exit_code=error.exit_code,
        )
        raise
    return run_daemon(settings)


COMMAND = Command("run", "tail LibreChat's database until SIGTERM or Ctrl-C", _execute)
