"""The log: one line per event, as JSON for programs, or aligned and, on a terminal, coloured for people.

Owns the two forms of a line and the route that the loggers of libraries take. Refuses to decide what is logged, and to
print what a library formats into its messages, because that can hold content.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from threading import Lock
from typing import Final, TextIO, TypeAlias, assert_never

from tailer.printable import (
    Printable,
    escape_unprintable,
    is_coloured,
    make_printable,
    make_text_printable,
    redact,
    timestamp,
)

_LIBRARIES: Final = ("motor", "pymongo", "httpx", "langfuse", "opentelemetry", "aiohttp", "asyncio")
_QUOTED_CHARACTERS: Final = frozenset(' "=\\')
_RESERVED: Final = ("time", "level", "event")

_Fields: TypeAlias = Mapping[str, Printable]


class LogLevel(StrEnum):
    """How much a line matters. ERROR: data is lost or a human is needed. WARNING: it healed by itself."""

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

    def shows(self, level: LogLevel) -> bool:
        """Whether lines of this level are written. A line that is not written need not be assembled."""
        return _RANKS[level] >= self._rank

    def write(self, level: LogLevel, event: str, **fields: object) -> None:
        """Write one line, unless `level` is below the writer's.

        Values are made printable. A field called `time` is written as `time_`.
        """
        if not self.shows(level):
            return
        moment = self._clock().astimezone(UTC)
        printable = {
            f"{name}_" if name in _RESERVED else escape_unprintable(name): make_printable(value)
            for name, value in fields.items()
        }
        event = make_text_printable(event)
        make_line = _json_line if self._is_json else self._text_line
        line = make_line(moment, level, event, printable)
        encoding = self._stream.encoding or "utf-8"
        # One write per line, and none that can fail on a character: threads of the drivers log too.
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
    line = {"time": timestamp(moment), "level": level.value, "event": event, **fields}
    # ASCII leaves no control, direction or separator character and no lone surrogate.
    return json.dumps(line, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _text_value(value: Printable) -> str:
    if isinstance(value, str) and value.isprintable() and value and not set(value) & _QUOTED_CHARACTERS:
        return value
    return escape_unprintable(json.dumps(value, ensure_ascii=False))


class _LibraryRoute(logging.Handler):
    """Turns a record of a library's logger into a line: where it was logged, and the message without its arguments."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__(logging.WARNING)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record. An exception appears by its class only, because its message can hold content."""
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
    """The first line of a record's template, with numbers filled in and every other argument as its type.

    Further lines are left out too, because asyncio puts the exception, with its message, into them.
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
    """Let the loggers of all libraries write through `writer`, from WARNING, until the block ends.

    Handlers that a library gave its own logger are set aside, because they would print arguments.
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
