"""The sources of an answer: results of a web or file search (`attachments[]`), and the skills of a question.

Names and addresses are read, but no text of the sources: the tool's output holds that.
"""

from dataclasses import dataclass

from tailer.core.librechat.bson_values import (
    Document,
    amount,
    count,
    filled_string,
    mapping,
    sequence,
    strings,
)
from tailer.core.light_dataclass import light_dataclass

_WEB_LISTS = ("organic", "topStories", "news")
_MOST_SOURCES = 50
_MOST_CHARACTERS = 2_000
_MOST_SKILLS = 50
_MOST_QUOTES = 10


@light_dataclass(frozen=True, slots=True)
class Source:
    """One source: its name, its address (a web address, or a file's id), and its position.

    `anchor` is how the answer cites it; `relevance` is between 0 and 1.
    """

    name: str | None
    address: str | None
    anchor: str | None
    relevance: float | None = None
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceList:
    """The sources that one search found: `kind` is `web_search` or `file_search`, `call_id` its tool call."""

    kind: str
    call_id: str | None
    sources: tuple[Source, ...]


def read_sources(attachments: object) -> tuple[SourceList, ...]:
    """The searches among the attachments of a response, in order; those without results are left out."""
    if not attachments:
        return ()
    found = []
    for item in sequence(attachments):
        attachment = mapping(item)
        kind = attachment.get("type")
        if kind == "web_search":
            sources = _read_web(mapping(attachment.get("web_search")))
        elif kind == "file_search":
            sources = _read_files(mapping(attachment.get("file_search")))
        else:
            continue
        if sources:
            found.append(SourceList(str(kind), filled_string(attachment.get("toolCallId")), sources))
    return tuple(found)


def _read_web(results: Document) -> tuple[Source, ...]:
    turn = count(results.get("turn")) or 0
    anchors = {"organic": "search", "topStories": "news", "news": "news"}
    return tuple(
        Source(
            name=_short(result.get("title")),
            address=_short(result.get("link")) or _short(result.get("url")),
            anchor=f"turn{turn}{anchors[group]}{place}",
        )
        for group in _WEB_LISTS
        for place, result in enumerate(map(mapping, sequence(results.get(group))))
    )[:_MOST_SOURCES]


def _read_files(results: Document) -> tuple[Source, ...]:
    turn = count(results.get("turn")) or 0
    return tuple(
        Source(
            name=_short(source.get("fileName")) or _short(source.get("filename")),
            address=_short(source.get("fileId")) or _short(source.get("file_id")),
            anchor=f"turn{turn}file{place}",
            relevance=amount(source.get("relevance")),
            pages=tuple(page for item in sequence(source.get("pages")) if (page := count(item)) is not None),
        )
        for place, source in enumerate(map(mapping, sequence(results.get("sources"))))
    )[:_MOST_SOURCES]


def _short(value: object) -> str | None:
    text = filled_string(value)
    # An address can be an inlined image.
    return None if text is None or text.startswith("data:") else text[:_MOST_CHARACTERS]


def read_skills(document: Document) -> tuple[str, ...]:
    """The names of the skills that a question was asked with, chosen by hand or always applied (0.8.6)."""
    entries = (*sequence(document.get("manualSkills")), *sequence(document.get("alwaysAppliedSkills")))
    if not entries:
        return ()
    names = (filled_string(entry) or filled_string(mapping(entry).get("name")) for entry in entries)
    return tuple(dict.fromkeys(name for name in names if name is not None))[:_MOST_SKILLS]


def read_quotes(document: Document) -> tuple[str, ...]:
    """The excerpts that a question quotes (0.8.7). LibreChat stores them apart from its text."""
    quotes = strings(document.get("quotes"))
    if not quotes:
        return ()
    return tuple(quote.strip() for quote in quotes[:_MOST_QUOTES] if quote.strip())
