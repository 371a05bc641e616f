"""The log: one line an event, for machines as JSON, for people aligned and, on a terminal, coloured.

Owns the two forms of a line, what makes a value safe to print, and the route that the loggers of libraries
take. Refuses to decide what is logged, and to print what a library formats into its messages: that can hold
content.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from math import isfinite
from threading import Lock
from typing import Final, TextIO, TypeAlias, assert_never

_LONGEST_VALUE: Final = 2_000
# A credential that begins in what is shown may end beyond it: redaction sees more than the line does.
_REDACTED_WINDOW: Final = 4 * _LONGEST_VALUE
_MOST_ITEMS: Final = 100
_DEEPEST_NESTING: Final = 4
_WIDEST_INTEGER_BITS: Final = 256
_LIBRARIES: Final = ("motor", "pymongo", "httpx", "langfuse", "opentelemetry", "aiohttp", "asyncio")
_QUOTED_SIGNS: Final = frozenset(' "=\\')
_RESERVED: Final = ("time", "level", "event")
_WITHHELD: Final = "***"
_ASSIGNS: Final = r"[\"']?\s{0,4}[:=]\s{0,4}[\"']?"

_REDACTIONS: Final = (
    # Greedy up to the last at sign: nobody escapes every character that a password should have escaped.
    (re.compile(r"://[^\s\"'<>]{0,1024}@"), f"://{_WITHHELD}@"),
    (re.compile(rf"(?i)(authorization{_ASSIGNS})(?:[a-z]+\s+)?[^\s\"',;]+"), rf"\1{_WITHHELD}"),
    (re.compile(r"(?i)\b(basic|bearer)\s+[a-z0-9+/=._~-]{16,}"), rf"\1 {_WITHHELD}"),
    (re.compile(r"\b([ps]k-lf-)[A-Za-z0-9_-]+"), rf"\1{_WITHHELD}"),
    (re.compile(r"\b(sk-)(?!lf-)[A-Za-z0-9_-]{16,}"), rf"\1{_WITHHELD}"),
    (re.compile(rf"(?i)((?:password|secret|token|api_?key){_ASSIGNS})[^\s\"'&,;]+"), rf"\1{_WITHHELD}"),
)

Scalar: TypeAlias = str | int | float | bool | None
Printable: TypeAlias = "Scalar | list[Printable] | dict[str, Printable]"
_Fields: TypeAlias = Mapping[str, Printable]


class LogLevel(StrEnum):
    """How much a line matters. ERROR: data is lost or a human is needed; WARNING: it healed by itself."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The form of a line; AUTO is TEXT on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


_RANKS: Final = {level: rank for rank, level in enumerate(LogLevel)}
_COLOURS: Final = {LogLevel.DEBUG: "2", LogLevel.INFO: "32", LogLevel.WARNING: "33", LogLevel.ERROR: "1;31"}


