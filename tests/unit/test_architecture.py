"""No folder is forgotten: the table in docs/architecture.md is the map of `tailer`, and `make test` runs all tests."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| `(tailer/[a-z_/]+)` \| (.+) \|$", re.MULTILINE)


def test_the_table_of_folders_has_one_row_for_each_folder_of_the_code() -> None:
    """Each row says what the folder is for."""
    rows = _ROW.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    packages = {str(path.parent.relative_to(ROOT)) for path in (ROOT / "tailer").rglob("__init__.py")} - {
        "tailer"
    }

    folders = [folder for folder, _ in rows]
    assert sorted(folders) == sorted(packages)


def test_every_folder_of_tests_has_a_target_and_a_limit() -> None:
    """A new one would be run by nothing, or without a limit."""
    folders = {
        path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")
    }
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^TESTS := (.+)$", makefile, re.MULTILINE)
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"][
        "ini_options"
    ]

    assert {target.removeprefix("test-") for target in targets.split()} == folders
    assert {line.split()[0].removeprefix("tests/") for line in options["time_limits"]} == folders


def test_the_daemon_starts_without_packages_that_it_rarely_needs() -> None:
    """The langfuse package takes 8 MB and a tenth of a second of CPU, and imports numpy where there is one."""
    program = "import sys, tailer.cli, tailer.daemon.daemon; print(*sorted({'langfuse', 'numpy'} & set(sys.modules)))"

    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert loaded.stdout.strip() == ""
