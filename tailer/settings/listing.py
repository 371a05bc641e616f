"""The settings as a document, for `docs/settings.md`."""

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from tailer.settings.table import SettingRow, describe_defaults

_HEAD: Final = """\
# Settings

`make derive` writes this page from `tailer/settings`. `tailer check-config` shows the same settings with the values
that count and where each came from, and refuses what cannot be used.

Settings are environment variables, or lines of a file `.env` in the working directory. The environment wins over
`.env`, and a name that begins with `TAILER_` over one that LibreChat reads too, wherever either stands: each
`LANGFUSE_…` is also read as `TAILER_LANGFUSE_…`. An empty value counts as not given. A name of the tailer's that does
not exist ends the start, with the one that was probably meant. What differs between several destinations is in a file:
[destinations.md](destinations.md).
"""


def write_document() -> str:
    """The text of `docs/settings.md`."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for group, rows in groupby(describe_defaults(), key=lambda row: row.group):
        yield f"## {group.value}\n"
        yield "| setting | default | values | |\n|---|---|---|---|"
        for row in rows:
            yield f"| `{row.name}`{_other_names(row)} | {_default(row)} | {_cell(row.accepts)} | {_cell(row.explanation)} |"
        yield ""


def _other_names(row: SettingRow) -> str:
    """Names beside the first but for the `TAILER_` forms that the head explains."""
    others = [name for name in row.other_names if name != f"TAILER_{row.name}"]
    return f"; also {', '.join(f'`{name}`' for name in others)}" if others else ""


def _default(row: SettingRow) -> str:
    return f"{row.default} {row.unit}".rstrip()


def _cell(text: str) -> str:
    """A bar would end the cell."""
    return text.replace("|", "\\|")
