"""The command line: what each command calls, prints and returns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

import tailer
from tailer.cli import execute
from tailer.commands.terminal import describe_error
from tailer.errors import (
    DestinationError,
    SettingsError,
    SoftwareError,
    SourceError,
    StateError,
    TailerError,
)
from tailer.settings import Settings
from tailer.settings.environment import collect_settings

URI = "mongodb://user:hunter2@mongodb:27017/chat"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A process environment with nothing of ours in it, and an empty working directory."""
    for name in list(os.environ):
        if name.startswith(("TAILER_", "LANGFUSE_", "MONGO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@contextmanager
def daemon(status: int, body: str) -> Iterator[int]:
    """A server that answers /readyz, and nothing else, as told; gives its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the base class
            del format, arguments

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    """Put a module in place of the one that a command hands over to."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def run_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(tailer.__file__).parents[1]
    return subprocess.run(
        [sys.executable, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_version_is_told_without_loading_what_it_does_not_need() -> None:
    """Neither pydantic, nor a driver, nor the demo."""
    done = run_process("-X", "importtime", "-m", "tailer", "--version")

    assert (0, f"tailer {tailer.__version__}\n") == (done.returncode, done.stdout)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tailer.cli" in loaded
    assert not {"pydantic", "motor", "langfuse", "uvicorn", "tailer.daemon.daemon", "tailer.demo"} & loaded


def test_the_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes a unit file finds what each code means."""
    with pytest.raises(SystemExit) as raised:
        execute(["--help"])

    shown = capsys.readouterr().out
    assert raised.value.code == 0
    for error in (SettingsError, SourceError, DestinationError, StateError, SoftwareError):
        assert f"\n{error.exit_code:>5}  " in shown
    assert all(f"\n{code:>5}  " in shown for code in (0, 1, 130, 141))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["walk"],
        ["run", "--fast"],
        ["demo", "--speed", "0"],
        ["demo", "--speed", "nan"],
        ["healthcheck", "--url", "x"],
        ["backfill", "--conversation", "a\udcffb"],
    ],
)
def test_a_wrong_command_line_ends_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As a wrong setting does, with the usage."""
    with pytest.raises(SystemExit) as raised:
        execute(arguments)

    assert raised.value.code == 2
    assert "usage: tailer" in capsys.readouterr().err


def test_run_hands_the_settings_to_the_daemon_and_returns_its_code(
    clean_environment: pytest.MonkeyPatch,
) -> None:
    """The command adds nothing of its own."""
    received: list[Settings] = []

    def run_daemon(settings: Settings) -> int:
        received.append(settings)
        return 17

    stand_in(clean_environment, "tailer.daemon.daemon", run_daemon=run_daemon)
    clean_environment.setenv("MONGO_URI", URI)

    assert execute(["run"]) == 17
    assert [settings.mongo_uri.get_secret_value() for settings in received] == [URI]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"keep": False, "file": None, "speed": 1.0}),
        (["--keep", "--file", "a/b", "--speed", "2.5"], {"keep": True, "file": Path("a/b"), "speed": 2.5}),
    ],
)
def test_demo_hands_its_options_over(
    clean_environment: pytest.MonkeyPatch, arguments: list[str], expected: dict[str, object]
) -> None:
    """It needs no settings: it brings its own server."""
    received: list[dict[str, object]] = []

    def run_demo(**options: object) -> int:
        received.append(options)
        return 0

    stand_in(clean_environment, "tailer.demo.show", run_demo=run_demo)

    assert execute(["demo", *arguments]) == 0
    assert [expected] == received


@pytest.mark.parametrize("kind", [SettingsError, SourceError, DestinationError, StateError, SoftwareError])
def test_an_error_is_told_with_its_remedy_and_its_code(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[TailerError]
) -> None:
    """On the error stream, without a traceback."""

    def run_daemon(_settings: Settings) -> int:
        raise kind(operation="opening", subject="the stream", hint="grant find\nand changeStream")

    stand_in(clean_environment, "tailer.daemon.daemon", run_daemon=run_daemon)
    clean_environment.setenv("MONGO_URI", URI)

    assert kind.exit_code == execute(["run"])
    expected = "tailer: opening failed: the stream\n  remedy: grant find\n          and changeStream\n"
    assert ("", expected) == capsys.readouterr()


def test_an_error_without_a_hint_is_told_as_well() -> None:
    """Telling an error never fails itself."""
    assert "remedy: " in describe_error(TailerError(operation="a", subject="b", hint=""))


def test_control_c_ends_with_130(clean_environment: pytest.MonkeyPatch) -> None:
    """As shells expect it, without a traceback."""

    def run_daemon(_settings: Settings) -> int:
        raise KeyboardInterrupt

    stand_in(clean_environment, "tailer.daemon.daemon", run_daemon=run_daemon)
    clean_environment.setenv("MONGO_URI", URI)

    assert execute(["run"]) == 130


def test_check_config_shows_every_setting_and_the_warnings(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In plain text where no terminal reads, and with the password masked."""
    clean_environment.setenv("MONGO_URI", "mongodb://user:hunter2@mongodb")
    clean_environment.setenv("LANGFUSE_HOSTS", "x")

    assert execute(["check-config"]) == 0

    shown = capsys.readouterr().out
    assert "user:****@mongodb" in shown
    assert "hunter2" not in shown
    assert "\x1b" not in shown
    assert shown.count("\nwarning: ") == 2


def test_check_config_gives_programs_json(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same rows, with the explanations, and the warnings."""
    clean_environment.setenv("MONGO_URI", URI)

    assert execute(["check-config", "--json"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert document["warnings"] == []
    (row,) = [row for row in document["settings"] if row["name"] == "TAILER_SETTLE_SECONDS"]
    assert (row["value"], row["unit"], row["source"]) == ("3", "seconds", "default")
    assert row["explanation"]


def test_check_config_shows_each_destination_and_the_routes_in_their_order(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every value with its source, and no secret."""
    file = tmp_path / "destinations.toml"
    file.write_text(
        """
        otherwise = ["default"]
        [destinations.default]
        kind = "langfuse"
        [destinations.collector]
        kind = "otlp"
        traces_endpoint = "https://collector:4318/in?key=hunter2"
        headers = { api-key = "hunter2" }
        content = "none"
        [[routes]]
        when = { tenant = ["a", "b*"], tag = ["x"] }
        to = ["collector", "default"]
        [[routes]]
        when = { user = ["u"] }
        to = []
        """,
        encoding="utf-8",
    )
    given = {
        "MONGO_URI": URI,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-hunter2",
        "LANGFUSE_SECRET_KEY": "sk-lf-hunter2",
        "TAILER_DESTINATIONS": str(file),
    }
    for name, value in given.items():
        clean_environment.setenv(name, value)

    assert execute(["check-config"]) == 0
    people = capsys.readouterr().out
    assert execute(["check-config", "--json"]) == 0
    programs = capsys.readouterr().out

    lines = [" ".join(line.split()) for line in people.splitlines()]
    assert lines.index("Destination default") < lines.index("Destination collector") < lines.index("Routes")
    for expected in (
        "public_key set (…ter2) LANGFUSE_PUBLIC_KEY",
        "secret_key set LANGFUSE_SECRET_KEY",
        "endpoint https://collector:4318/in file of destinations",
        "headers api-key=**** file of destinations",
        "content none file of destinations",
        "1 tenant a or b* and tag x collector, default",
        "2 user u none",
        "otherwise every other turn default",
    ):
        assert expected in lines
    assert "hunter2" not in people + programs
    document = json.loads(programs)
    row = {"destination": "collector", "key": "content", "value": "none", "source": "file of destinations"}
    assert row in document["destinations"]
    assert document["routes"][1] == {"number": "2", "matches": "user u", "to": "none"}


def test_check_config_tells_what_is_wrong(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each problem on a line of its own."""
    clean_environment.setenv("TAILER_HTTP_PORT", "x")

    assert execute(["check-config"]) == 2

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tailer: reading the settings failed: TAILER_MONGO_URI, TAILER_HTTP_PORT"
    assert lines[1].startswith("  remedy: TAILER_MONGO_URI is not set")
    assert lines[2].startswith("          TAILER_HTTP_PORT (environment) is 'x'")


@pytest.mark.usefixtures("clean_environment")
def test_check_config_lists_every_setting_before_any_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    """With defaults and units, to choose from; then what is missing, and the exit code that says so."""
    assert execute(["check-config"]) == 2

    shown = capsys.readouterr()
    for setting in collect_settings(Settings.model_fields).values():
        assert f"  {setting.names[0]} " in shown.out
    rows = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines() if line.strip()}
    assert rows["TAILER_SETTLE_SECONDS"] == ["3", "seconds", "default", "3"]
    assert rows["TAILER_MONGO_URI"] == ["missing", "none", "required"]
    assert shown.err.startswith("tailer: reading the settings failed: TAILER_MONGO_URI\n")


def test_check_config_lists_every_setting_beside_those_that_cannot_be_used(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refused value is quoted by its problem alone, which knows what may be shown; nothing secret is."""
    given = {
        "TAILER_HTTP_PORT": "x",
        "TAILER_STATE_URI": "hunter2",
        "LANGFUSE_SECRET_KEY": "sk-lf-hunter2",
        "LANGFUSE_PUBLIC_KEY": "sk-lf-hunter2",
        "TAILER_MONGO_URI": "mongodb://user:hunter2@mongodb/admin",
        "TAILER_NO_SUCH": "hunter2",
    }
    for name, value in given.items():
        clean_environment.setenv(name, value)

    assert execute(["check-config", "--json"]) == 2

    shown = capsys.readouterr()
    document = json.loads(shown.out)
    rows = {row["name"]: (row["value"], row["source"]) for row in document["settings"]}
    assert len(rows) == len(collect_settings(Settings.model_fields))
    assert rows["TAILER_HTTP_PORT"] == ("cannot be used", "environment")
    assert rows["TAILER_STATE_URI"] == ("cannot be used", "environment")
    assert rows["TAILER_MONGO_URI"][0].startswith("mongodb://user:****@mongodb")
    assert rows["LANGFUSE_SECRET_KEY"] == ("set", "environment")
    problems = "\n".join(document["problems"])
    for name in ("TAILER_HTTP_PORT", "TAILER_STATE_URI", "TAILER_MONGO_DATABASE", "TAILER_NO_SUCH"):
        assert name in problems
    assert "hunter2" not in shown.out + shown.err


@pytest.mark.usefixtures("clean_environment")
def test_check_config_of_an_unreadable_file_tells_that_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_bytes(b"TAILER_TAGS=\xff\n")

    assert execute(["check-config"]) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "readable UTF-8 file" in shown.err


@pytest.mark.parametrize("option", ["", "--json"])
def test_an_output_that_nobody_reads_any_more_is_no_error(option: str) -> None:
    """`tailer check-config | head` ends quietly, whether the output fills a buffer or not."""
    script = (
        "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); from tailer.cli import execute; "
        f"sys.exit(execute('check-config {option}'.split()))"
    )

    done = run_process("-c", script, MONGO_URI=URI)

    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("status", "body", "line", "code"),
    [
        (200, '{"status": "ready", "state": "streaming"}', "ready: streaming", 0),
        (
            503,
            '{"status": "not ready", "state": "starting", "problems": "no answer"}',
            "not ready: starting: no answer",
            1,
        ),
        (200, "ready\nmore", "ready", 0),
        (500, "", "HTTP 500", 1),
        (500, "[]", "[]", 1),
        (200, '{"status": "\\u001b[31m"}', "\\x1b[31m", 0),
    ],
)
def test_healthcheck_asks_the_daemon_on_this_machine(
    clean_environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    body: str,
    line: str,
    code: int,
) -> None:
    """One line of state, and 0 only for 200."""
    with daemon(status, body) as port:
        clean_environment.setenv("MONGO_URI", URI)
        clean_environment.setenv("TAILER_HTTP_PORT", str(port))

        assert code == execute(["healthcheck"])

    assert f"{line}\n" == capsys.readouterr().out


def test_healthcheck_with_a_url_needs_no_settings(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another machine can ask as well."""
    with daemon(200, "ready") as port:
        assert execute(["healthcheck", "--url", f"http://127.0.0.1:{port}"]) == 0
        assert execute(["healthcheck", "--url", f"http://127.0.0.1:{port}/other?x=1"]) == 1

    assert capsys.readouterr().out == "ready\nready\n"
    del clean_environment


def test_healthcheck_of_a_daemon_that_is_not_there_fails_in_one_line(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a traceback."""
    with daemon(200, "") as port:
        pass

    assert execute(["healthcheck", "--url", f"http://127.0.0.1:{port}/readyz"]) == 1
    assert capsys.readouterr().out == "not ready: no answer (ConnectionRefusedError)\n"
    assert execute(["healthcheck", "--url", "http://a..b/readyz"]) == 1
    assert capsys.readouterr().out == "not ready: no answer (UnicodeError)\n"
    del clean_environment


@pytest.mark.parametrize("values", [{}, {"MONGO_URI": URI, "TAILER_HTTP_PORT": "0"}])
def test_healthcheck_without_a_usable_port_fails_with_one(
    clean_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], values: dict[str, str]
) -> None:
    """Docker reserves every other code."""
    for name, value in values.items():
        clean_environment.setenv(name, value)

    assert execute(["healthcheck"]) == 1
    assert "remedy: " in capsys.readouterr().err
