"""The command line: which command, its options, how an error is told, and the exit code.

Thin on purpose: every command hands over to the module that does the work. Those are imported by the command that
needs them, so that `--version` and `healthcheck` start quickly and the daemon never loads the demo.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tailer import __version__
from tailer.errors import SettingsError, TailerError
from tailer.logs import escape_unprintable, is_coloured

EXIT_NOT_READY: Final = 1
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
_HEALTH_TIMEOUT_SECONDS: Final = 2.0
_HEALTH_BODY_BYTES: Final = 4_096
_HTTP_OK: Final = 200
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - replaced, not bound

_EXIT_CODES: Final = """\
exit codes:
    0  done; healthcheck: ready
    1  healthcheck: not ready
    2  a setting or the command line is wrong
    3  MongoDB cannot be tailed as it is configured
    4  Langfuse, or the trace file, refuses
    5  the state database cannot be used, or another instance took over
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
        code = _run_command(options)
        sys.stdout.flush()
    except TailerError as error:
        print(describe_error(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and would complain about the same pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return code


def describe_error(error: TailerError) -> str:
    """What failed and the remedy, for a person: no traceback, further lines of the remedy below the first."""
    first, *others = error.hint.splitlines() or [""]
    lines = [f"tailer: {error.operation} failed: {error.subject}", f"  remedy: {first}"]
    return "\n".join([*lines, *(f"          {line}" for line in others)])


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
    commands.add_parser("run", help="tail LibreChat's database until SIGTERM or Ctrl-C", allow_abbrev=False)
    demo = commands.add_parser(
        "demo", help="play recorded traffic into a replica set of its own and trace it", allow_abbrev=False
    )
    demo.add_argument("--keep", action="store_true", help="go on until Ctrl-C")
    demo.add_argument("--file", type=Path, metavar="PATH", help="where the trace file goes")
    demo.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="FACTOR",
        help="how much faster than recorded (default: 1)",
    )
    check = commands.add_parser(
        "check-config", help="show every setting: value, unit, source, default", allow_abbrev=False
    )
    check.add_argument("--json", action="store_true", help="for programs, with the reason for each default")
    health = commands.add_parser(
        "healthcheck", help="ask the running daemon whether it is ready", allow_abbrev=False
    )
    health.add_argument(
        "--url", type=_health_url, help="what to ask (default: /readyz on TAILER_HTTP_PORT of this machine)"
    )
    return parser


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError("a speed is a number above 0")
    return speed


def _health_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise argparse.ArgumentTypeError("give a URL such as http://127.0.0.1:9464/readyz")
    return text


def _run_command(options: argparse.Namespace) -> int:
    match options.command:
        case "run":
            return _run()
        case "demo":
            return _demo(keep=options.keep, file=options.file, speed=options.speed)
        case "check-config":
            return _check_config(as_json=options.json)
        case _:
            return _check_health(options.url)


def _run() -> int:
    from tailer.app import run_daemon  # noqa: PLC0415 - see the module's docstring
    from tailer.settings import load_settings  # noqa: PLC0415

    return run_daemon(load_settings())


def _demo(*, keep: bool, file: Path | None, speed: float) -> int:
    from tailer.demo.show import run_demo  # noqa: PLC0415 - the daemon never loads the demo

    return run_demo(keep=keep, file=file, speed=speed)


def _check_config(*, as_json: bool) -> int:
    from tailer.settings import describe_settings, load_settings  # noqa: PLC0415 - see the module's docstring
    from tailer.settings.table import format_table  # noqa: PLC0415

    settings = load_settings()
    rows = describe_settings(settings)
    if as_json:
        document = {"settings": [dataclasses.asdict(row) for row in rows], "warnings": settings.warnings}
        print(json.dumps(document, indent=2))
        return 0
    print(format_table(rows, embolden=lambda heading: _paint("1", heading)))
    if settings.warnings:
        print()
    for warning in settings.warnings:
        print(f"{_paint('33', 'warning')}: {warning}")
    return 0


def _paint(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if is_coloured(sys.stdout) else text


def _check_health(url: str | None) -> int:
    try:
        state = _ask_health(url if url is not None else _default_health_url())
    except TailerError as error:
        # Docker reserves every code but 0 and 1.
        print(describe_error(error), file=sys.stderr)
        return EXIT_NOT_READY
    except (OSError, HTTPException) as error:
        print(f"not ready: no answer ({type(error).__name__})")
        return EXIT_NOT_READY
    is_ready, line = state
    print(line)
    return 0 if is_ready else EXIT_NOT_READY


def _default_health_url() -> str:
    from tailer.settings import load_settings  # noqa: PLC0415 - see the module's docstring

    settings = load_settings()
    if settings.http_port == 0:
        raise SettingsError(
            operation="asking the daemon",
            subject="TAILER_HTTP_PORT=0",
            hint="the port was chosen by the system: give its address with --url",
        )
    host = _EVERY_ADDRESS.get(settings.http_host, settings.http_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}/readyz"


def _ask_health(url: str) -> tuple[bool, str]:
    """Whether the daemon is ready, and its state in one line."""
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=_HEALTH_TIMEOUT_SECONDS)
    try:
        path = parts.path or "/readyz"
        connection.request("GET", f"{path}?{parts.query}" if parts.query else path)
        response = connection.getresponse()
        return response.status == _HTTP_OK, _describe_state(response)
    finally:
        connection.close()


def _describe_state(response: HTTPResponse) -> str:
    body = response.read(_HEALTH_BODY_BYTES).decode("utf-8", "replace")
    try:
        answer: Any = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"status": body.strip().partition("\n")[0] or f"HTTP {response.status}"}
    words = [str(answer[name]) for name in ("status", "state", "problems", "gaps") if answer.get(name)]
    return escape_unprintable(": ".join(words) or f"HTTP {response.status}")
