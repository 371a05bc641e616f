"""The systemd unit: what it starts exists, its limits fit the daemon's, and systemd itself finds no fault in it."""

import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tailer.settings import Settings
from tailer.settings.environment import collect_settings

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
UNIT = FOLDER / "librechat-tailer.service"


def read_service() -> dict[str, str]:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return dict(parser["Service"])


def test_the_service_has_time_to_send_what_is_open() -> None:
    drain = Settings.model_fields["shutdown_time"].default

    assert int(read_service()["TimeoutStopSec"]) > drain.total_seconds()


def test_the_service_runs_the_command_that_make_venv_builds_and_is_nobody() -> None:
    service = read_service()

    assert service["ExecStart"] == "/opt/librechat-tailer/.venv/bin/tailer run"
    assert service["DynamicUser"] == "yes"
    assert service["Restart"] == "always"


def test_every_setting_of_the_example_exists() -> None:
    known = {name for setting in collect_settings(Settings.model_fields).values() for name in setting.names}
    lines = (FOLDER / "tailer.env.example").read_text(encoding="utf-8").splitlines()
    given = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}

    assert given
    assert given - known == set()


@pytest.mark.skipif(ANALYZE is None, reason="needs Debian's package systemd")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    """The command is not installed here, so that another takes its place; everything else is as it is."""
    text = UNIT.read_text(encoding="utf-8")
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/librechat-tailer/.venv/bin/tailer run", "/bin/true"), encoding="utf-8")

    verified = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")

    rated = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", "--threshold=20", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout
