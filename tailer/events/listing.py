"""The events as a document, for `docs/log.md`: what each line of the log says."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Final

import tailer.events
from tailer.events.base import Event

_HEAD: Final = """\
# The log

`make derive` writes this page from `tailer/events`. A line of the log is one event: a stable name and its fields, as
JSON or, at a terminal, as text (`TAILER_LOG_FORMAT`). No line holds content of a message, and none a secret. A line
that concerns one of several destinations names it as `destination`.

**error** is a loss, or something that a person must mend. **warning** passes by itself, or is worth a look when it
comes again and again. **info** are starts, stops and changes, **debug** what comes with every batch. What only
`/metrics` counts has no line. The status page shows the newest errors and warnings by these names.
"""
_LEVELS: Final = ("error", "warning", "info", "debug")
_OF_ONE_DESTINATION: Final = "destination"


def write_document() -> str:
    """The text of `docs/log.md`."""
    return "\n".join([_HEAD, *_sections()])


def logged_events() -> list[type[Event]]:
    """The kinds of events that have a line, by name; several may share one, with other fields."""
    exported = [getattr(tailer.events, name) for name in tailer.events.__all__]
    kinds = [
        item
        for item in exported
        if isinstance(item, type)
        and issubclass(item, Event)
        and item.level is not None
        and item.name != Event.name
    ]
    return sorted(kinds, key=lambda kind: (kind.name, kind.__name__))


def _sections() -> Iterator[str]:
    for level in _LEVELS:
        kinds = [kind for kind in logged_events() if kind.level == level]
        if not kinds:
            continue
        yield f"## {level}\n"
        yield "| event | fields | |\n|---|---|---|"
        for kind in kinds:
            own = [f"`{field.name}`" for field in fields(kind) if field.name != _OF_ONE_DESTINATION]
            yield f"| `{kind.name}` | {', '.join(own)} | {_meaning(kind)} |"
        yield ""


def _meaning(kind: type[Event]) -> str:
    return " ".join((kind.__doc__ or "").split()).replace("|", "\\|")
