"""Copies in the chart and the kustomizations are those that `make derive` makes of their sources."""

import subprocess
import sys
from pathlib import Path

DERIVE = Path(__file__).parents[2] / "deploy" / "derive.py"


def test_no_derived_file_is_stale() -> None:
    """The remedy is `make derive`: rules, dashboards and settings have one source each."""
    done = subprocess.run([sys.executable, DERIVE, "--check"], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")
