"""The log: one line per event, as JSON for programs, or aligned and, on a terminal, coloured for people.

Owns the processors and the two renderers of a line, and the route that the loggers of libraries take. structlog runs
them and writes the line. Refuses to decide what is logged, and to print what a library formats into its messages,
because that can hold content.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TextIO, TypeAlias, assert_never

import structlog
from structlog.dev import Column, ConsoleRenderer
from structlog.processors import JSONRenderer

from tailer.printable import (
    escape_unprintable,
    is_coloured,
    make_printable,
    make_text_printable,
    redact,
    timestamp,
)

_LIBRARIES: Final = ("motor", "pymongo", "httpx", "langfuse", "opentelemetry", "uvicorn", "asyncio")
_QUOTED_CHARACTERS: Final = frozenset(' "=\\')
_RESERVED: Final = frozenset({"time", "level", "event", "stack", "exception", "exc_info"})
"""Names that a line or structlog's renderer for terminals uses itself."""

_Line: TypeAlias = MutableMapping[str, Any]
_Processor: TypeAlias = Callable[[Any, str, _Line], _Line]
_Renderer: TypeAlias = Callable[[Any, str, _Line], str | bytes]


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


_NUMBERS: Final = {level: logging.getLevelNamesMapping()[level.name] for level in LogLevel}
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
        match log_format:
            case LogFormat.JSON:
                is_json = True
            case LogFormat.TEXT:
                is_json = False
            case LogFormat.AUTO:
                is_json = not stream.isatty()
            case _:
                assert_never(log_format)
        render = _render_json if is_json else _make_text_renderer(coloured=is_coloured(stream))
        self._logger = structlog.wrap_logger(
            # It writes and flushes a line under a lock of the stream: threads of the drivers log too.
            structlog.WriteLogger(stream),
            processors=[
                _make_fields_printable,
                _make_stamp(clock, timestamp if is_json else _text_time),
                render,
                _make_encodable(stream.encoding or "utf-8"),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level.value),
        ).bind()

    def shows(self, level: LogLevel) -> bool:
        """Whether lines of this level are written. A line that is not written need not be assembled."""
        return bool(self._logger.is_enabled_for(_NUMBERS[level]))

    def write(self, level: LogLevel, event: str, **fields: object) -> None:
        """Write one line, unless `level` is below the writer's.

        Values are made printable. A field whose name the line uses itself, such as `time`, is written as `time_`.
        """
        self._logger.log(_NUMBERS[level], event, fields=fields)


def _make_fields_printable(_logger: object, _method: str, line: _Line) -> _Line:
    """The event and its fields, redacted and bounded."""
    return {
        "event": make_text_printable(line["event"]),
        **{
            f"{name}_" if name in _RESERVED else escape_unprintable(name): make_printable(value)
            for name, value in line["fields"].items()
        },
    }


def _make_stamp(clock: Callable[[], datetime], form: Callable[[datetime], str]) -> _Processor:
    """Puts the time and the level before the event."""

    def stamp(_logger: object, method: str, line: _Line) -> _Line:
        return {"time": form(clock().astimezone(UTC)), "level": method, **line}

    return stamp


def _text_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"


# ASCII leaves no control, direction or separator character and no lone surrogate.
_render_json: Final[_Renderer] = JSONRenderer(
    json.dumps, ensure_ascii=True, allow_nan=False, separators=(",", ":")
)


def _make_text_renderer(*, coloured: bool) -> _Renderer:
    def paint(colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if coloured else text

    return ConsoleRenderer(
        columns=[
            Column("time", lambda _, time: paint("2", str(time))),
            Column(
                "level", lambda _, level: paint(_COLOURS[LogLevel(str(level))], f"{str(level).upper():<7}")
            ),
            Column("event", lambda _, event: paint("1", f"{escape_unprintable(str(event)):<28}")),
            Column("", lambda name, value: f"{paint('36', name)}={_text_value(value)}"),
        ],
        sort_keys=False,
    )


def _make_encodable(encoding: str) -> Callable[[Any, str, Any], str]:
    """A line that the stream can encode, so that no write fails on a character."""

    def encode(_logger: object, _method: str, line: Any) -> str:
        return str(line).encode(encoding, "backslashreplace").decode(encoding)

    return encode


def _text_value(value: object) -> str:
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
