"""Log lines: their two forms, what is kept out of them, and the route of the libraries."""

import io
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from tailer.logs import LogFormat, LogLevel, LogWriter, route_library_logs
from tailer.printable import Printable, make_printable, redact

NOON = datetime(2025, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Yielding(io.StringIO):
    """A stream that lets other threads run after every few characters."""

    def write(self, text: str) -> int:
        for start in range(0, len(text), 50):
            super().write(text[start : start + 50])
            time.sleep(0)
        return len(text)


class Ascii(io.TextIOWrapper):
    """A stream of a machine without a locale."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")


def writer(
    stream: io.TextIOBase, form: LogFormat = LogFormat.JSON, level: LogLevel = LogLevel.DEBUG
) -> LogWriter:
    return LogWriter(stream, form, level, clock=lambda: NOON)  # type: ignore[arg-type]


def write_json(**fields: object) -> dict[str, Printable]:
    stream = io.StringIO()
    writer(stream).write(LogLevel.INFO, "event", **fields)
    line: dict[str, Printable] = json.loads(stream.getvalue())
    return line


def write_text(**fields: object) -> str:
    stream = io.StringIO()
    writer(stream, LogFormat.TEXT).write(LogLevel.INFO, "event", **fields)
    return stream.getvalue()


def test_a_json_line_begins_with_time_level_and_event() -> None:
    """Time is ISO 8601 in UTC with milliseconds; fields follow in the order given."""
    stream = io.StringIO()

    writer(stream).write(LogLevel.WARNING, "stream_failed", stream="messages", tries=3)

    assert (
        stream.getvalue()
        == '{"time":"2025-03-01T12:00:00.123Z","level":"warning","event":"stream_failed","stream":"messages","tries":3}\n'
    )


def test_a_text_line_is_aligned() -> None:
    """Fields of different lines begin in one column."""
    stream = io.StringIO()
    log = writer(stream, LogFormat.TEXT)

    log.write(LogLevel.INFO, "started", port=1)
    log.write(LogLevel.WARNING, "stream_failed", port=2)

    first, second = stream.getvalue().splitlines()
    assert first.startswith("2025-03-01 12:00:00.123 INFO    started")
    assert first.index("port=1") == second.index("port=2")


@pytest.mark.parametrize("level", list(LogLevel))
def test_a_line_below_the_level_is_not_written(level: LogLevel) -> None:
    """The level of the writer is the least that is written."""
    stream = io.StringIO()
    log = writer(stream, level=level)

    for each in LogLevel:
        log.write(each, each.value)

    written = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert [each.value for each in list(LogLevel)[list(LogLevel).index(level) :]] == written


@pytest.mark.parametrize(("stream", "is_text"), [(Terminal(), True), (io.StringIO(), False)])
def test_auto_is_text_on_a_terminal_and_json_elsewhere(stream: io.StringIO, *, is_text: bool) -> None:
    """People read the one, programs the other."""
    writer(stream, LogFormat.AUTO).write(LogLevel.INFO, "started")

    assert is_text is not stream.getvalue().startswith("{")


def test_only_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours would be noise in a file."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()

    writer(terminal, LogFormat.TEXT).write(LogLevel.ERROR, "failed", port=1)

    assert "\x1b[1;31mERROR" in terminal.getvalue()
    assert "\x1b" not in write_text(port=1)


def test_no_color_is_honoured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR with any text switches colours off."""
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()

    writer(terminal, LogFormat.TEXT).write(LogLevel.ERROR, "failed", port=1)

    assert "\x1b" not in terminal.getvalue()


@given(st.text(), st.text())
@example("\x7f", "\x7f\x9b\u2028\u202e\ud800")
def test_any_text_gives_one_json_line_that_reads_back(event: str, value: str) -> None:
    """Whatever a hostile user wrote: one line, printable ASCII, valid JSON."""
    stream = io.StringIO()

    writer(stream).write(LogLevel.INFO, event, value=value)

    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    assert {"time", "level", "event", "value"} == json.loads(line).keys()


@given(st.text(), st.text())
def test_any_text_gives_one_printable_text_line(event: str, value: str) -> None:
    """No escape sequence, no change of direction and no second line reaches a terminal."""
    stream = io.StringIO()

    writer(stream, LogFormat.TEXT).write(LogLevel.INFO, event, value=[value])

    assert stream.getvalue()[:-1].isprintable()


def test_a_text_value_cannot_pretend_to_be_another_field() -> None:
    """A value with a space, a quote or an equals sign is quoted."""
    assert write_text(name='a b="c').rstrip().endswith(r'name="a b=\"c"')


def test_a_field_cannot_replace_the_time_of_the_line() -> None:
    """Such a field gets an underscore."""
    line = write_json(time="never")

    assert (line["time"], line["time_"]) == ("2025-03-01T12:00:00.123Z", "never")


@pytest.mark.parametrize("name", ["stack", "exception", "exc_info"])
@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.TEXT])
def test_a_field_named_like_a_traceback_stays_a_field_on_its_line(name: str, form: LogFormat) -> None:
    """structlog would print such a field below the line; here it gets an underscore."""
    stream = io.StringIO()

    writer(stream, form).write(LogLevel.ERROR, "event", **{name: "text"})

    (line,) = stream.getvalue().splitlines()
    assert f"{name}_" in line