def redact(text: str) -> str:
    """The text without the credentials of URLs, Langfuse and `sk-` keys, Authorization values, passwords."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def is_coloured(stream: TextIO) -> bool:
    """Whether colours are for this stream: it is a terminal, and `NO_COLOR` is unset or empty."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def escape_unprintable(text: str) -> str:
    """The text on one line: control, direction and line separator characters, lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _now() -> datetime:
    return datetime.now(UTC)


class LogWriter:
    """Writes lines at or above one level to one stream; safe to call from any thread."""

    def __init__(
        self,
        stream: TextIO,
        log_format: LogFormat,
        level: LogLevel,
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._stream = stream
        self._rank = _RANKS[level]
        self._clock = clock
        self._lock = Lock()
        self._coloured = is_coloured(stream)
        match log_format:
            case LogFormat.JSON:
                self._is_json = True
            case LogFormat.TEXT:
                self._is_json = False
            case LogFormat.AUTO:
                self._is_json = not stream.isatty()
            case _:
                assert_never(log_format)

    def write(self, level: LogLevel, event: str, **fields: object) -> None:
        """Write one line, unless `level` is below the writer's.

        Values: durations become seconds, times ISO 8601 in UTC, exceptions the name of their class (their
        message can hold content), other objects their text. A field called `time` is written as `time_`.
        """
        if _RANKS[level] < self._rank:
            return
        moment = self._clock().astimezone(UTC)
        printable = {
            f"{name}_" if name in _RESERVED else escape_unprintable(name): make_printable(value)
            for name, value in fields.items()
        }
        event = _printable_text(event)
        make_line = _json_line if self._is_json else self._text_line
        line = make_line(moment, level, event, printable)
        encoding = self._stream.encoding or "utf-8"
        # One write a line, and none that can fail on a character: threads of the drivers log too.
        safe = line.encode(encoding, "backslashreplace").decode(encoding)
        with self._lock:
            self._stream.write(f"{safe}\n")
            self._stream.flush()

    def _text_line(self, moment: datetime, level: LogLevel, event: str, fields: _Fields) -> str:
        time = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
        pieces = [
            self._paint("2", time),
            self._paint(_COLOURS[level], f"{level.value.upper():<7}"),
            self._paint("1", f"{escape_unprintable(event):<28}"),
        ]
        pieces += (f"{self._paint('36', name)}={_text_value(value)}" for name, value in fields.items())
        return " ".join(pieces).rstrip()

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text


def _json_line(moment: datetime, level: LogLevel, event: str, fields: _Fields) -> str:
    line = {"time": _timestamp(moment), "level": level.value, "event": event, **fields}
    # ASCII, so that no control, direction or separator character and no lone surrogate is left.
    return json.dumps(line, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _text_value(value: Printable) -> str:
    if isinstance(value, str) and value.isprintable() and value and not set(value) & _QUOTED_SIGNS:
        return value
    return escape_unprintable(json.dumps(value, ensure_ascii=False))


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shorten(text: str, left_out: int = 0) -> str:
    left_out += max(0, len(text) - _LONGEST_VALUE)
    return f"{text[:_LONGEST_VALUE]}… [cut: {left_out} characters left out]" if left_out else text


def _printable_text(text: str) -> str:
    return _shorten(redact(text[:_REDACTED_WINDOW]), max(0, len(text) - _REDACTED_WINDOW))


def make_printable(value: object) -> Printable:
    """A value as a line may hold it: redacted, at most 2,000 characters, of types that JSON knows."""
    if not isinstance(value, Mapping | list | tuple | AbstractSet):
        return _printable_scalar(value)
    printable = _printable_items(value, _DEEPEST_NESTING)
    text = json.dumps(printable, ensure_ascii=False)
    return _shorten(text) if len(text) > _LONGEST_VALUE else printable


def _printable_items(value: object, depth: int) -> Printable:
    match value:
        case Mapping() | list() | tuple() | AbstractSet() if depth == 0:
            return f"[{type(value).__name__}]"
        case Mapping():
            pairs = islice(value.items(), _MOST_ITEMS)
            return {_printable_text(str(key)): _printable_items(item, depth - 1) for key, item in pairs}
        case list() | tuple() | AbstractSet():
            return [_printable_items(item, depth - 1) for item in islice(value, _MOST_ITEMS)]
        case _:
            return _printable_scalar(value)


def _printable_scalar(value: object) -> Printable:
    printable: Printable
    match value:
        case None | bool():
            printable = value
        case int() if value.bit_length() > _WIDEST_INTEGER_BITS:
            printable = f"[an integer of {value.bit_length()} bits]"
        case float() if not isfinite(value):
            printable = str(value)
        case int() | float():
            printable = value
        case timedelta():
            printable = value.total_seconds()
        case datetime():
            printable = _timestamp(value)
        case BaseException():
            printable = type(value).__name__
        case _:
            printable = _printable_text(str(value))
    return printable


class _LibraryRoute(logging.Handler):
    """Turns a record of a library's logger into a line: where, and what without its arguments."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__(logging.WARNING)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; an exception is named by its class, because its message can hold content."""
        level = LogLevel.ERROR if record.levelno >= logging.ERROR else LogLevel.WARNING
        fields: dict[str, object] = {
            "logger": record.name,
            "message": library_message(record),
            "where": f"{record.filename}:{record.lineno}",
        }
        if record.exc_info is not None and record.exc_info[1] is not None:
            fields["error"] = record.exc_info[1]
        self._writer.write(level, "library_message", **fields)


def library_message(record: logging.LogRecord) -> str:
    """The first line of a record's template, with the numbers put in and every other argument as its type.

    Lines after the first are left out as well: asyncio puts the exception, with its message, into them.
    """
    message = str(record.msg)
    try:
        if isinstance(record.args, Mapping):
            message %= {name: _harmless(value) for name, value in record.args.items()}
        elif record.args:
            message %= tuple(_harmless(value) for value in record.args)
    except (TypeError, ValueError, KeyError):
        message = str(record.msg)
    return redact(message.strip().partition("\n")[0])


def _harmless(value: object) -> object:
    return value if isinstance(value, int | float) or value is None else f"<{type(value).__name__}>"


@contextmanager
def route_library_logs(writer: LogWriter) -> Iterator[None]:
    """Let the loggers of all libraries write through `writer`, WARNING and above, until the block ends.

    Handlers that a library gave its own logger are set aside: they would print arguments.
    """
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in _LIBRARIES)]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers = []
        logger.setLevel(logging.WARNING)
        logger.propagate = True
    root.addHandler(_LibraryRoute(writer))
    try:
        yield
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers = handlers
            logger.setLevel(level)
            logger.propagate = propagate
