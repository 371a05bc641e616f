"""The page of guarantees names tests; each of them must be there, or the page promises what nothing shows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`(test_[a-z0-9_]+)`")
_DEFINED = re.compile(r"^(?:async )?def (test_[a-z0-9_]+)\(", re.MULTILINE)


def test_every_test_that_a_guarantee_names_exists() -> None:
    named = set(_NAMED.findall((ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in _DEFINED.findall(path.read_text(encoding="utf-8"))
    }

    assert len(named) > 30
    assert named - defined == set()