def test_a_long_value_is_cut_and_says_so() -> None:
    """2,000 characters of a value are written."""
    assert write_json(value="x" * 2_500)["value"] == "x" * 2_000 + "… [cut: 500 characters left out]"
    assert write_json(value="x" * 100_000)["value"] == "x" * 2_000 + "… [cut: 98000 characters left out]"
    assert write_json(value="x" * 2_000)["value"] == "x" * 2_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (timedelta(milliseconds=1_500), 1.5),
        (NOON, "2025-03-01T12:00:00.123Z"),
        (LogLevel.ERROR, "error"),
        (ValueError("what a user wrote"), "ValueError"),
        (SecretStr("hidden"), "**********"),
        (Path("a/b"), "a/b"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        pytest.param(10**5_000, "[an integer of 16610 bits]", id="wide integer"),
        ({"a": (1, None, True)}, {"a": [1, None, True]}),
        ([[[[["deep"]]]]], [[[["[list]"]]]]),
        (list(range(1_000)), list(range(100))),
    ],
)
def test_values_become_what_json_knows(value: object, expected: Printable) -> None:
    """Durations are seconds, errors only their class, what JSON lacks is text, and size and depth have limits."""
    assert expected == make_printable(value)
    assert expected == write_json(value=value)["value"]


def test_many_long_items_are_cut_like_one_long_value() -> None:
    """The limit is for the whole value, not for each item."""
    value = write_json(value=["y" * 1_000] * 50)["value"]

    assert isinstance(value, str)
    assert len(value) < 2_100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mongodb://user:p@ss@host/db refused", "mongodb://***@host/db refused"),
        ("at https://user:word@host/x?y=1", "at https://***@host/x?y=1"),
        ("key sk-lf-1234-abcd and pk-lf-9", "key sk-lf-*** and pk-lf-***"),
        ("key sk-proj-abcdefghijklmnop", "key sk-***"),
        ("Authorization: Basic cGs6c2s=", "Authorization: ***"),
        ('{"authorization": "Bearer abc"}', '{"authorization": "***"}'),
        ("sent Bearer abcdefghijklmnopqrst", "sent Bearer ***"),
        ("?password=hunter2&x=1", "?password=***&x=1"),
        ("connection to host:27017 closed", "connection to host:27017 closed"),
        ("see https://langfuse.com/docs", "see https://langfuse.com/docs"),
    ],
)
def test_credentials_are_redacted(text: str, expected: str) -> None:
    """User and password of URLs, keys and Authorization values go; redacting twice changes nothing."""
    assert expected == redact(text)
    assert expected == redact(expected)
    assert expected == write_json(value=text)["value"]


@given(st.integers(0, 2_100))
def test_a_credential_across_the_cut_is_redacted(position: int) -> None:
    """Redaction looks further than the line does: half a password is never shown."""
    text = "x" * position + " mongodb://user:hunter2hunter2@host/db " + "y" * 3_000

    assert "hunter2" not in str(make_printable(text))


