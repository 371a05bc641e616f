"""A turn's files in its trace: names, types and sizes, never their bytes."""

from collections.abc import Iterator

from tailer.core.json_text import encode_json
from tailer.core.librechat.attached_files import AttachedFile
from tailer.core.turn.turns import TurnRecord

_MOST_FILES = 50


def files_of(record: TurnRecord) -> Iterator[AttachedFile]:
    """The files of the question, then those of the response."""
    for message in (record.question, record.response):
        if message is not None:
            yield from message.files


def describe_files(record: TurnRecord) -> str | None:
    """The files as JSON, None without files. If there are more than fifty, the rest is only counted."""
    files = list(files_of(record))
    if not files:
        return None
    shown: list[object] = [
        {
            name: value
            for name, value in (
                ("name", file.name),
                ("type", file.type),
                ("bytes", file.size_bytes),
                ("file_id", file.file_id),
            )
            if value is not None
        }
        for file in files[:_MOST_FILES]
    ]
    if len(files) > _MOST_FILES:
        shown.append({"left_out": len(files) - _MOST_FILES})
    return encode_json(shown)
