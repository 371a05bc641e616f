"""docs/commands.md against the command line itself."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from tailer.cli import _build_parser

DOCUMENT = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def commands(
    parser: argparse.ArgumentParser, name: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command and what is below it, with its full name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part, inner in action.choices.items():
                full = f"{name} {part}".strip()
                yield full, inner
                yield from commands(inner, full)


def test_every_command_and_every_option_is_in_the_document() -> None:
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
    found = list(commands(_build_parser()))

    assert {name.split()[0] for name, _ in found} == set(sections)
    for name, parser in found:
        section = sections[name.split()[0]]
        assert " " not in name or f"`{name}" in section
        for action in parser._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or option in section, (name, option)


def test_every_option_of_the_document_exists() -> None:
    known = {
        option
        for _, parser in commands(_build_parser())
        for action in parser._actions
        for option in action.option_strings
    }

    assert set(re.findall(r"`(?:[a-z-]+ )*(--[a-z-]+)", DOCUMENT)) - known - {"--version"} == set()