def test_a_stream_without_unicode_gets_escapes() -> None:
    """A log line never fails on a character that the terminal cannot show."""
    stream = Ascii()

    writer(stream, LogFormat.TEXT).write(LogLevel.INFO, "event", value="é")

    stream.seek(0)
    assert stream.read().rstrip().endswith(r"value=\xe9")


def write_many(log: LogWriter) -> None:
    for _ in range(50):
        log.write(LogLevel.INFO, "e", v="x" * 500)


def test_lines_of_several_threads_do_not_mix() -> None:
    """Every line is whole."""
    stream = Yielding()
    log = writer(stream)
    threads = [threading.Thread(target=lambda: write_many(log)) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [json.loads(line)["v"] for line in stream.getvalue().splitlines()] == ["x" * 500] * 200


def through_library(say: Callable[[], None]) -> list[dict[str, Printable]]:
    stream = io.StringIO()
    with route_library_logs(writer(stream)):
        say()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_library_warning_becomes_a_line_without_its_texts() -> None:
    """Numbers of the message stay, every other argument is replaced by its type."""
    lines = through_library(
        lambda: logging.getLogger("pymongo.pool").warning("%s tried %d times", "private", 3)
    )

    assert [(line["level"], line["logger"], line["message"]) for line in lines] == [
        ("warning", "pymongo.pool", "<str> tried 3 times")
    ]
    assert str(lines[0]["where"]).startswith("test_logs.py:")


def test_named_arguments_of_a_library_are_withheld_too() -> None:
    """A mapping as argument is treated item by item."""
    lines = through_library(lambda: logging.getLogger("httpx").error("%(what)s", {"what": "private"}))

    assert [(line["level"], line["message"]) for line in lines] == [("error", "<str>")]


def test_a_template_that_takes_no_text_stays_a_template() -> None:
    """`%c` takes no type name: then the message is given as it was written in the source."""
    lines = through_library(lambda: logging.getLogger("uvicorn.error").error("sign %c", "s"))

    assert [line["message"] for line in lines] == ["sign %c"]


@pytest.mark.parametrize(
    "name", ["motor", "pymongo", "httpx", "langfuse", "uvicorn.error", "asyncio", "another"]
)
def test_what_a_library_says_below_warning_is_left_out(name: str) -> None:
    """Also after the library has set its own logger to debug."""

    def say() -> None:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).info("private")
        logging.getLogger(name).warning("shown")

    assert [line["message"] for line in through_library(say)] == ["shown"]
    logging.getLogger("another").setLevel(logging.NOTSET)


def test_handlers_of_a_library_are_set_aside() -> None:
    """They would print the arguments of a message beside our line."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    library = logging.getLogger("langfuse")
    library.addHandler(handler)
    try:
        assert len(through_library(lambda: library.warning("%s", "private"))) == 1
    finally:
        library.removeHandler(handler)

    assert stream.getvalue() == ""


def test_an_exception_of_a_library_is_named_by_its_class() -> None:
    """Its message can hold content, and so can the lines that asyncio puts after the first."""

    def say() -> None:
        error = ValueError("private")
        message = f"Task exception was never retrieved\nfuture: {error!r}"
        logging.getLogger("asyncio").error(message, exc_info=error)

    (line,) = through_library(say)
    assert (line["message"], line["error"]) == ("Task exception was never retrieved", "ValueError")
    assert "private" not in json.dumps(line)


def test_a_formatted_message_of_a_library_is_redacted() -> None:
    """Where there are no arguments to withhold, credentials are still cut out."""
    lines = through_library(lambda: logging.getLogger("langfuse").error("sk-lf-12 at http://a:b@c/"))

    assert [line["message"] for line in lines] == ["sk-lf-*** at http://***@c/"]


def test_loggers_are_as_before_when_the_block_ends() -> None:
    """Handlers, levels and propagation come back."""
    library, root = logging.getLogger("langfuse"), logging.getLogger()
    handler = logging.NullHandler()
    library.addHandler(handler)
    library.propagate = False
    before = root.handlers[:], root.level

    assert [line["message"] for line in through_library(lambda: library.warning("heard"))] == ["heard"]

    assert ([handler], False) == (library.handlers, library.propagate)
    assert before == (root.handlers, root.level)
    library.removeHandler(handler)
    library.propagate = True
