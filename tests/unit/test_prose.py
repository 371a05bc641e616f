"""The documents: short enough to be read, wide enough for any window, and without a link that leads nowhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailer.commands.times import read_moment

ROOT = Path(__file__).parents[2]
_MOST_README_LINES = 90
_WIDEST_COLUMNS = 120
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NAMED = re.compile(r"`(test_[a-z0-9_]+)`")
_DEFINED = re.compile(r"^(?:async )?def (test_[a-z0-9_]+)\(", re.MULTILINE)
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
)


def prose(document: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines outside of code blocks."""
    in_code = False
    for number, line in enumerate((ROOT / document).read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, line


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = [line.lstrip("#").strip() for _, line in prose(document) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= _MOST_README_LINES


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_prose_is_wrapped(document: Path) -> None:
    """Tables and code may be wider."""
    wide = [
        number for number, line in prose(document) if len(line) > _WIDEST_COLUMNS and not line.startswith("|")
    ]

    assert wide == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_inside_the_repository_leads_somewhere(document: Path) -> None:
    broken = []
    for number, line in prose(document):
        for link in _LINK.findall(line):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = Path((ROOT / document).parent / path).resolve() if path else ROOT / document
            if not target.exists() or (anchor and anchor not in anchors(target.relative_to(ROOT))):
                broken.append((number, link))

    assert broken == []


def test_every_test_that_the_page_for_contributors_names_exists() -> None:
    named = set(_NAMED.findall((ROOT / "docs" / "contributing.md").read_text("utf-8")))
    defined = {
        name for path in ROOT.glob("tests/**/test_*.py") for name in _DEFINED.findall(path.read_text("utf-8"))
    }

    assert named
    assert named - defined == set()


@pytest.mark.parametrize("document", ["architecture.md", "contributing.md"])
def test_every_file_that_a_page_about_the_code_names_exists(document: str) -> None:
    text = (ROOT / "docs" / document).read_text("utf-8")
    named = re.findall(
        r"`((?:tailer|tests|deploy|docs)/[\w./-]+|(?:flow|mongo|langfuse)/[\w./-]+\.py)`", text
    )

    assert named
    places = (ROOT, ROOT / "tailer")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


_TIME = re.compile(r"--(?:since|until|time)[ =]([^\s`<…]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_time_that_a_page_gives_to_a_command_is_accepted(document: Path) -> None:
    text = (ROOT / document).read_text("utf-8")

    for given in _TIME.findall(text):
        assert read_moment(given).tzinfo is not None
