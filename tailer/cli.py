"""The command line: which commands exist, how an error is shown, and the exit code.

It is thin on purpose: every command is a module of `tailer.commands` and delegates to the code that does the work.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from tailer import __version__
from tailer.commands import (
    backfill,
    check_config,
    checkpoint,
    completion,
    dead_letters,
    demo,
    doctor,
    healthcheck,
    metrics,
    reconcile,
    run,
)
from tailer.commands.command import Command
from tailer.commands.terminal import describe_error
from tailer.errors import TailerError

EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
_COMMANDS: Final[Sequence[Command]] = (
    run.COMMAND,
    demo.COMMAND,
    check_config.COMMAND,
    doctor.COMMAND,
    backfill.COMMAND,
    checkpoint.COMMAND,
    dead_letters.COMMAND,
    reconcile.COMMAND,
    healthcheck.COMMAND,
    metrics.COMMAND,
    completion.make_command(lambda: _build_parser()),  # noqa: PLW0108 - it is defined below
)

_EXIT_CODES: Final = """\
exit codes:
    0  done; healthcheck: ready
    1  healthcheck: not ready; checkpoint, dead-letters: refused, or not agreed to;
       dead-letters replay: some were not sent;
       backfill: stopped before its end;
       reconcile: some turns are missing or doubled;
       doctor: something does not work
    2  a setting or the command line is wrong
    3  MongoDB cannot be tailed as it is configured
    4  Langfuse, or the trace file, refuses
    5  the state database cannot be used
   70  a part of the daemon ended that must not end
  130  interrupted by Ctrl-C or a second signal
  141  what reads the output has gone

Settings come from the environment and from .env in the working directory:
`tailer check-config` lists all of them."""


def execute(arguments: Sequence[str]) -> int:
    """Run one command line, without the name of the program; returns the exit code.

    Raises SystemExit where argparse does: after `--help` and `--version`, and for a wrong command line.
    """
    options = _build_parser().parse_args(arguments)
    try:
        code: int = options.execute(options)
        sys.stdout.flush()
    except TailerError as error:
        print(describe_error(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes once more when it exits, and would complain about the same pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return code


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tailer",
        description="Tails LibreChat's MongoDB and sends every turn to Langfuse as a trace.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tailer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in _COMMANDS:
        added = commands.add_parser(command.name, help=command.summary, allow_abbrev=False)
        command.add_options(added)
        added.set_defaults(execute=command.execute)
    return parser
