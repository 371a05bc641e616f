"""`tailer healthcheck`: asks the running daemon whether it is ready; for probes and for people."""

import argparse
import json
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

from tailer.commands.command import Command
from tailer.commands.terminal import describe_error
from tailer.errors import SettingsError, TailerError
from tailer.printable import escape_unprintable
from tailer.web.listening import join_address, local_addresses

EXIT_NOT_READY: Final = 1
_HEALTH_TIMEOUT_SECONDS: Final = 2.0
_HEALTH_BODY_BYTES: Final = 4_096
_HTTP_OK: Final = 200


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        type=_health_url,
        help="what to ask (default: /readyz on TAILER_HTTP_PORT of TAILER_HTTP_HOST)",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def _health_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise argparse.ArgumentTypeError("give a URL such as http://127.0.0.1:9464/readyz")
    return text


def _execute(options: argparse.Namespace) -> int:
    url: str | None = options.url
    try:
        state = _ask_first([url] if url is not None else _default_health_urls())
    except TailerError as error:
        # Docker reserves every code but 0 and 1.
        print(describe_error(error), file=sys.stderr)
        return EXIT_NOT_READY
    except (OSError, HTTPException, UnicodeError) as error:
        # A host name with an empty part is refused with a UnicodeError.
        state = False, f"not ready: no answer ({type(error).__name__})"
    is_ready, line = state
    print(json.dumps({"ready": is_ready, "says": line}) if options.json else line)
    return 0 if is_ready else EXIT_NOT_READY


def _default_health_urls() -> Sequence[str]:
    from tailer.settings import load_settings  # noqa: PLC0415 - see the module's docstring

    settings = load_settings()
    if settings.http_port == 0:
        raise SettingsError(
            operation="asking the daemon",
            subject="TAILER_HTTP_PORT=0",
            hint="the port was chosen by the system: give its address with --url",
        )
    hosts = local_addresses(settings.http_host)
    return [f"http://{join_address(host, settings.http_port)}/readyz" for host in hosts]


def _ask_first(urls: Sequence[str]) -> tuple[bool, str]:
    """The answer of the first URL at which anything listens; raises OSError if there is none."""
    *others, last = urls
    for url in others:
        try:
            return _ask_health(url)
        except TimeoutError:
            raise
        except OSError:
            # Nothing listens there, or this machine has no such address.
            continue
    return _ask_health(last)


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


COMMAND = Command("healthcheck", "ask the running daemon whether it is ready", _execute, _add_options)
