"""Files of a message: those that a user sent with a question, and those that tools made for an answer."""

from dataclasses import dataclass

from tailer.core.librechat.bson_values import Document, count, filled_string, sequence


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A file that a user sent or a tool made (`files[]`, `attachments[]`): what is known about it without its bytes."""

    file_id: str | None
    name: str | None
    type: str | None
    size_bytes: int | None
    path: str | None


def read_attached_files(files: object, attachments: object) -> tuple[AttachedFile, ...]:
    """The files of a row's `files[]` and `attachments[]`, in that order; what names no file is left out."""
    if not files and not attachments:
        return ()
    entries = (*sequence(files), *sequence(attachments))
    return tuple([_read_file(entry) for entry in entries if isinstance(entry, dict) and _names_a_file(entry)])


def _names_a_file(entry: Document) -> bool:
    """The files among the attachments, which also hold search results and interface parts."""
    return any(filled_string(entry.get(field)) is not None for field in ("file_id", "filename", "filepath"))


def _read_file(entry: Document) -> AttachedFile:
    path = filled_string(entry.get("filepath"))
    return AttachedFile(
        file_id=filled_string(entry.get("file_id")),
        name=filled_string(entry.get("filename")),
        type=filled_string(entry.get("type")),
        size_bytes=count(entry.get("bytes")),
        # A path can be an inlined image; bytes never become metadata.
        path=path if path is not None and not path.startswith("data:") else None,
    )
