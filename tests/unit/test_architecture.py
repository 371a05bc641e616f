"""The table of folders in docs/architecture.md is the map of `tailer`: no folder is missing, and none is made up."""

import re
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
